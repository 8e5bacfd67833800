"""One pass over the positions, a chunk at a time: losses, sums of measures, and every gradient, none computed twice.

For each chunk of C positions

    p_k = softmax(W_k h_k), w, q                    teachers, weights and their pool (``_chunk_targets``)
    z = W h                                         the student's logits
    log s = log softmax(z / T), G = dL/dz           R positions at a time, in closed form, in the place of z
    dh = G W,  dW += G^T h                          and the chunk is forgotten

Axes: N positions, P of them count, C positions of a chunk, R positions of a block, H width, K teachers, V vocabulary,
M measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...divergences import TemperedDivergence
from ._chunk_divergences import compare_chunk, expect
from ._chunk_measures import ConstraintReader, LogitGradient
from ._chunk_targets import ChunkTarget, RowWeights, TargetSettings
from ._head import Head
from ._head_products import HeadProducts
from ._memory_budget import ChunkBuffers, ChunkSize
from ._teacher_rows import RowChecks, TeacherRows


@dataclass(frozen=True)
class PassParts:
    """What a pass reads, and how.

    Attributes:
        student: Hidden states of the positions that count, (P, H); or, without a head, their logits, (P, V).
        head: The student's head; None where ``student`` are logits.
        vocabulary: V, how many tokens are compared; the head may be padded beyond.
        teachers: Each read by the places of positions among all N.
        names: Of the teachers, for messages.
        weights: Of the teachers.
        kept_P: Places of the positions that count; None where all do.
        labels_P: Labels of those; None where nothing needs them.
        measures: Readers of the constraints.
        divergence: Of target and student; its temperature is the student's.
        target: How teachers are pooled.
        size: Of chunks and blocks.
        dtype: Of all that is computed, float32 or float64.
    """

    student: Tensor
    head: Head | None
    vocabulary: int
    teachers: Sequence[TeacherRows]
    names: Sequence[str]
    weights: RowWeights
    kept_P: Tensor | None
    labels_P: Tensor | None
    measures: Sequence[ConstraintReader]
    divergence: TemperedDivergence
    target: TargetSettings
    size: ChunkSize
    dtype: torch.dtype


@dataclass
class LossGradients:
    """Gradients of the objective; None where none is asked for."""

    student_PH: Tensor | None = None
    weight_VH: Tensor | None = None
    bias_V: Tensor | None = None
    given_PK: Tensor | None = None
    learned: list[Tensor] = field(default_factory=list)

    def copy_student(self) -> Tensor | None:
        """Return a copy of the student's gradient."""
        return None if self.student_PH is None else self.student_PH.clone()


@dataclass
class PassResult:
    """Sums over the positions that count, float64, and gradients.

    Attributes:
        divergence: Sum of the divergences, T^2 included.
        cross_entropy: Sum over labels; None where there are none.
        entropy_P: Entropy of the student's distribution at temperature 1, (P,).
        gradients: Of the objective.
        weights_PK: The weights that were used.
        signals: Signals that a rule was given, (P, K) each.
    """

    divergence: Tensor
    cross_entropy: Tensor | None
    entropy_P: Tensor
    gradients: LossGradients
    weights_PK: Tensor
    signals: dict[str, Tensor]


def run_pass(parts: PassParts, unit: float, ce_unit: float, wanted: tuple[bool, bool, bool]) -> PassResult:
    """Return sums, and the gradient of ``unit * divergence + ce_unit * cross-entropy + the measures' own``.

    Args:
        parts: What is read, and how.
        unit: What one position's divergence counts, T^2 left out.
        ce_unit: What one position's cross-entropy counts.
        wanted: Whether the gradients of student, weight and bias are asked for.
    """
    reader = _ChunkReader(parts, unit, ce_unit, wanted)
    used, signals = [], dict[str, list[Tensor]]()
    for rows in parts.size.chunks(len(parts.student)):
        reader.read(rows)
        used.append(reader.target.w_CK.detach())
        for name, value in reader.target.signals.items():
            signals.setdefault(name, []).append(value)
    return PassResult(
        reader.divergence * parts.divergence.temperature**2,
        None if parts.labels_P is None else reader.cross_entropy,
        reader.entropy_P,
        reader.gradients,
        torch.cat(used) if used else parts.student.new_zeros(0, len(parts.teachers), dtype=parts.dtype),
        {name: torch.cat(values) for name, values in signals.items()},
    )


