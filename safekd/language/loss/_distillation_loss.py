"""Distillation of several teachers over a vocabulary, position by position, in bounded memory.

No matrix (N, V) is held whole and none (N, K, V) at all; every gradient is worked out in the forward pass, chunk by
chunk, so nothing is computed twice.  Axes: ... positions, N of them, P that count, H width, K teachers, V vocabulary,
M measures, G groups of all measures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ..._number_checks import is_finite
from ...data import Batch
from ...divergences import ForwardKL, ReverseKL, TemperedDivergence
from ...errors import InvalidInput
from ...pooling import PoolFunction
from ...safety import Constraint, GroupSums, SafetyConstraint, SafetyMeasure
from ...weights import Rule, Signals, TeacherEvidence, Uniform, collect_modules, collect_needs, looks_at_student
from ._chunk_divergences import require_divergence
from ._chunk_measures import ConstraintReader
from ._chunk_signals import ChunkSignals
from ._chunk_targets import ChunkWeights, RowWeights, TargetSettings
from ._head import Head, require_head_type
from ._loss_gradient import attach_gradients
from ._loss_inputs import (
    make_label_batch,
    read_per_group,
    read_pool,
    read_positions,
    read_temperatures,
    read_vocabulary,
    read_weights,
    require_outputs,
    require_share,
    require_taught_by_distillation,
    require_weights_kind,
    spread_group,
)
from ._loss_pass import PassParts, run_pass
from ._memory_budget import choose_chunk, read_bytes
from ._teacher_outputs import TeacherOutput
from ._teacher_rows import TeacherRows


@dataclass(frozen=True, repr=False)
class LanguageLoss(ShortRepr):
    """The loss of some positions, and what was read beside it.

    Attributes:
        loss: Mean distillation loss, mixed with cross-entropy, less ``multipliers . safety``: a scalar in float32 or
            wider whose gradients are known already; ``backward()`` hands them over.
        distillation: Mean divergence of the student from the target over the positions that count, T^2 included,
            without gradient.
        cross_entropy: Mean cross-entropy on the labels, without gradient; None without labels.
        positions: How many positions count here.
        sums: Sums of each measure, in the order of the measures.
        entropy: Entropy of the student at temperature 1, nats, at the positions that count, (P,), without gradient.
        weights: Weights of the teachers at the positions that count, (P, K), without gradient.
        signals: What the rule was given, by name, (P, K) each; empty where weights were given.
        kept: Places of the positions that count among all, (P,); None where all do.
        hidden_gradient: Gradient of the loss in the hidden states that count, (P, H), where it was asked for.
    """

    loss: Tensor
    distillation: Tensor
    cross_entropy: Tensor | None
    positions: int
    sums: tuple[GroupSums, ...]
    entropy: Tensor
    weights: Tensor
    signals: dict[str, Tensor]
    kept: Tensor | None
    hidden_gradient: Tensor | None = None


def shift_labels(labels: Tensor) -> Tensor:
    """Return the token that follows each position: its label in this library.

    Args:
        labels: Tokens, or labels as Hugging Face has them, one a token, (..., T).

    Returns:
        (..., T): each position has the label of the next one, the last -100.
    """
    labels = torch.as_tensor(labels)
    return torch.cat([labels[..., 1:], torch.full_like(labels[..., :1], -100)], dim=-1)


def distillation_loss(
    hidden: Tensor,
    head: Head | None,
    teachers: TeacherOutput | Sequence[TeacherOutput],
    *,
    weights: Tensor | Rule | None = None,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    divergence: TemperedDivergence | None = None,
    pool: str | PoolFunction = "arithmetic",
    temperature: float | Sequence[float] | None = None,
    temper: str = "teachers",
    cross_entropy: float = 0.0,
    measures: SafetyMeasure | Constraint | Sequence[SafetyMeasure | Constraint] = (),
    multipliers: Tensor | Sequence[float] | None = None,
    group_weights: Sequence[Tensor] | None = None,
    measure_counts: Sequence[Tensor] | None = None,
    count: float | Tensor | None = None,
    vocabulary: int | None = None,
    budget: str | int = "64MiB",
    task: Tensor | None = None,
    context: Tensor | None = None,
    index: Tensor | None = None,
    evidence: TeacherEvidence | None = None,
    critical_classes: Collection[int] = (),
    critical_contexts: Collection[int] = (),
    names: Sequence[str] | None = None,
    split: str | None = None,
    keep_hidden_gradient: bool = False,
) -> LanguageLoss:
    """Return the distillation loss of a student from several teachers, with its gradients and safety measures.

    Args:
        hidden: The student's last hidden states, (..., H); without a head its logits, (..., V).
        head: The student's head, its weight tied to the embeddings or not; None where ``hidden`` are logits.
        teachers: What each teacher says of the same positions: ``Hidden``, ``Logits`` or ``TopK``, mixed freely.
        weights: (K,), or (..., K), which may carry a graph; or a rule, which is called a chunk at a time on the
            ``Signals`` of that chunk (its averages over a batch are averages over a chunk), and whose parameters get
            gradients; None weighs all alike.
        labels: The token that follows each position, (...), see ``shift_labels``; -100 leaves a position out.
        mask: Which positions count, bool, (...), besides.
        divergence: ``ForwardKL()``, the default, ``ReverseKL()`` or ``JSD(beta)``.
        pool: "arithmetic", the mean of the teachers' probabilities; "geometric", of their logarithms; "power" or
            ``PowerPool(r)``, of their powers; "log_linear" or ``LogLinearPool(T)``, the geometric one at a temperature.
        temperature: T of teachers and student; or one a teacher, the student then having the divergence's.
        temper: "teachers" softens each teacher, then pools, as everybody does; "pool" pools first and softens the pool,
            which is another loss unless T = 1.
        cross_entropy: Share of the cross-entropy on the labels: the loss is (1 - share) T^2 D + share CE.
        measures: Safety measures over critical tokens, or constraints with groups of their own.
        multipliers: One a measure, (M,); the loss is then less ``multipliers . safety``, so that it rises where the
            student's safety falls.
        group_weights: What each group of a constraint counts in its value, (G,) each; where left out, the shares of its
            ``mix``.
        measure_counts: How many positions each group has in the whole step, (G,) each; those of this call if left out.
        count: How many positions the whole step has, over all its microbatches and processes: losses then add up to
            the step's; those of this call if left out.
        vocabulary: How many tokens are compared, where heads are padded beyond their tokenizer; heads are cut to it.
        budget: Memory for distributions: bytes, or text such as "64MiB".
        task: Task of each example, (B,), or position, for rules and constraints.
        context: Context of each example, or position.
        index: Number of each example or position, for rules that look weights up.
        evidence: What was measured of the teachers, for rules.
        critical_classes: Tokens at which safety orderings of the weights apply.
        critical_contexts: Contexts in which they apply.
        names: What messages call the teachers.
        split: Name of the split that examples are from, for rules that look weights up.
        keep_hidden_gradient: Whether the result holds a copy of the gradient in the hidden states.

    Returns:
        The loss and what was read beside it.

    Raises:
        InvalidInput: Shapes, vocabularies or settings do not fit each other.
        NotFinite: A teacher's or the student's logits are no distribution; the message names who, and where.

    Source: closed forms of the gradients in ``safekd.language.loss``; temperature as in Hinton, Vinyals and Dean 2015.

    >>> from safekd.language import Logits
    >>> z = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    >>> out = distillation_loss(z, None, [Logits(torch.tensor([[2.0, 0.0, -1.0]]))])
    >>> float(out.loss), out.positions
    (0.0, 1)
    """
    outputs = require_outputs(teachers)
    K, lead, device = len(outputs), hidden.shape[:-1], hidden.device
    named = [f"teacher {k}" for k in range(K)] if names is None else [str(name) for name in names]
    _require_shapes(hidden, head, outputs, named)
    divergence = require_divergence(ForwardKL() if divergence is None else divergence)
    per_teacher, divergence = read_temperatures(temperature, divergence, K, temper)
    V = read_vocabulary(hidden, head, outputs, named, vocabulary)
    require_share(cross_entropy)
    kept, labels_P = read_positions(lead, labels, mask, V, device)
    if (cross_entropy or measures) and labels_P is None:
        raise InvalidInput("Cross-entropy and safety measures need the tokens that follow; pass `labels`.")
    positions = int(lead.numel()) if kept is None else len(kept)
    total = _read_count(count, positions)
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    batch = make_label_batch(lead, labels, task, context, device)
    constraints = _read_measures(measures, batch, kept, multipliers, group_weights, measure_counts)
    groups = {"task": task, "context": context, "index": index}
    groups_P = {name: spread_group(name, value, lead, kept, device) for name, value in groups.items()}
    shared = {
        "evidence": evidence,
        "critical_classes": critical_classes,
        "critical_contexts": critical_contexts,
        "teachers": named,
        "split": split,
    }
    rows_PK, row_weights = _read_row_weights(
        weights, lead, K, kept, wide, device, lambda rule: _call_rule(rule, labels_P, groups_P, shared)
    )
    target = _read_target(pool, temper, per_teacher, divergence)
    size = choose_chunk(positions, read_bytes(budget), row_weights.count_buffers(K), V, wide, device)
    flat = hidden.flatten(0, -2)
    student = flat[:, :V] if head is None and flat.shape[-1] != V else flat
    student = student if kept is None else student[kept]
    trained = [student, None, None] if head is None else [student, head.weight, head.bias]
    wanted = [bool(torch.is_grad_enabled() and x is not None and x.requires_grad) for x in trained]
    rows = [TeacherRows(output, V, wide, who) for output, who in zip(outputs, named, strict=True)]
    parts = PassParts(
        student.detach(), head, V, rows, named, row_weights, kept, labels_P, constraints, divergence, target, size, wide
    )
    unit, ce_unit = (1 - cross_entropy) / total, cross_entropy / total
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        result = run_pass(parts, unit, ce_unit, (wanted[0], wanted[1], wanted[2]))
        value = unit * result.divergence + sum(constraint.value for constraint in constraints)
        if ce_unit and result.cross_entropy is not None:
            value = value + ce_unit * result.cross_entropy
    copied = result.gradients.copy_student() if keep_hidden_gradient else None
    loss = attach_gradients(value.to(wide), trained, rows_PK, list(row_weights.learned), result.gradients)
    sums = tuple(constraint.sums for constraint in constraints)
    each = max(positions, 1)
    truth = None if result.cross_entropy is None else (result.cross_entropy / each).to(wide)
    of_divergence = (result.divergence / each).to(wide)
    read = result.entropy_P, result.weights_PK, result.signals
    return LanguageLoss(loss, of_divergence, truth, positions, sums, *read, kept, copied)


def _read_target(
    pool: str | PoolFunction, temper: str, per_teacher: tuple[float, ...], divergence: TemperedDivergence
) -> TargetSettings:
    kind = read_pool(pool, len(per_teacher), in_logs=isinstance(divergence, ReverseKL))
    if temper == "pool":
        return TargetSettings(kind, (1.0,) * len(per_teacher), divergence.temperature)
    return TargetSettings(kind, per_teacher)


def _require_shapes(hidden: Tensor, head: Head | None, outputs: Sequence[TeacherOutput], names: Sequence[str]) -> None:
    if not isinstance(hidden, Tensor) or not hidden.is_floating_point() or hidden.ndim < 2:
        found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise InvalidInput(f"`hidden` is {found}; wanted floats of shape (..., width), one row a position.")
    if head is not None:
        require_head_type(head)
    if head is not None and hidden.shape[-1] != head.width:
        raise InvalidInput(
            f"`hidden` has width {hidden.shape[-1]}, and the head reads {head.width}; wanted the states that the head "
            "reads, or head=None where `hidden` are logits."
        )
    if len(names) != len(outputs):
        raise InvalidInput(f"`names` has {len(names)} names for {len(outputs)} teachers; wanted one each.")
    for name, output in zip(names, outputs, strict=True):
        if output.lead != hidden.shape[:-1]:
            raise InvalidInput(
                f"{name} speaks of positions of shape {tuple(output.lead)}, the student of {tuple(hidden.shape[:-1])}; "
                "wanted the same positions."
            )


def _read_count(count: float | Tensor | None, positions: int) -> float:
    if count is None:
        return float(max(positions, 1))
    number = count.item() if isinstance(count, Tensor) and count.numel() == 1 else count
    if not (is_finite(number) and number > 0):
        raise InvalidInput(f"`count` is {number!r}; wanted how many positions the whole step has, above 0.")
    return float(number)


def _read_measures(
    measures: SafetyMeasure | Constraint | Sequence[SafetyMeasure | Constraint],
    batch: Batch,
    kept: Tensor | None,
    multipliers: Tensor | Sequence[float] | None,
    group_weights: Sequence[Tensor] | None,
    counts: Sequence[Tensor] | None,
) -> list[ConstraintReader]:
    """Return a reader of each measure, which knows what one unit of each group's sum adds to the loss."""
    rules: list[Constraint] = []
    several = [measures] if isinstance(measures, (SafetyMeasure, Constraint)) else measures
    for m, measure in enumerate(several):
        if isinstance(measure, SafetyMeasure):
            rules.append(SafetyConstraint(f"measure {m}", measure, at_least=1.0))
        elif isinstance(measure, Constraint):
            rules.append(measure)
        else:
            raise InvalidInput(
                f"`measures` holds {measure!r}; wanted safety measures such as "
                "kd.safety.LogTruthProbability(critical), or constraints."
            )
    readers = [ConstraintReader(rule, batch, kept) for rule in rules]
    if multipliers is None:
        return readers
    lambda_M = torch.as_tensor(multipliers, dtype=torch.float64, device=batch.labels.device).detach()
    if lambda_M.shape != (len(rules),) or not bool(torch.isfinite(lambda_M).all()):
        raise InvalidInput(
            f"`multipliers` is {lambda_M.tolist()}; wanted a finite number a measure, {len(rules)} of them."
        )
    known = [reader.sums.count_G for reader in readers]
    counts = known if counts is None else read_per_group("measure_counts", counts, known)
    group_weights = None if group_weights is None else read_per_group("group_weights", group_weights, known)
    for m, (rule, reader) in enumerate(zip(rules, readers, strict=True)):
        count_G = counts[m].clamp_min(1.0)
        if group_weights is not None:
            share_G = group_weights[m]
        elif rule.gradient_depends_on_means:
            raise InvalidInput(
                f"Constraint '{rule.name}' is the worst of several mixes, whose weights follow from means over the "
                "whole step; pass `group_weights`, or use LanguageStep, which keeps them."
            )
        else:
            share_G = rule.gradient(torch.zeros_like(count_G), count_G)
        reader.weigh(-lambda_M[m] * share_G / count_G)
    return readers


