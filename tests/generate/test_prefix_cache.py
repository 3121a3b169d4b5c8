from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medvar_engine.backends.base import PrefixState, gather_rows, one_state
from medvar_engine.generate.prefix_cache import PrefixCache, PrefixKey


def state(rows: int, nbytes: int = 100) -> PrefixState:
    return PrefixState(np.zeros((rows, 1), dtype=np.int64), (np.zeros(nbytes, dtype=np.uint8),))


def key(name: int, network: str = "") -> PrefixKey:
    return PrefixKey(network, (name,), 1, b"")


def test_rows_of_different_states_are_found() -> None:
    """Candidates drawn in one batch could not be continued one by one."""
    cache, one, two = PrefixCache(), state(2), state(1)
    cache.put([key(0), key(1)], one)
    cache.put([key(2)], two)
    assert cache.get([key(2), key(0), key(3)]) == [(two, 0), (one, 0), None]
    assert cache.get([key(1)]) == [(one, 1)]


def test_networks_do_not_share_rows() -> None:
    """Two models with one cache would continue each other's prefixes, and give noise."""
    cache = PrefixCache()
    cache.put([key(0, "one")], state(1))
    assert cache.get([key(0, "other")]) == [None]


def test_the_least_recently_used_is_removed() -> None:
    """A long session would fill the memory; or what is in use would be dropped first."""
    cache = PrefixCache(limit=300)
    for name in range(3):
        cache.put([key(name)], state(1))
    cache.get([key(0)])
    cache.put([key(3)], state(1))
    assert cache.get([key(1)]) == [None]
    assert all(cache.get([key(name) for name in (0, 2, 3)]))


def test_states_of_a_model_and_its_guide_both_stay_for_the_next_scale() -> None:
    """Every scale of a large batch would compute all coarser ones of the model again."""
    cache, old, model, guide = PrefixCache(limit=150), state(1), state(1), state(1)
    cache.put([key(0)], old)
    cache.put_together([([key(1)], model), ([key(1, "guide")], guide)])
    assert cache.get([key(0), key(1), key(1, "guide")]) == [None, (model, 0), (guide, 0)]
    cache.put([key(2)], state(1))
    assert cache.get([key(1), key(1, "guide")]) == [None, None]


def test_a_state_stored_twice_counts_once() -> None:
    """The same prefix made again and again would push everything else out."""
    cache = PrefixCache(limit=250)
    cache.put([key(0)], state(1))
    for _ in range(9):
        cache.put([key(1)], state(1))
    assert all(cache.get([key(0), key(1)]))
    assert cache.nbytes == 200
    cache.clear()
    assert cache.get([key(0)]) == [None]
    assert cache.nbytes == 0


def test_a_state_larger_than_the_limit_is_kept_for_the_next_scale_only() -> None:
    """Every scale of a large batch would compute all coarser ones again; or several such would fill the memory."""
    cache = PrefixCache(limit=150)
    cache.put([key(0)], state(1))
    cache.put([key(1)], state(1, 1000))
    assert all(cache.get([key(1)]))
    assert cache.get([key(0)]) == [None]
    cache.put([key(2)], state(1))
    assert (cache.nbytes, len(cache)) == (100, 1)


def test_one_row_of_a_batch_counts_in_full() -> None:
    """One kept candidate of 64 keeps the memory of all of them, and would pass for a sixty-fourth."""
    cache = PrefixCache(limit=1000)
    cache.put([key(0), key(1), key(2), key(3)], state(4, 400))
    for name in (1, 2, 3):
        cache.put([key(name)], state(1, 10))
    assert cache.nbytes == 430


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["new", "longer", "gather", "get", "clear"]), st.lists(st.integers(0, 9), max_size=4)),
    max_size=30,
)


@given(limit=st.integers(0, 400), operations=OPERATIONS)
def test_at_most_the_limit_and_the_newest_state_are_cached(limit: int, operations: list[tuple[str, list[int]]]) -> None:
    """An afternoon of candidates and resamples would fill the memory of the machine."""
    cache, newest = PrefixCache(limit), 0
    for what, names in operations:
        keys = [key(name) for name in dict.fromkeys(names)]
        found = [row for row in cache.get(keys) if row is not None]
        if what == "clear":
            cache.clear()
        elif what != "get" and keys:
            if what == "longer" and found:
                kept = found[0][0].longer(np.zeros((1, 2, len(found[0][0].labels), 1, len(names), 1), dtype=np.uint8))
            elif what == "gather" and len(found) == len(keys) and len({row[0].depth for row in found}) == 1:
                kept = gather_rows(
                    found, lambda own: np.concatenate([chunk[:, :, i : i + 1] for chunk, i in own], axis=2)
                )
            else:
                kept = PrefixState(
                    np.zeros((len(keys), 1), np.int64), (np.zeros((1, 2, len(keys), 1, 9, 1), dtype=np.uint8),)
                )
            cache.put(keys[: len(kept.labels)], kept)
            newest = sum(chunk.nbytes for chunk in kept.chunks)
        states = [row[0] for row in cache.get([key(name) for name in range(10)]) if row is not None]
        alive = {id(chunk): chunk.nbytes for kept in states for chunk in kept.chunks}
        assert cache.nbytes == sum(alive.values())
        assert cache.nbytes <= max(limit, newest)


def test_whole_states_are_not_copied() -> None:
    """Every scale would copy all keys and values before it."""
    whole, other = state(2), state(2)
    assert one_state([(whole, 0), (whole, 1)]) is whole
    assert one_state([(whole, 1), (whole, 0)]) is None
    assert one_state([(whole, 0)]) is None
    assert one_state([(whole, 0), (other, 1)]) is None
