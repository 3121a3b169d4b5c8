from __future__ import annotations

import numpy as np

from medvar_engine.backends.base import PrefixState, one_state
from medvar_engine.prefix_cache import Key, PrefixCache


def state(rows: int, nbytes: int = 100) -> PrefixState:
    return PrefixState(np.zeros((rows, 1), dtype=np.int64), ("chunk",), nbytes)


def key(name: int) -> Key:
    return ((name,), 1, b"")


def test_finds_rows_of_different_states() -> None:
    """Candidates drawn in one batch could not be continued one by one."""
    cache, one, two = PrefixCache(), state(2), state(1)
    cache.put([key(0), key(1)], one)
    cache.put([key(2)], two)
    assert cache.get([key(2), key(0)]) == [(two, 0), (one, 0)]
    assert cache.get([key(1)]) == [(one, 1)]
    assert cache.get([key(0), key(3)]) is None


def test_drops_what_was_used_longest_ago() -> None:
    """A long session would fill the memory; or what is in use would be dropped first."""
    cache = PrefixCache(limit=300)
    for name in range(3):
        cache.put([key(name)], state(1))
    cache.get([key(0)])
    cache.put([key(3)], state(1))
    assert cache.get([key(1)]) is None
    assert all(cache.get([key(name)]) for name in (0, 2, 3))


def test_putting_again_counts_once() -> None:
    """The same prefix made again and again would push everything else out."""
    cache = PrefixCache(limit=250)
    cache.put([key(0)], state(1))
    for _ in range(9):
        cache.put([key(1)], state(1))
    assert cache.get([key(0), key(1)])
    cache.clear()
    assert cache.get([key(0)]) is None
    cache.put([key(0)], state(1))
    cache.put([key(1)], state(1))
    assert cache.get([key(0), key(1)])


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    """A large model on a small machine would loop for ever, or keep what it has no room for."""
    cache = PrefixCache(limit=10)
    cache.put([key(0)], state(1))
    assert cache.get([key(0)]) is None


def test_whole_states_are_not_copied() -> None:
    """Every scale would copy all keys and values before it."""
    whole, other = state(2), state(2)
    assert one_state([(whole, 0), (whole, 1)]) is whole
    assert one_state([(whole, 1), (whole, 0)]) is None
    assert one_state([(whole, 0)]) is None
    assert one_state([(whole, 0), (other, 1)]) is None
