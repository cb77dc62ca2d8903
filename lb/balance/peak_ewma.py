"""Peak EWMA, as Finagle and linkerd have it."""

from lb.balance.least_time import LeastTime
from lb.balance.meters import Peak


class PeakEWMA(LeastTime, name="peak_ewma"):
    """Of two drawn at random, the one whose peak latency of late, times its requests in flight, is less."""

    reason = "less peak latency times requests in flight, of two drawn"
    meter = Peak
