"""One pass over the positions, a chunk at a time: losses, sums of measures, and every gradient, none computed twice.

For each chunk of C positions

    z = W h, log s = log softmax(z / T)                      the student
    p_k                                                      each teacher in one buffer; in K where weights need all
    w                                                        given, or a rule's scores of this chunk
    q                                                        the pool
    G = dL/dz                                                in closed form, in the student's buffer
    dh = G W,  dW += G^T h                                   and the chunk is forgotten

Axes: N positions, P of them count, C positions of a chunk, H width, K teachers, V vocabulary, M measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...divergences import ReverseKL, TemperedDivergence
from ...errors import NotFinite
from ._chunk_divergences import compare_chunk, expect
from ._chunk_measures import ConstraintReader, LogitGradient
from ._head import Head
from ._head_products import HeadProducts
from ._teacher_rows import TeacherRows, differentiate_weights, pool_rows

ChunkWeights = Callable[[Tensor | slice, Tensor, dict[str, Tensor], Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class LossSettings:
    """How positions are compared.

    Attributes:
        divergence: Of target and student; its temperature is the student's.
        pool: "arithmetic" or "geometric".
        temperatures: Of each teacher.
        soften_pool: Whether teachers are pooled at temperature 1, and their pool softened.
        cross_entropy: Share of the cross-entropy on the labels in the loss.
        rows: Positions of a chunk.
    """

    divergence: TemperedDivergence
    pool: str
    temperatures: tuple[float, ...]
    soften_pool: bool
    cross_entropy: float
    rows: int


@dataclass(frozen=True)
class RowWeights:
    """Weights of the teachers.

    Attributes:
        given_PK: One row a position; None where a rule says it.
        rule: Called with the positions of a chunk, the student's log-probabilities, the signals that are known and the
            teachers' log-probabilities at temperature 1; returns weights (C, K), perhaps with a graph.
        learned: Parameters of the rule that get gradients.
        differentiate: Whether ``given_PK`` gets a gradient.
    """

    given_PK: Tensor | None
    rule: ChunkWeights | None = None
    learned: tuple[Tensor, ...] = ()
    differentiate: bool = False

    @property
    def keeps_teachers(self) -> bool:
        """Whether the distributions of all teachers are held at once."""
        return self.rule is not None or self.differentiate


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
        gradients: Of the objective.
        weights_PK: The weights that were used.
        signals: Signals that a rule was given, (P, K) each.
    """

    divergence: Tensor
    cross_entropy: Tensor | None
    gradients: LossGradients
    weights_PK: Tensor
    signals: dict[str, Tensor]


class LossPass:
    """Reads positions chunk by chunk.

    Args:
        student: Hidden states of the positions that count, (P, H); or, without a head, their logits, (P, V).
        head: The student's head; None where ``student`` are logits.
        teachers: Each read by the places of positions among all N.
        kept_P: Places of the positions that count; None where all do.
        labels_P: Labels of those; None where nothing needs them.
        weights: Of the teachers.
        measures: Readers of the constraints.
        settings: How positions are compared.
        names: Of the teachers, for messages.
        dtype: Of all that is computed, float32 or float64.
    """

    def __init__(
        self,
        student: Tensor,
        head: Head | None,
        teachers: Sequence[TeacherRows],
        kept_P: Tensor | None,
        labels_P: Tensor | None,
        weights: RowWeights,
        measures: Sequence[ConstraintReader],
        settings: LossSettings,
        names: Sequence[str],
        dtype: torch.dtype,
    ) -> None:
        self._student, self._head, self._teachers, self._kept = student.detach(), head, teachers, kept_P
        self._labels, self._weights, self._measures = labels_P, weights, measures
        self._settings, self._names, self._dtype = settings, names, dtype
        self._products = None if head is None else HeadProducts(head, dtype)
        self._needs_logits = head is not None and head.softcap is not None

    def run(self, unit: float, ce_unit: float, wanted: tuple[bool, bool, bool]) -> PassResult:
        """Return sums, and the gradient of ``unit * divergence + ce_unit * cross-entropy + the measures' own``.

        Args:
            unit: What one position's divergence counts, T^2 left out.
            ce_unit: What one position's cross-entropy counts.
            wanted: Whether the gradients of student, weight and bias are asked for.
        """
        P = len(self._student)
        total = torch.zeros((), dtype=torch.float64, device=self._student.device)
        ce_total = None if self._labels is None else total.clone()
        gradients = self._make_gradients(wanted)
        used, signals = [], dict[str, list[Tensor]]()
        for start in range(0, P, self._settings.rows):
            rows = slice(start, min(start + self._settings.rows, P))
            chunk = _Chunk(self, rows, unit, ce_unit, wanted, gradients)
            loss_C, truth_C = chunk.run()
            total += loss_C.sum(dtype=torch.float64)
            if ce_total is not None and truth_C is not None:
                ce_total -= truth_C.sum(dtype=torch.float64)
            used.append(chunk.w_CK.detach())
            for name, value in chunk.signals.items():
                signals.setdefault(name, []).append(value)
        return PassResult(
            total * self._settings.divergence.temperature**2,
            ce_total,
            gradients,
            torch.cat(used) if used else self._student.new_zeros(0, len(self._teachers)),
            {name: torch.cat(values) for name, values in signals.items()},
        )

    def _make_gradients(self, wanted: tuple[bool, bool, bool]) -> LossGradients:
        of_student, of_weight, of_bias = wanted
        student, head = self._student, self._head
        made = LossGradients()
        if of_student:
            made.student_PH = torch.empty_like(student)
        if of_weight and head is not None:
            made.weight_VH = torch.zeros(head.weight.shape, dtype=self._dtype, device=student.device)
        if of_bias and head is not None:
            made.bias_V = torch.zeros(head.vocabulary, dtype=self._dtype, device=student.device)
        if self._weights.differentiate:
            made.given_PK = torch.empty(len(student), len(self._teachers), dtype=self._dtype, device=student.device)
        made.learned = [torch.zeros_like(x) for x in self._weights.learned]
        return made


