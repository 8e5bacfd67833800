"""What held-out text shows of a student: sequences are independent, their positions are not.

Axes: G groups of a constraint, M constraints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from ...data import Batch
from ...distributed import Ranks
from ...errors import InvalidInput
from ...fingerprints import hash_model
from ...safety import Certificate, ClusteredValues, Constraint, Correction, HeldOutValues, certify_together
from .passes import SequenceAnswers, make_sequence_batch, measure_positions

Values = list[list[tuple[Tensor, Tensor]]]  # of each constraint and group: measured values, and numbers of sequences


def find_unused_rows(held_out: Any, used: Iterable[Any], ignored: Sequence[str]) -> tuple[list[Any], int]:
    """Return the rows of held-out data that the run has not used, and how many it has; streams are not compared.

    Args:
        held_out: Rows by number, or a stream.
        used: The data sets of the run.
        ignored: Columns that make no difference.

    Raises:
        InvalidInput: The run has used all of them.
    """
    seen = {
        _hash_row(row, ignored)
        for data in used
        if data is not None and not isinstance(data, IterableDataset)
        for row in _list_rows(data)
    }
    rows = list(_list_rows(held_out))
    unused = [row for row in rows if _hash_row(row, ignored) not in seen]
    if not unused:
        why = "it is empty" if not rows else f"the run has trained on or evaluated all {len(rows)} of its sequences"
        raise InvalidInput(f"Held-out text can show nothing here: {why}. Give text that nothing else saw.")
    return unused, len(rows) - len(unused)


def _list_rows(data: Any) -> Iterator[Any]:
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        return iter(data)
    return (data[number] for number in range(len(data)))


def hash_rows(rows: Iterable[Any], ignored: Sequence[str]) -> list[bytes]:
    """Return a hash of each row.

    Args:
        rows: Of a data set.
        ignored: Columns that make no difference.
    """
    return [_hash_row(row, ignored) for row in rows]


def _hash_row(row: Mapping[str, Any], ignored: Sequence[str]) -> bytes:
    """Return a hash of the tokens of a row, or of all its columns where it has none yet."""
    if "input_ids" in row:
        ids = np.asarray(row["input_ids"], dtype=np.int64)
        present = row.get("attention_mask")
        text = (ids if present is None else ids[np.asarray(present, dtype=bool)]).tobytes()
    else:
        text = repr(sorted((name, value) for name, value in row.items() if name not in ignored)).encode()
    return hashlib.sha256(text).digest()[:16]


def number_batches(
    rows: Sequence[Any], collate: Callable[[list[Any]], Mapping[str, Any]], size: int, ranks: Ranks
) -> Iterator[tuple[list[int], Batch]]:
    """Yield the batches that one process reads, with the numbers of their sequences.

    Args:
        rows: All of them.
        collate: Makes tensors of rows.
        size: Rows of a batch.
        ranks: Who reads.
    """
    mine = list(range(ranks.rank, len(rows), ranks.size))
    for start in range(0, len(mine), size):
        numbers = mine[start : start + size]
        yield numbers, make_sequence_batch(collate([rows[number] for number in numbers]))


def certify_sequences(
    batches: Iterable[tuple[Sequence[int], Batch]],
    ask: Callable[[Batch], SequenceAnswers],
    constraints: Sequence[Constraint],
    rows: int,
    ranks: Ranks,
    *,
    confidence: float,
    correction: Correction,
    method: str,
    seed: int,
    left_out: int,
    row_hashes: Sequence[bytes],
    student: nn.Module,
) -> list[Certificate]:
    """Return one certificate a constraint.

    Args:
        batches: Those of this process, each with the numbers of its sequences.
        ask: Gives the student's hidden states.
        constraints: M of them, none an equality.
        rows: Positions whose logits are held at once.
        ranks: Who reads the others.
        confidence: Of all together, in (0, 1).
        correction: For how many there are.
        method: Which bound.
        seed: Of the order in which a betting bound sees the sequences.
        left_out: Sequences that the run had used.
        row_hashes: Of each sequence, for the record.
        student: The same, for the record.

    Raises:
        InvalidInput: No position is covered, or not by each group.
    """
    values: Values = [[] for _ in constraints]
    for numbers, batch in batches:
        answers = ask(batch)
        read = measure_positions(answers.hidden, answers.head, batch, constraints, rows)
        sequence_BT = torch.as_tensor(numbers)[:, None].expand(batch.labels.shape)
        for kept, (value_GBT, _, inside_GBT) in zip(values, read, strict=True):
            pairs = zip(value_GBT.cpu(), inside_GBT.cpu(), strict=True)
            kept.append([(value[inside], sequence_BT[inside]) for value, inside in pairs])  # type: ignore[arg-type]
    held = []
    for constraint, groups in zip(constraints, _gather_groups(values, ranks), strict=True):
        if any(not len(group.value_P) for group in groups):
            what = "no position" if not any(len(group.value_P) for group in groups) else "no position of one group"
            raise InvalidInput(
                f"'{constraint.name}' covers {what} of the held-out text; nothing can be certified on it."
            )
        if not all(bool(torch.isfinite(group.value_P).all()) for group in groups):
            raise InvalidInput(
                f"The student's '{constraint.name}' is not finite on held-out text; mend the student first."
            )
        covered = sorted({number for group in groups for number in group.cluster_P.tolist()})
        digest = hashlib.sha256(b"".join(sorted(row_hashes[number] for number in covered))).hexdigest()
        held.append(HeldOutValues(constraint, groups, left_out, digest))
    return certify_together(
        held, confidence, correction=correction, method=method, seed=seed, model_hash=hash_model(student)
    )


def _gather_groups(values: Any, ranks: Ranks) -> list[list[ClusteredValues]]:
    """Return the values of all processes by constraint and group, in the order of the sequences."""
    everything = ranks.gather(values)
    found = []
    for m in range(len(values)):
        batches = [batch for one in everything for batch in one[m]]
        groups = []
        for g in range(len(batches[0]) if batches else 0):
            value_P = torch.cat([batch[g][0] for batch in batches])
            number_P = torch.cat([batch[g][1] for batch in batches])
            order = number_P.sort(stable=True).indices
            groups.append(ClusteredValues(value_P[order].clamp(0, 1), number_P[order]))
        found.append(groups)
    return found
