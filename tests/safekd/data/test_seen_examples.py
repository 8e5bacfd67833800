"""SeenExamples: which examples a source holds, in constant memory."""

from __future__ import annotations

import numpy as np
import pytest

from safekd.data import SeenExamples
from safekd.data.provenance import _seen_examples


def keys(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, size=count, dtype=np.uint64)


def fill(count, limit=1000, part=100, seed=0):
    seen, key_N = SeenExamples(limit), keys(count, seed)
    for start in range(0, count, part):
        seen.add(key_N[start : start + part])
    return seen, key_N


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small = _seen_examples.SeenExamplesSettings(filter_bytes=2**12, some_keys=64)
    monkeypatch.setattr(_seen_examples, "SETTINGS", small)


def test_few_are_told_exactly():
    seen, key_N = fill(1000)
    assert seen.is_exact
    assert seen.contains(key_N).all()
    assert not seen.contains(keys(1000, 1)).any()
    assert (seen.count, seen.false_share) == (1000, 0.0)


def test_of_many_none_is_missed_and_few_are_taken_for_others():
    seen, key_N = fill(5000)
    assert not seen.is_exact
    assert seen.contains(key_N).all()
    wrong = seen.contains(keys(20_000, 1)).mean()
    expected = (1 - np.exp(-4 * 5000 / 2**15)) ** 4  # Bloom 1970
    assert abs(wrong - expected) < 0.02
    assert abs(seen.false_share - expected) < 0.02
    assert seen.usable
    assert sorted(seen.keys.tolist()) == sorted(key_N.tolist())[:64]


def test_a_filter_that_is_full_says_so():
    assert not fill(30_000)[0].usable


@pytest.mark.parametrize("count", [700, 5000])
def test_order_and_parts_do_not_matter(count):
    seen, key_N = fill(count)
    other = SeenExamples(1000)
    other.add(key_N[::-1].copy())
    assert seen.fingerprint == other.fingerprint
    one, two = SeenExamples(1000), SeenExamples(1000)
    one.add(key_N[: count // 3])
    two.add(key_N[count // 3 :])
    joined = SeenExamples.join([one, two])
    assert (joined.fingerprint, joined.count) == (seen.fingerprint, count)
    assert joined.contains(key_N).all()
    changed = SeenExamples(1000)
    changed.add(np.concatenate([key_N[:-1], keys(1, 9)]))
    assert changed.fingerprint != seen.fingerprint


@pytest.mark.parametrize("count", [700, 5000])
def test_what_is_stored_says_the_same(count):
    seen, key_N = fill(count)
    again = SeenExamples.from_tensor(seen.to_tensor(), seen.count, seen.fingerprint)
    assert (again.count, again.fingerprint, again.is_exact) == (seen.count, seen.fingerprint, seen.is_exact)
    assert again.contains(key_N).all()