class _Chunk:
    """Some positions of a pass."""

    def __init__(
        self,
        whole: LossPass,
        rows: slice,
        unit: float,
        ce_unit: float,
        wanted: tuple[bool, bool, bool],
        gradients: LossGradients,
    ) -> None:
        self._whole, self._rows, self._wanted, self._gradients = whole, rows, wanted, gradients
        self._unit, self._ce_unit = unit, ce_unit
        self._of_logits = any(wanted)
        self._places = rows if whole._kept is None else whole._kept[rows]
        self.w_CK = torch.empty(0)
        self.signals: dict[str, Tensor] = {}

    def run(self) -> tuple[Tensor, Tensor | None]:
        """Return the divergences of the chunk without T^2, and log p(y) where labels are known, (C,) each."""
        whole, settings = self._whole, self._whole._settings
        T = settings.divergence.temperature
        student_CH = whole._student[self._rows]
        z_CV = student_CH.to(whole._dtype, copy=True) if whole._products is None else whole._products.logits(student_CH)
        capped_CV = z_CV if whole._needs_logits and self._of_logits else None
        plain_CV = None
        if T != 1 and whole._labels is not None:
            plain_CV = torch.log_softmax(z_CV, dim=-1)
        log_s_CV = torch.log_softmax(z_CV if T == 1 else z_CV.div(T), dim=-1)
        del z_CV
        self._require_finite(log_s_CV, "the student")
        truth_C, extra = self._read_labels(log_s_CV if plain_CV is None else plain_CV)
        kept = self._read_teachers(log_s_CV)
        gradient_CV, loss_C = self._compare(kept, log_s_CV, extra if T == 1 else None)
        if gradient_CV is not None:
            self._go_back(gradient_CV, plain_CV, extra, capped_CV, student_CH)
        return loss_C, truth_C

    def _read_labels(self, log_p_CV: Tensor) -> tuple[Tensor | None, LogitGradient | None]:
        """Return log p(y), and the gradient of cross-entropy and measures in the logits at temperature 1."""
        whole = self._whole
        if whole._labels is None:
            return None, None
        label_C = whole._labels[self._rows]
        truth_C = log_p_CV.gather(-1, label_C[:, None])[:, 0]
        extra = LogitGradient(torch.zeros_like(truth_C)) if self._of_logits else None
        for reader in whole._measures:
            reader.read(self._rows, log_p_CV, label_C, extra)
        if extra is not None and self._ce_unit:
            extra.scale_C += self._ce_unit
            place_C = torch.arange(len(label_C), device=label_C.device)
            extra.entries.append((place_C, label_C[:, None], torch.full_like(truth_C, -self._ce_unit)[:, None]))
        return truth_C, extra

    def _read_teachers(self, log_s_CV: Tensor) -> list[Tensor]:
        """Return each teacher's log-probabilities at its temperature where all are held at once, else none yet."""
        whole, weights = self._whole, self._whole._weights
        settings = whole._settings
        if not weights.keeps_teachers:
            assert weights.given_PK is not None
            self.w_CK = weights.given_PK[self._rows]
            return []
        kept = []
        for k, teacher in enumerate(whole._teachers):
            kept.append(teacher.log_p(self._places, 1.0))
            self._require_finite(kept[-1], whole._names[k])
        if weights.rule is None:
            assert weights.given_PK is not None
            self.w_CK = weights.given_PK[self._rows]
        else:
            self._ask_rule(kept, log_s_CV)
        if not settings.soften_pool:
            pairs = zip(kept, settings.temperatures, strict=True)
            kept = [x if T == 1 else torch.log_softmax(x.div_(T), dim=-1) for x, T in pairs]
        return kept

    def _ask_rule(self, kept: Sequence[Tensor], log_s_CV: Tensor) -> None:
        whole, weights = self._whole, self._whole._weights
        entropies = [teacher.known("entropy", self._places) for teacher in whole._teachers]
        read = [-expect(x.exp(), x) if h is None else h for x, h in zip(kept, entropies, strict=True)]
        known = {"entropy": torch.stack(read, dim=-1)}
        if whole._labels is not None:
            label_C1 = whole._labels[self._rows][:, None]
            truths = [teacher.known("log_truth", self._places) for teacher in whole._teachers]
            read = [x.gather(-1, label_C1)[:, 0] if t is None else t for x, t in zip(kept, truths, strict=True)]
            known["cross_entropy"] = -torch.stack(read, dim=-1)
        self.signals = known
        assert weights.rule is not None
        with torch.set_grad_enabled(bool(weights.learned)):
            self.w_CK = weights.rule(self._rows, log_s_CV, known, kept).to(whole._dtype)

    def _stream_teachers(self, in_pool: float | None) -> Iterator[Tensor]:
        whole = self._whole
        for k, teacher in enumerate(whole._teachers):
            T = whole._settings.temperatures[k] if in_pool is None else in_pool
            log_p_CV = teacher.log_p(self._places, T)
            self._require_finite(log_p_CV, whole._names[k])
            yield log_p_CV

    def _compare(
        self, kept: list[Tensor], log_s_CV: Tensor, extra: LogitGradient | None
    ) -> tuple[Tensor | None, Tensor]:
        whole, settings = self._whole, self._whole._settings
        w_CK = self.w_CK.detach()
        if settings.pool == "arithmetic":
            w_CK = w_CK / w_CK.sum(-1, keepdim=True)
        learns = whole._weights.differentiate or bool(whole._weights.learned)
        pooled = pool_rows(
            settings.pool,
            kept or self._stream_teachers(1.0 if settings.soften_pool else None),
            w_CK,
            keep=learns,
            in_logs=isinstance(settings.divergence, ReverseKL),
        )
        log_pool_CV = pooled.log_q_CV.clone() if learns else None
        self._require_finite(pooled.log_q_CV, "the pool of the teachers")
        T = settings.divergence.temperature
        if settings.soften_pool and T != 1:
            pooled.log_q_CV = torch.log_softmax(pooled.log_q_CV.div_(T), dim=-1)
            pooled.q_CV = pooled.log_q_CV.exp()
        compared = compare_chunk(
            settings.divergence,
            log_s_CV,
            pooled.log_q_CV,
            pooled.q_CV,
            scale_C=None if extra is None else extra.scale_C / (self._unit * T or 1.0),
            share=1.0 if self._unit else 0.0,
            gradient=self._of_logits,
            learns=learns,
        )
        if learns and compared.u_CV is not None and log_pool_CV is not None:
            gradient_CK = differentiate_weights(settings.pool, kept, log_pool_CV, compared.u_CV)
            self._move_weights(gradient_CK * (self._unit * (T if settings.soften_pool else T * T)))
        return compared.gradient_CV, compared.loss_C

    def _move_weights(self, gradient_CK: Tensor) -> None:
        learned = self._whole._weights.learned
        if self._gradients.given_PK is not None:
            self._gradients.given_PK[self._rows] = gradient_CK
        elif self.w_CK.requires_grad:
            parts = torch.autograd.grad(self.w_CK, learned, gradient_CK.to(self.w_CK), allow_unused=True)
            for total, part in zip(self._gradients.learned, parts, strict=True):
                if part is not None:
                    total += part

    def _go_back(
        self,
        gradient_CV: Tensor,
        plain_CV: Tensor | None,
        extra: LogitGradient | None,
        capped_CV: Tensor | None,
        student_CH: Tensor,
    ) -> None:
        """Turn the gradient in the logits, in units of ``unit T``, into those of student and head."""
        whole, gradients = self._whole, self._gradients
        unit = self._unit * whole._settings.divergence.temperature or 1.0
        if extra is not None:
            if plain_CV is not None:
                gradient_CV += plain_CV.exp_().mul_((extra.scale_C / unit)[:, None])
            extra.add_to(gradient_CV, unit)
        if whole._products is None:
            if gradients.student_PH is not None:
                gradients.student_PH[self._rows] = gradient_CV.mul_(unit).to(gradients.student_PH)
            return
        products = whole._products
        gradient_CV = products.chain(gradient_CV, capped_CV)
        if gradients.student_PH is not None:
            gradients.student_PH[self._rows] = products.differentiate_hidden(gradient_CV).mul_(unit)
        if gradients.weight_VH is not None:
            products.add_weight_gradient(gradients.weight_VH, gradient_CV, student_CH * unit)
        if gradients.bias_V is not None:
            gradients.bias_V.add_(gradient_CV.sum(0), alpha=unit)

    def _require_finite(self, log_p_CV: Tensor, who: str) -> None:
        """Refuse rows that are no distribution: one NaN makes the first of their numbers NaN."""
        bad_C = torch.isnan(log_p_CV[:, 0])
        if bool(bad_C.any()):
            place = int(bad_C.nonzero()[0]) + self._rows.start
            where = place if self._whole._kept is None else int(self._whole._kept[place])
            raise NotFinite(
                f"{who} gives no distribution at position {where}: its logits hold NaN or plus infinity, or all are "
                "minus infinity",
                "finite logits, or minus infinity for tokens that are left out",
            )
