"""The target at the positions of a chunk: teachers, their weights, and their pool.

    streamed    weights are known: one teacher after the other is added to the pool and forgotten; two buffers
    merged      a rule says the weights once it has seen all teachers, which are then pooled in place; K buffers
    kept        weights learn, so all teachers are needed once more after the pool; K buffers and the student's

Axes: P positions that count, C positions of a chunk, R positions of a block, K teachers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._chunk_divergences import expect
from ._memory_budget import ChunkBuffers, ChunkSize
from ._teacher_rows import Pool, PooledRows, RowChecks, TeacherRows

ChunkWeights = Callable[[slice, Tensor | None, dict[str, Tensor], Sequence[Tensor]], Tensor]
_OF_A_RULE = 4  # buffers a teacher: a copy that is stacked, and what rules make of it in float64


@dataclass(frozen=True)
class RowWeights:
    """Weights of the teachers.

    Attributes:
        given_PK: One row a position; None where a rule says it.
        rule: Called with the positions of a chunk, the student's log-probabilities at temperature 1 where it looks at
            them, the signals that are known and the teachers' log-probabilities at temperature 1; returns weights
            (C, K), perhaps with a graph.
        learned: Parameters of the rule that get gradients.
        differentiate: Whether ``given_PK`` gets a gradient.
        sees_student: Whether the rule looks at the student's log-probabilities.
        sees_teachers: Whether it looks at whole distributions of the teachers.
        sees_disagreement: Whether it looks at how far the teachers are from each other.
    """

    given_PK: Tensor | None
    rule: ChunkWeights | None = None
    learned: tuple[Tensor, ...] = ()
    differentiate: bool = False
    sees_student: bool = False
    sees_teachers: bool = False
    sees_disagreement: bool = False

    @property
    def learns(self) -> bool:
        """Whether weights, or what they are made of, get a gradient."""
        return self.differentiate or bool(self.learned)

    def student_buffer(self, teachers: int) -> int:
        """Return which buffer the student's logits are written to.

        Args:
            teachers: K.
        """
        return teachers if self.learns or self.sees_student else 1

    def count_buffers(self, teachers: int) -> int:
        """Return how many matrices (C, V) a chunk holds at once.

        Args:
            teachers: K.
        """
        kept = teachers if self.learns or self.rule is not None else 1
        held = max(kept, self.student_buffer(teachers) + 1 + self.sees_student)
        return held + _OF_A_RULE * teachers * self.sees_teachers


@dataclass(frozen=True)
class TargetSettings:
    """How teachers are made a target.

    Attributes:
        pool: How they are pooled.
        temperatures: Of each teacher.
        softened: Temperature of the pool, which teachers then enter at temperature 1; 1 where it is left as it is.
    """

    pool: Pool
    temperatures: tuple[float, ...]
    softened: float = 1.0


class _Logarithms(Sequence[Tensor]):
    """Logarithms of what is held, for a rule that looks at distributions without saying so in its ``needs``."""

    def __init__(self, held: Sequence[Tensor]) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, place: Any) -> Any:
        return self._held[place].log()


class ChunkTarget:
    """Teachers and their pool, a chunk at a time.

    Args:
        teachers: Each read by the places of positions among all N.
        weights: Of the teachers.
        settings: How they are pooled.
        labels_P: Labels of the positions that count; None where they are not known.
        buffers: Of the chunks.
        block_buffers: Of the blocks: memory that is asked for anew for each costs as much as what is computed in it.
        size: Of chunks and blocks.
        checks: Of distributions.

    Attributes:
        w_CK: Weights of the chunk that was read last, perhaps with a graph.
        signals: What a rule was given, (C, K) each.
    """

    def __init__(
        self,
        teachers: Sequence[TeacherRows],
        weights: RowWeights,
        settings: TargetSettings,
        labels_P: Tensor | None,
        buffers: ChunkBuffers,
        block_buffers: ChunkBuffers,
        size: ChunkSize,
        checks: RowChecks,
    ) -> None:
        self._teachers, self._weights, self._settings, self._labels = teachers, weights, settings, labels_P
        self._buffers, self._block_buffers, self._size, self._checks = buffers, block_buffers, size, checks
        self._kept: list[Tensor] = []
        asked = weights.learns or weights.sees_teachers or weights.sees_disagreement
        unsoftened = all(T == 1 for T in settings.temperatures)
        # probabilities are held where nobody asks for their logarithms again
        self._holds_probabilities = settings.pool.adds_probabilities and unsoftened and not asked
        self._pooled_CV: Tensor | None = None
        self._share_CK = self.w_CK = torch.empty(0)
        self.signals: dict[str, Tensor] = {}

    def read(self, rows: slice, places: Tensor | slice, log_s_CV: Tensor | None) -> None:
        """Read the teachers of a chunk.

        Args:
            rows: Its positions among those that count.
            places: And among all.
            log_s_CV: The student's log-probabilities at temperature 1, for a rule that looks at them.
        """
        weights = self._weights
        if weights.given_PK is not None:
            self._set_weights(weights.given_PK[rows])
            if not weights.differentiate:
                self._stream(rows, places)
                return
        known = self._keep(rows, places)
        if weights.rule is not None:
            self._ask_rule(weights.rule, rows, known, log_s_CV)
        if weights.learns:
            self._pooled_CV = None
            return
        self._pooled_CV = self._kept[0]
        for block in self._size.blocks(rows.stop - rows.start):
            self._pooled_CV[block] = self._merge(block)

    def pool(self, block: slice) -> PooledRows:
        """Return the target at some positions of the chunk, at the temperature at which it is compared.

        Args:
            block: Positions of the chunk.
        """
        total_RV = self._merge(block) if self._pooled_CV is None else self._pooled_CV[block]
        pooled = self._settings.pool.finish(total_RV)
        self._checks.require_distribution(pooled.log_q_RV, "the pool of the teachers", block)
        return pooled

    def soften(self, pooled: PooledRows) -> PooledRows:
        """Return a pool at the temperature at which it is compared, in place.

        Args:
            pooled: The pool.
        """
        T = self._settings.softened
        if T == 1:
            return pooled
        log_q_RV = torch.log_softmax(pooled.log_q_RV.div_(T), dim=-1)
        return PooledRows(log_q_RV, log_q_RV.exp())

    def teachers(self, block: slice) -> list[Tensor]:
        """Return the log-probabilities of each teacher as they enter the pool, where they are kept, (R, V) each.

        Args:
            block: Positions of the chunk.
        """
        return [self._soften_teacher(x_CV[block], k) for k, x_CV in enumerate(self._kept)]

    def differentiate(self, block: slice, log_q_RV: Tensor, u_RV: Tensor) -> Tensor:
        """Return the gradient of the losses in the weights at some positions, (R, K), where teachers are kept.

        Args:
            block: Positions of the chunk.
            log_q_RV: The pool there.
            u_RV: Gradient in its logarithm.
        """
        return self._settings.pool.differentiate(self.teachers(block), self._share_CK[block], log_q_RV, u_RV)

    def _set_weights(self, w_CK: Tensor) -> None:
        self.w_CK, share_CK = w_CK, w_CK.detach()
        arithmetic = self._settings.pool.kind == "arithmetic"
        self._share_CK = share_CK / share_CK.sum(-1, keepdim=True) if arithmetic else share_CK

    def _stream(self, rows: slice, places: Tensor | slice) -> None:
        pool, settings = self._settings.pool, self._settings
        C, normalize = rows.stop - rows.start, torch.softmax if pool.adds_probabilities else torch.log_softmax
        total_CV = self._pooled_CV = self._buffers.take(0, C)
        for k, teacher in enumerate(self._teachers):
            z_CV = total_CV if k == 0 else self._buffers.take(1, C)
            teacher.write_logits(places, z_CV)
            T = settings.temperatures[k]
            for block in self._size.blocks(C):
                z_RV, w_R1 = z_CV[block], self._share_CK[block, k : k + 1]
                out_RV = self._block_buffers.take(0, len(z_RV))
                teacher_RV = normalize(z_RV if T == 1 else z_RV.div_(T), dim=-1, out=out_RV)
                self._checks.require_distribution(teacher_RV, k, block)
                if k == 0:
                    pool.start(teacher_RV, w_R1, z_RV)
                else:
                    pool.add(total_CV[block], teacher_RV, w_R1)

    def _keep(self, rows: slice, places: Tensor | slice) -> dict[str, Tensor]:
        """Hold all teachers at temperature 1, and return the signals that a rule is given, (C, K) each."""
        C = rows.stop - rows.start
        label_C1 = None if self._labels is None else self._labels[rows][:, None]
        self._kept, columns = [], dict[str, list[Tensor]](entropy=[], cross_entropy=[])
        for k, teacher in enumerate(self._teachers):
            z_CV = self._buffers.take(k, C)
            teacher.write_logits(places, z_CV)
            entropy_C, truth_C = teacher.known("entropy", places), teacher.known("log_truth", places)
            counted, found = [], []
            for block in self._size.blocks(C):
                p_RV, value_RV, scale_R1 = self._normalize(z_CV[block])
                self._checks.require_distribution(p_RV, k, block)
                if self._weights.rule is not None and label_C1 is not None and truth_C is None:
                    found.append((value_RV.gather(-1, label_C1[block]) + scale_R1)[:, 0])
                if self._weights.rule is not None and entropy_C is None:
                    product_RV = self._block_buffers.take(1, len(p_RV))
                    counted.append(-expect(p_RV, value_RV, product_RV) - scale_R1[:, 0])
                if not self._holds_probabilities:
                    z_CV[block] = value_RV
            self._kept.append(z_CV)
            if self._weights.rule is not None:
                columns["entropy"].append(torch.cat(counted) if entropy_C is None else entropy_C)
                if label_C1 is not None:
                    columns["cross_entropy"].append(-(torch.cat(found) if truth_C is None else truth_C))
        return {name: torch.stack(values, dim=-1) for name, values in columns.items() if values}

    def _normalize(self, z_RV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return p, and values and scales whose sum is log p; logits are used up.

        Where logarithms are not held, p takes their place, and log p is ``z - max z + log max p``: one exponential a
        token.
        """
        if not self._holds_probabilities:
            log_p_RV = torch.log_softmax(z_RV, dim=-1)
            p_RV = log_p_RV if self._weights.rule is None else torch.softmax(z_RV, dim=-1)
            return p_RV, log_p_RV, torch.zeros_like(log_p_RV[:, :1])
        shifted_RV = torch.sub(z_RV, z_RV.amax(-1, keepdim=True), out=self._block_buffers.take(0, len(z_RV)))
        p_RV = torch.softmax(shifted_RV, dim=-1, out=z_RV)
        return p_RV, shifted_RV, p_RV.amax(-1, keepdim=True).log()

    def _ask_rule(self, rule: ChunkWeights, rows: slice, known: dict[str, Tensor], log_s_CV: Tensor | None) -> None:
        self.signals = known
        with torch.set_grad_enabled(bool(self._weights.learned)):
            held = _Logarithms(self._kept) if self._holds_probabilities else self._kept
            self._set_weights(rule(rows, log_s_CV, known, held).to(known["entropy"].dtype))

    def _merge(self, block: slice) -> Tensor:
        """Return the total of teachers that are held; a pool that is not needed again may be made in place."""
        pool, total_RV = self._settings.pool, None
        for k, teacher_RV in enumerate(self.teachers(block)):
            w_R1 = self._share_CK[block, k : k + 1]
            if pool.adds_probabilities:
                teacher_RV = teacher_RV if self._holds_probabilities else teacher_RV.exp()
            elif self._weights.learns:
                teacher_RV = teacher_RV.clone()
            if total_RV is None:
                total_RV = teacher_RV
                pool.start(teacher_RV, w_R1, total_RV)
            else:
                pool.add(total_RV, teacher_RV, w_R1)
        assert total_RV is not None
        return total_RV

    def _soften_teacher(self, log_p_RV: Tensor, k: int) -> Tensor:
        T = self._settings.temperatures[k]
        return log_p_RV if T == 1 else torch.log_softmax(log_p_RV / T, dim=-1)
