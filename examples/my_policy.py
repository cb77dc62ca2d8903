"""A balancing policy of your own, in one file.

Put the file beside the configuration, or on PYTHONPATH, and name it there:

    pools:
      greeter:
        balancer: my_policy:FewestBytes
        backends: [127.0.0.1:9001, 127.0.0.1:9002, 127.0.0.1:9003]

`lb explain REQUEST_ID` shows its reason.
"""

from lb.balance import Balancer


class FewestBytes(Balancer):
    """The backend that has served the fewest bytes so far: evens out downloads of very different sizes."""

    weighted = False  # it looks at no weights
    reason = "it has served the fewest bytes so far"

    def pick(self, request, backends):
        # At least two, all eligible. To look at each is fine for a handful; for thousands, draw two (p2c).
        return min(backends, key=lambda backend: backend.received)
