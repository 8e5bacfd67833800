"""Whether data that judge are among those that trained, by what is in the examples.  Axes: N examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InvalidInput
from .._bit_mixing import Keys
from .._split import Split
from ._data_provenance import Surveyed, mark_shared, read_seen_examples
from ._seen_examples import SeenExamples


@dataclass(frozen=True)
class RecurrenceSettings:
    """When shared examples are what recurs by nature; ``tests/safekd/data/test_shared_examples.py`` notices.

    Attributes:
        deviations: By how many standard deviations of a Poisson count shared examples may exceed what one expects from
            how often examples recur within each split.
    """

    deviations: float = 3.0


SETTINGS = RecurrenceSettings()


def require_unshared(judge: Split | Surveyed, trained: Mapping[str, Split | Surveyed], name: str | None = None) -> None:
    """Refuse data that are to judge a student if other data, which train it, hold some of them.

    Examples are compared by inputs and labels, as ``hash_examples`` reads them, in whatever order and dtype.  Where
    examples recur within a split as often as between the two, as those of a few discrete inputs do, sharing is no
    evidence, unless the data are all the same.

    Args:
        judge: Data that judge.
        trained: Data that train, by what messages call them.
        name: What messages call the data that judge; None for the name of the split.

    Raises:
        InvalidInput: Some are shared; the message says how many, and how to leave them out.
    """
    name = judge.name if name is None else name
    mine = read_seen_examples(judge)
    for other, data in trained.items():
        theirs = mine if data is judge else read_seen_examples(data)
        key_N = mine.keys
        if shared := int(_mark_copies(mine, key_N, theirs).sum()):
            looked = f"its {len(judge)} examples" if mine.is_exact else f"{len(key_N)} of its {len(judge)} examples"
            can_drop = isinstance(judge, Split) and shared < len(judge)
            raise InvalidInput(
                f"'{name}' shares {shared} of {looked} with '{other}', on which the student trains; "
                "what it shows on them says nothing of new data. Give data that take no part in training"
                + (f", or leave them out: kd.data.drop_shared({name}, {other})." if can_drop else ".")
            )


def drop_shared(judge: Split, trained: Split | Surveyed) -> Split:
    """Return data that are to judge a student without those examples that other data, which train it, hold.

    Args:
        judge: Data that judge.
        trained: Data that train.

    Returns:
        A part of ``judge``; itself where nothing is shared.

    Raises:
        InvalidInput: All are shared.
    """
    mine = read_seen_examples(judge)
    shared_N = _mark_copies(mine, mine.keys, read_seen_examples(trained))
    if shared_N.all():
        raise InvalidInput(
            f"All {len(judge)} examples of '{judge.name}' are also in '{trained.name}'; nothing would be left to judge "
            "by."
        )
    return judge.part(torch.from_numpy(~shared_N).to(judge.labels.device)) if shared_N.any() else judge


def _mark_copies(mine: SeenExamples, key_N: Keys, theirs: SeenExamples) -> NDArray[np.bool_]:
    """Say which of some of my keys are copies of others; none where that many recur by nature."""
    if mine.fingerprint == theirs.fingerprint:
        return np.ones(len(key_N), dtype=bool)
    if not theirs.usable:
        return np.zeros(len(key_N), dtype=bool)
    shared_N = mark_shared(key_N, theirs)
    rate = max(_recurrence_rate(key_N), _recurrence_rate(theirs.keys) if theirs.is_exact else 0.0)
    expected = rate * len(key_N) * theirs.count + theirs.false_share * len(key_N)
    by_nature = shared_N.sum() <= expected + SETTINGS.deviations * expected**0.5
    return np.zeros_like(shared_N) if by_nature else shared_N


def _recurrence_rate(keys: Keys) -> float:
    """Return how often two examples of one split are alike: pairs that are, by all pairs."""
    _, counts = np.unique(keys, return_counts=True)
    pairs = len(keys) * (len(keys) - 1) / 2
    return float((counts * (counts - 1) / 2).sum() / pairs) if pairs else 0.0
