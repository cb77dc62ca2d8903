"""A table of hashes, as Google's Maglev has it (Eisenbud et al., 2016, section 3.4)."""

from lb.balance.hashing import Keyed, hashes_of
from lb.core.backend import Backend

SLOTS = 65537  # a prime, so that every step goes through all of the table


class Maglev(Keyed, name="maglev"):
    """Each backend in turn takes the next free slot in an order of its own. A pick is one look: O(1).

    Shares are as even as can be. Weights are earned in rounds, as Envoy does it.
    """

    place = "its key's slot in the table"
    rest = 1.0  # a table takes some 50 ms; while it is an old one, who has left is passed over

    def prepare(self, weights: dict[Backend, int]) -> None:
        most = max(weights.values())
        hashes = [hashes_of(backend.id, 2) for backend in weights]
        places, steps = [a % SLOTS for a, _ in hashes], [b % (SLOTS - 1) + 1 for _, b in hashes]
        table: list[Backend | None] = [None] * SLOTS
        self.table, left, earned = table, SLOTS, dict.fromkeys(weights, 0)
        while left:
            for number, (backend, weight) in enumerate(weights.items()):
                earned[backend] += weight
                if earned[backend] < most:
                    continue
                earned[backend] -= most
                place, step = places[number], steps[number]
                while table[place] is not None:
                    place = (place + step) % SLOTS
                table[place], places[number] = backend, place
                left -= 1
                if not left:
                    break

    def owner(self, hash_: int) -> Backend:
        return self.table[hash_ % SLOTS]  # type: ignore[return-value]
