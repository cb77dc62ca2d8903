"""When a backend counts as up: `rise` good probes in a row bring it up, `fall` bad ones down."""


class Health:
    """The judgement over one backend's probes.

    A backend that has not been judged yet comes up with its first good probe, so that a start is not
    delayed by `rise` intervals, and goes down with its first bad one.
    """

    __slots__ = ("fall", "reason", "rise", "streak", "up")

    def __init__(self, rise: int, fall: int) -> None:
        self.rise = rise
        self.fall = fall
        self.up: bool | None = None  # None: not judged yet
        self.streak = 0  # probes in a row that speak against the present judgement
        self.reason = "not probed yet"

    def probed(self, good: bool, reason: str) -> bool:
        """Takes one probe's result; true when the judgement has changed."""
        self.reason = reason
        if good is self.up:
            self.streak = 0
            return False
        self.streak += 1
        if self.up is not None and self.streak < (self.rise if good else self.fall):
            return False
        self.up, self.streak = good, 0
        return True
