"""What any student could reach on the sequences of a trace: the core's feasibility bound, over prefixes.

A causal model says one distribution after one prefix, whatever its size.  So where the thresholds contradict each
other, or equal prefixes are followed by different critical tokens, no student meets them, and the weights of a linear
program prove it.  Labels decide that, and one forward pass over the sample; nothing is differentiated in parameters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ....data import IGNORED, Batch, Inputs, Split
from ....safety import Constraint
from ....training.diagnosis import BeyondBudget, EvidenceBudget, EvidenceMeter, FeasibilityBound, bound_feasibility
from ._sequence_pass import SequenceAnswers

_ATTENTION, _IDS = "attention_mask", "input_ids"


@dataclass(frozen=True)
class SampleLogits:
    """Gives the student's logits of a few sequences.

    Attributes:
        student: The model.
        read: Gives its hidden states and its head.
        rows: Sequences at a time.
    """

    student: nn.Module
    read: Callable[[Batch], SequenceAnswers]
    rows: int = 8

    def logits(self, batch: Batch) -> Tensor:
        """Return logits, (B, T, V).

        Args:
            batch: Sequences.
        """
        answers = self.read(batch)
        return answers.head.logits(answers.hidden)


def bound_sample(
    batches: Sequence[Batch], source: SampleLogits, constraints: Sequence[Constraint], budget: EvidenceBudget
) -> FeasibilityBound | None:
    """Return the best that any student could do for the constraints on some sequences; None where nothing is known.

    Args:
        batches: The sequences.
        source: Gives the student's logits, at which concave measures are bounded.
        constraints: Of the run.
        budget: Memory and time.

    Raises:
        BeyondBudget: It would take more.
    """
    split = _join_batches(batches)
    return bound_feasibility(
        source,
        {constraint.split: split for constraint in constraints},
        constraints,
        EvidenceMeter(budget),
        number_inputs=lambda splits: _number_prefixes(splits, constraints),
    )


def _join_batches(batches: Sequence[Batch]) -> Split:
    """Return batches of unequal lengths as one split."""
    longest = max(batch.labels.shape[1] for batch in batches)

    def pad(value: Tensor, shape: torch.Size, filling: int) -> Tensor:
        if value.shape[:2] != shape:
            raise BeyondBudget(f"an input of shape {tuple(value.shape)} is not one a position")
        return torch.nn.functional.pad(value, (0, longest - shape[1]), value=filling)

    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        shape, mask = batch.labels.shape, batch.mask
        labels = batch.labels if mask is None else torch.where(mask, batch.labels, IGNORED)
        parts.setdefault("labels", []).append(pad(labels, shape, IGNORED))
        for name, value in _name_inputs(batch.inputs).items():
            parts.setdefault(f"inputs.{name}", []).append(pad(value, shape, 0))
        parts.setdefault("context", []).append(batch.context)
        parts.setdefault("task", []).append(batch.task)
    joined = {name: torch.cat(values) for name, values in parts.items()}
    inputs = {name.removeprefix("inputs."): value for name, value in joined.items() if name.startswith("inputs.")}
    return Split("train", inputs, joined["labels"], context=joined["context"], task=joined["task"])


def _name_inputs(inputs: Inputs) -> Mapping[str, Tensor]:
    return inputs if isinstance(inputs, Mapping) else {_IDS: inputs}


def _number_prefixes(splits: Mapping[str, Split], constraints: Sequence[Constraint]) -> tuple[dict[str, Tensor], int]:
    """Number the positions that a constraint speaks of, so that equal prefixes have equal numbers."""
    ((name, split),) = splits.items()
    batch = split.batch()
    covered_BT = torch.zeros(batch.labels.shape, dtype=torch.bool, device=batch.labels.device)
    for constraint in constraints:
        for _, average in constraint.parts:
            covered_BT |= average.covers(batch)
    inputs = {what: value.cpu() for what, value in _name_inputs(split.inputs).items()}
    attended_BT = inputs.get(_ATTENTION, torch.ones_like(inputs[_IDS])).bool()
    row_BT = torch.zeros(covered_BT.shape, dtype=torch.long)
    group_of: dict[bytes, int] = {}
    for row, positions in enumerate(covered_BT.cpu()):
        first = int(attended_BT[row].int().argmax())  # where it begins tells places, which some models learn
        digest, at = hashlib.blake2b(f"{first}".encode(), digest_size=16), first
        for position in positions.nonzero()[:, 0].tolist():
            for what in sorted(inputs):
                digest.update(inputs[what][row, at : position + 1].numpy().tobytes())
            at = position + 1
            row_BT[row, position] = group_of.setdefault(digest.copy().digest(), len(group_of))
    return {name: row_BT}, len(group_of)