def _make_gradients(parts: PassParts, wanted: tuple[bool, bool, bool]) -> LossGradients:
    of_student, of_weight, of_bias = wanted
    student, head, dtype, device = parts.student, parts.head, parts.dtype, parts.student.device
    made = LossGradients()
    if of_student:
        held = dtype if student.dtype == torch.float16 else student.dtype  # see attach_gradients
        made.student_PH = torch.zeros_like(student, dtype=held)
    if of_weight and head is not None:
        made.weight_VH = torch.zeros(head.weight.shape, dtype=dtype, device=device)
    if of_bias and head is not None:
        made.bias_V = torch.zeros(head.vocabulary, dtype=dtype, device=device)
    if parts.weights.differentiate:
        made.given_PK = torch.empty(len(student), len(parts.teachers), dtype=dtype, device=device)
    made.learned = [torch.zeros_like(x) for x in parts.weights.learned]
    return made


class _ChunkReader:
    """Reads chunks and adds up what they give.

    Attributes:
        target: Of the chunk that was read last.
        gradients: So far.
        divergence: Sum so far, without T^2, float64.
        cross_entropy: Sum so far, float64.
        entropy_P: Entropy of the student's distribution at temperature 1, of each position that was read.
    """

    def __init__(self, parts: PassParts, unit: float, ce_unit: float, wanted: tuple[bool, bool, bool]) -> None:
        student, size = parts.student, parts.size
        self._parts, self._unit, self._ce_unit, self._of_logits = parts, unit, ce_unit, any(wanted)
        self._products = None if parts.head is None else HeadProducts(parts.head.cut(parts.vocabulary), parts.dtype)
        self._buffers = ChunkBuffers(size.rows, parts.vocabulary, parts.dtype, student.device)
        self._checks = RowChecks(parts.names, parts.kept_P)
        block_buffers = ChunkBuffers(size.block, parts.vocabulary, parts.dtype, student.device)
        self.target = ChunkTarget(
            parts.teachers,
            parts.weights,
            parts.target,
            parts.labels_P,
            self._buffers,
            block_buffers,
            size,
            self._checks,
        )
        self.gradients = _make_gradients(parts, wanted)
        self.divergence = torch.zeros((), dtype=torch.float64, device=student.device)
        self.cross_entropy = torch.zeros_like(self.divergence)
        self.entropy_P = torch.empty(len(student), dtype=parts.dtype, device=student.device)

    def read(self, rows: slice) -> None:
        """Read a chunk.

        Args:
            rows: Its positions among those that count.
        """
        parts, C = self._parts, rows.stop - rows.start
        self._checks.start = rows.start
        places = rows if parts.kept_P is None else parts.kept_P[rows]
        student_CH = parts.student[rows]
        z_CV = self._buffers.take(parts.weights.student_buffer(len(parts.teachers)), C)
        if parts.weights.sees_student:
            self._write_logits(student_CH, z_CV)
            log_s_CV = self._buffers.take(len(parts.teachers) + 1, C)
            for block in parts.size.blocks(C):
                log_s_CV[block] = torch.log_softmax(z_CV[block], dim=-1)
                self._checks.require_distribution(log_s_CV[block], "the student", block)
            self.target.read(rows, places, log_s_CV)
        else:
            self.target.read(rows, places, None)
            self._write_logits(student_CH, z_CV)
        columns = [self._compare(rows, block, z_CV[block]) for block in parts.size.blocks(C)]
        if parts.weights.learns:
            self._move_weights(rows, torch.cat([column for column in columns if column is not None]))
        if self._of_logits:
            self._go_back(rows, z_CV, student_CH)

    def _write_logits(self, student_CH: Tensor, z_CV: Tensor) -> None:
        if self._products is None:
            z_CV.copy_(student_CH)
        else:
            self._products.write_logits(student_CH, z_CV)

    def _compare(self, rows: slice, block: slice, z_RV: Tensor) -> Tensor | None:
        """Add up the losses of a block, put its gradient in the place of its logits; return that of the weights.

        The gradient is that in ``W h + b``, in units of ``unit T``.
        """
        parts, unit, weights = self._parts, self._unit, self._parts.weights
        T, capped = parts.divergence.temperature, parts.head is not None and parts.head.softcap is not None
        plain_RV = torch.log_softmax(z_RV, dim=-1) if T != 1 else None
        log_s_RV = torch.log_softmax(z_RV if T == 1 else z_RV / T, dim=-1)
        self._checks.require_distribution(log_s_RV, "the student", block)
        own = slice(rows.start + block.start, rows.start + block.stop)
        extra = self._read_labels(own, log_s_RV if plain_RV is None else plain_RV)
        s_RV = log_s_RV.exp()
        plain = (s_RV, log_s_RV) if plain_RV is None else (plain_RV.exp(), plain_RV)
        self.entropy_P[own] = -expect(*plain)
        pooled = self.target.pool(block)
        log_pool_RV = pooled.log_q_RV.clone() if weights.learns else None
        pooled = self.target.soften(pooled)
        compared = compare_chunk(
            parts.divergence,
            log_s_RV,
            s_RV,
            pooled.log_q_RV,
            pooled.q_RV,
            scale_C=None if extra is None or T != 1 else extra.scale_C / (unit or 1.0),
            share=1.0 if unit else 0.0,
            gradient=self._of_logits,
            learns=weights.learns,
            out_CV=None if capped else z_RV,
        )
        self.divergence += compared.loss_C.sum(dtype=torch.float64)
        gradient_RV = compared.gradient_CV
        if gradient_RV is not None:
            if extra is not None:
                if plain_RV is not None:
                    gradient_RV += plain[0].mul_((extra.scale_C / (unit * T or 1.0))[:, None])
                extra.add_to(gradient_RV, unit * T or 1.0)
            if self._products is not None:
                self._products.chain(gradient_RV, z_RV)
            if capped:
                z_RV.copy_(gradient_RV)
        if compared.u_CV is None or log_pool_RV is None:
            return None
        of_pool = unit * (T if parts.target.softened != 1 else T * T)
        return self.target.differentiate(block, log_pool_RV, compared.u_CV) * of_pool

    def _read_labels(self, rows: slice, log_p_RV: Tensor) -> LogitGradient | None:
        """Read cross-entropy and measures; return their gradient in the logits at temperature 1."""
        parts = self._parts
        if parts.labels_P is None:
            return None
        label_R = parts.labels_P[rows]
        truth_R = log_p_RV.gather(-1, label_R[:, None])[:, 0]
        self.cross_entropy -= truth_R.sum(dtype=torch.float64)
        extra = LogitGradient(torch.zeros_like(truth_R)) if self._of_logits else None
        for measure in parts.measures:
            measure.read(rows, log_p_RV, label_R, extra)
        if extra is not None and self._ce_unit:
            extra.scale_C += self._ce_unit
            place_R = torch.arange(len(label_R), device=label_R.device)
            extra.entries.append((place_R, label_R[:, None], torch.full_like(truth_R, -self._ce_unit)[:, None]))
        return extra

    def _move_weights(self, rows: slice, gradient_CK: Tensor) -> None:
        if self.gradients.given_PK is not None:
            self.gradients.given_PK[rows] = gradient_CK
        elif self.target.w_CK.requires_grad:
            w_CK, learned = self.target.w_CK, self._parts.weights.learned
            parts = torch.autograd.grad(w_CK, learned, gradient_CK.to(w_CK), allow_unused=True)
            for total, part in zip(self.gradients.learned, parts, strict=True):
                if part is not None:
                    total += part

    def _go_back(self, rows: slice, gradient_CV: Tensor, student_CH: Tensor) -> None:
        """Add the gradients of student and head."""
        gradients, products, V = self.gradients, self._products, self._parts.vocabulary
        unit = self._unit * self._parts.divergence.temperature or 1.0
        if products is None:
            if gradients.student_PH is not None:
                gradients.student_PH[rows] = gradient_CV.mul_(unit).to(gradients.student_PH)
            return
        if gradients.student_PH is not None:
            gradients.student_PH[rows] = products.differentiate_hidden(gradient_CV).mul_(unit).to(gradients.student_PH)
        if gradients.weight_VH is not None:
            products.add_weight_gradient(gradients.weight_VH[:V], gradient_CV, student_CH, unit)
        if gradients.bias_V is not None:
            gradients.bias_V[:V].add_(gradient_CV.sum(0), alpha=unit)
