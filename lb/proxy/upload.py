"""A request's body on its way, as far as it has to be kept."""

from __future__ import annotations

from collections.abc import Sequence


class Upload:
    """What has come of a request's body while there is no connection for it, and for another attempt.

    All of it while nothing has been sent. Then only as long as it is no more than `most` bytes: of a longer
    one the beginning is gone, and with it the right to another attempt.
    """

    __slots__ = ("_pieces", "lost", "most", "size", "trailers")

    def __init__(self, most: int) -> None:
        self.most = most
        self._pieces: list[bytes] = []
        self.size = 0  # bytes that are kept
        self.lost = False  # whether something was sent that isn't kept any more
        self.trailers: Sequence[bytes] = ()

    def wait(self, data: bytes) -> None:
        """More of it, which can't be sent yet."""
        self._pieces.append(data)
        self.size += len(data)

    def take(self) -> bytes:
        """All that there is, to be sent."""
        data = b"".join(self._pieces)
        self._pieces = [data]
        self._forget_if_long()
        return data

    def sent(self, data: bytes) -> None:
        """More of it, which has been sent at once."""
        if not self.lost:
            self.wait(data)
            self._forget_if_long()

    def _forget_if_long(self) -> None:
        if self.size > self.most:
            self._pieces = []
            self.size = 0
            self.lost = True
