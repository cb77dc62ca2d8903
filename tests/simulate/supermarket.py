"""The supermarket model: n servers, Poisson arrivals, exponential service, the shortest of d queues for each.

The limit of infinitely many servers is known (Mitzenmacher, 2001; Vvedenskaya, Dobrushin and Karpelevich,
1996). How far n servers are from it is known as well, up to terms in 1/n²: the refined mean field of Gast and
Van Houdt (2017), which is worked out here.

State x[k] is the share of queues with at least k requests. An arrival makes one of k - 1 to k at a rate of
load * (x[k-1]^d - x[k]^d), per server; a departure one of k to k - 1 at x[k] - x[k+1]. With the drift f, its
derivatives A and B at the fixed point, and Q the covariance of the jumps: the stationary covariance is W / n
with A W + W A' + Q = 0, and the mean is x + V / n with A V + B:W / 2 + C = 0. C is what the drift differs by
since all d queues are different ones: not x^d, but x^d - d (d - 1) / 2 x^(d-1) (1 - x) / n.
"""

from __future__ import annotations

NEGLIGIBLE = 1e-9


def time_in_system(load: float, choices: int, servers: float = float("inf")) -> float:
    """The mean, in service times."""
    if choices == 1:
        return 1 / (1 - load)
    shares = shares_of(load, choices)
    total = sum(shares)
    if servers != float("inf"):
        total += sum(corrections(load, choices, shares)) / servers
    return total / load


def shares_of(load: float, choices: int) -> list[float]:
    """x[1], x[2], … at the fixed point."""
    found: list[float] = []
    while True:
        share: float = load ** ((choices ** (len(found) + 1) - 1) // (choices - 1))
        if share < NEGLIGIBLE:
            return found
        found.append(share)


class Control:
    """What chance makes of a run of so many requests, and how much of it shows in how busy the servers were.

    Their share of busy time is the load on average, exactly. Where it came out higher by e, the mean number
    of requests per server is higher by about `slope` * e: taken off (a control variate), less noise is left.
    From the covariance A⁻¹ Q A⁻ᵀ of averages over a long time.
    """

    def __init__(self, load: float, choices: int, requests: float) -> None:
        drift, jumps, _ = _linear(load, choices, shares_of(load, choices), replacement=False)
        size = len(jumps)
        transposed = [[drift[j][i] for j in range(size)] for i in range(size)]
        of_sum, of_busy = _solved(transposed, [1.0] * size), _solved(transposed, [1.0] + [0.0] * (size - 1))

        def covariance(one: list[float], other: list[float]) -> float:
            return sum(q * a * b for q, a, b in zip(jumps, one, other, strict=True))

        self.slope = covariance(of_sum, of_busy) / covariance(of_busy, of_busy)
        left = covariance(of_sum, of_sum) - self.slope * covariance(of_sum, of_busy)
        self.deviation = (left * load / requests) ** 0.5 / load
        """Of the mean time in system that is left."""


Matrix = list[list[float]]


def _linear(
    load: float, d: int, shares: list[float], replacement: bool
) -> tuple[Matrix, list[float], list[float]]:
    """A, the diagonal of Q, and C."""
    size = len(shares)
    x = [1.0, *shares, 0.0]
    drift = [[0.0] * size for _ in range(size)]
    jumps, bend = [0.0] * size, [0.0] * size
    for k in range(1, size + 1):
        row = drift[k - 1]
        row[k - 1] = -load * d * x[k] ** (d - 1) - 1
        if k > 1:
            row[k - 2] = load * d * x[k - 1] ** (d - 1)
        if k < size:
            row[k] = 1.0
        jumps[k - 1] = load * (x[k - 1] ** d - x[k] ** d) + x[k] - x[k + 1]
        if not replacement:
            fewer = [d * (d - 1) / 2 * x[j] ** (d - 1) * (1 - x[j]) for j in (k - 1, k)]
            bend[k - 1] = -load * (fewer[0] - fewer[1])
    return drift, jumps, bend


def corrections(load: float, d: int, shares: list[float], replacement: bool = False) -> list[float]:
    """V."""
    drift, jumps, bend = _linear(load, d, shares, replacement)
    x = [1.0, *shares, 0.0]
    size = len(shares)
    covariance = _covariance(drift, jumps)
    for k in range(1, size + 1):
        second = [load * d * (d - 1) * x[j] ** (d - 2) for j in (k - 1, k)]
        before = covariance[k - 2][k - 2] if k > 1 else 0.0
        bend[k - 1] += (second[0] * before - second[1] * covariance[k - 1][k - 1]) / 2
    return _solved(drift, [-value for value in bend])


def _covariance(drift: Matrix, jumps: list[float]) -> Matrix:
    """W, by writing the equation out for each of its elements."""
    size = len(jumps)
    matrix, right = [], []
    for i in range(size):
        for j in range(size):
            row = [0.0] * (size * size)
            for m in range(size):
                row[m * size + j] += drift[i][m]
                row[i * size + m] += drift[j][m]
            matrix.append(row)
            right.append(-jumps[i] if i == j else 0.0)
    flat = _solved(matrix, right)
    return [flat[i * size : (i + 1) * size] for i in range(size)]


def _solved(matrix: Matrix, right: list[float]) -> list[float]:
    """Gaussian elimination with pivots."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda each: abs(rows[each][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        top = rows[column]
        for row in rows[column + 1 :]:
            if row[column]:
                factor = row[column] / top[column]
                for place in range(column, size + 1):
                    row[place] -= factor * top[place]
    found = [0.0] * size
    for place in reversed(range(size)):
        known = sum(rows[place][other] * found[other] for other in range(place + 1, size))
        found[place] = (rows[place][size] - known) / rows[place][place]
    return found