def _read_row_weights(
    weights: Tensor | Rule | None,
    lead: torch.Size,
    K: int,
    kept: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
    make_call: Callable[[Rule], ChunkWeights],
) -> tuple[Tensor | None, RowWeights]:
    """Return weights that are given, (P, K) with their graph, and how chunks are weighed."""
    if weights is None or type(weights) is Uniform:
        weights = torch.full((K,), 1 / K, dtype=dtype, device=device)
    if isinstance(weights, Tensor):
        rows_PK = read_weights(weights.to(device), lead, K, kept).to(dtype)
        differentiate = torch.is_grad_enabled() and rows_PK.requires_grad
        return rows_PK, RowWeights(rows_PK.detach(), differentiate=differentiate)
    require_weights_kind(weights, K)
    parameters = [p for module in collect_modules(weights).values() for p in module.parameters() if p.requires_grad]
    learned = tuple(dict.fromkeys(parameters)) if torch.is_grad_enabled() else ()
    if learned:
        require_taught_by_distillation(weights)
    needs = collect_needs(weights)
    return None, RowWeights(
        None,
        make_call(weights),
        learned,
        sees_student=looks_at_student(weights),
        sees_teachers="log_p" in needs,
        sees_disagreement="disagreement" in needs,
    )


def _call_rule(
    rule: Rule, labels_P: Tensor | None, groups: dict[str, Tensor | None], shared: dict[str, Any]
) -> ChunkWeights:
    def call(rows: slice, log_s_CV: Tensor | None, known: dict[str, Tensor], log_p: Sequence[Tensor]) -> Tensor:
        entropy_CK = known["entropy"]
        signals = ChunkSignals(
            log_p,
            entropy_CK,
            cross_entropy=known.get("cross_entropy"),
            labels=None if labels_P is None else labels_P[rows],
            student_log_p=log_s_CV,
            **{name: None if value is None else value[rows] for name, value in groups.items()},
            **shared,
        )
        return _require_weights(rule(signals), signals, rule)

    return call


def _require_weights(w_CK: object, signals: Signals, rule: Rule) -> Tensor:
    who = type(rule).__name__
    if not isinstance(w_CK, Tensor) or w_CK.shape != signals.shape:
        found = tuple(w_CK.shape) if isinstance(w_CK, Tensor) else type(w_CK).__name__
        raise InvalidInput(f"{who} gave {found}; wanted weights of shape {tuple(signals.shape)}.")
    known = w_CK.detach()
    total_C = known.sum(-1)
    if not bool(torch.isfinite(known).all()) or bool((known < 0).any()) or bool((total_C <= 0).any()):
        raise InvalidInput(f"{who} gave scores that are negative, not finite, or all 0 at a position.")
    return w_CK / w_CK.sum(-1, keepdim=True)
