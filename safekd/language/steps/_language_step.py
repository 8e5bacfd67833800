"""Loss and constraints of the steps of a language model, over microbatches and processes, in a loop of one's own.

    step = LanguageStep(3, weights=rule, constraints=[...])
    step.begin(batches)                                          # all microbatches of the step: labels are counted
    for batch in batches:
        step.loss(hidden, head, outputs, batch).backward()       # their losses add up to the step's
    optimizer.step()
    record = step.finish()                                       # multipliers move by the sums of all processes

Multipliers are constant within a step and label counts are known before it, so the gradient of loss and constraints is
known in the forward pass; what a step shows moves the multipliers of the next one.  Axes: K teachers, M constraints, G
groups, P positions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.primal_dual import DualMethod, MultiplierScales, PIGain, PrimalDual
from solvers.short_repr import ShortRepr

from ..._torch_state import require_device
from ...data import Batch
from ...distributed import Ranks
from ...divergences import ForwardKL, TemperedDivergence
from ...errors import InvalidInput
from ...pooling import PoolFunction
from ...safety import Constraint, GroupSums
from ...training import ConstraintLayout, SumLayout
from ...weights import Rule, TeacherEvidence
from ..loss import Head, LanguageLoss, TeacherOutput, distillation_loss, require_loss_settings
from ._running_values import RunningValue
from ._scale_reading import ScaleSums, read_scale_sums
from ._step_inputs import read_constraints, read_teacher_names, require_horizon

_FIRST_READINGS = 20  # steps in which scales that are not known yet are looked for, as the engine does
_SMALL_VIOLATION = 1e-3  # of a threshold: below, gains grow no further


@dataclass(frozen=True, repr=False)
class StepRecord(ShortRepr):
    """What one step showed, over all its microbatches and processes.

    Attributes:
        step: Its number, from 1.
        loss: Mean divergence from the target, T^2 included.
        cross_entropy: Mean cross-entropy on the labels; None without labels.
        objective: What was minimized but for the constraints: both, mixed.
        safety: Measured value of each constraint, (M,), float64; NaN where the step says nothing.
        violation: How far each is from its threshold, positive where it is missed, (M,).
        multipliers: lambda of each constraint, and mu of equalities, after the step, (M,).
        weights: Mean weight of each teacher, (K,).
        positions: How many positions counted.
    """

    step: int
    loss: float
    cross_entropy: float | None
    objective: float
    safety: Tensor
    violation: Tensor
    multipliers: Tensor
    weights: Tensor
    positions: int


class LanguageStep:
    """Takes the loss and the multipliers through the steps of one run.

    Args:
        teachers: How many, or their names.
        weights: As ``distillation_loss`` takes them: a tensor, a rule, or None for all alike.
        constraints: What is asked of the student's safety, each over positions whose labels it calls critical.
        divergence: ``ForwardKL()`` by default.
        pool: A name of ``kd.pooling.POOLS``, a ``PowerPool`` or a ``LogLinearPool``.
        temperature: See ``distillation_loss``, like the next two.
        temper: "teachers" or "pool".
        cross_entropy: Share of the cross-entropy in the loss.
        dual: How multipliers move; ``PIGain(ema=0.0)`` by default.
        vocabulary: How many tokens are compared; None where all heads have the same.
        budget: Memory for distributions.
        evidence: What was measured of the teachers, for rules.
        critical_classes: Tokens at which safety orderings of the weights apply.
        critical_contexts: Contexts in which they apply.
        ranks: The processes of the run; one alone if left out.
        horizon: How many steps the run takes, where that is known.
        device: Where sums and multipliers live.

    Attributes:
        names: Of the teachers.
        constraints: As given.
        engine: Holds multipliers and penalties.
        steps: How many were finished.
        last: What the last microbatch's loss showed; None before the first.

    Raises:
        InvalidInput: Settings do not fit each other.
    """

    def __init__(
        self,
        teachers: int | Sequence[str],
        *,
        weights: Tensor | Rule | None = None,
        constraints: Constraint | Sequence[Constraint] = (),
        divergence: TemperedDivergence | None = None,
        pool: str | PoolFunction = "arithmetic",
        temperature: float | Sequence[float] | None = None,
        temper: str = "teachers",
        cross_entropy: float = 0.0,
        dual: DualMethod | None = None,
        vocabulary: int | None = None,
        budget: str | int = "64MiB",
        evidence: TeacherEvidence | None = None,
        critical_classes: Collection[int] = (),
        critical_contexts: Collection[int] = (),
        ranks: Ranks | None = None,
        horizon: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        names = read_teacher_names(teachers)
        require_horizon(horizon)
        self.names, self.constraints, self.weights = names, read_constraints(constraints), weights
        self.device, self.ranks = require_device(device), Ranks() if ranks is None else ranks
        self._loss_settings: dict[str, Any] = {
            "weights": weights,
            "divergence": ForwardKL() if divergence is None else divergence,
            "pool": pool,
            "temperature": temperature,
            "temper": temper,
            "cross_entropy": cross_entropy,
            "vocabulary": vocabulary,
            "budget": budget,
            "evidence": evidence,
            "critical_classes": critical_classes,
            "critical_contexts": critical_contexts,
            "names": names,
        }
        require_loss_settings(self._loss_settings, len(names))
        self._layout = ConstraintLayout(self.constraints, self.device)
        ordered = self._layout.order_by_kind(self.constraints)
        self.engine = PrimalDual(
            len(self._layout.inequalities),
            len(self._layout.equalities),
            # a share of the past delays short runs: 120 steps on texts of its own end at .61 +- .04 of .6 without,
            # at .53 +- .13 with smoothing that is found
            method=PIGain(ema=0.0) if dual is None else dual,
            device=self.device,
            least_range=[_SMALL_VIOLATION * abs(rule.required) for rule in ordered],
            horizon=horizon,
        )
        self._values = [RunningValue(rule, self.device) for rule in self.constraints]
        self._weight_M = torch.zeros(len(self.constraints), dtype=torch.float64, device=self.device)
        self.steps = 0
        self.last: LanguageLoss | None = None
        self._count: float | None = None
        self._counts: list[Tensor] = []
        self._sum_layout = SumLayout(3 + len(names), self.constraints)

    def begin(self, batches: Batch | Sequence[Batch]) -> None:
        """Count the labels of a step, over all its microbatches and processes.

        Args:
            batches: The microbatches of this process; their labels are the tokens that follow each position.

        Raises:
            InvalidInput: A step is under way.
        """
        if self._count is not None:
            raise InvalidInput("A step is under way; call finish() before the next begin().")
        batches = [batches] if isinstance(batches, Batch) else batches
        sizes = [sum(average.size for _, average in rule.parts) for rule in self.constraints]

        def count() -> Tensor:
            positions = torch.tensor([float(sum(b.positions for b in batches))], dtype=torch.float64)
            groups = [
                sum((rule.counts(batch).cpu() for batch in batches), torch.zeros(size, dtype=torch.float64))
                for rule, size in zip(self.constraints, sizes, strict=True)
            ]
            return torch.cat([positions, *groups]).to(self.device)

        total = self.ranks.add_up(count, 1 + sum(sizes))
        self._count = float(total[0])
        if self._count == 0:
            self._count = None
            raise InvalidInput("No position of this step counts: all labels are -100, or the mask leaves all out.")
        self._counts = list(torch.split(total[1:], sizes)) if sizes else []
        self._sums: dict[int, GroupSums] = {}
        self._numbers = torch.zeros(3 + len(self.names), dtype=torch.float64, device=self.device)
        self._has_labels = True
        self._scales = ScaleSums.zeros(len(self.constraints), self.device)

    def loss(self, hidden: Tensor, head: Head | None, outputs: Sequence[TeacherOutput], batch: Batch) -> Tensor:
        """Return the loss of one microbatch; those of all microbatches and processes add up to the step's.

        Where a wrapper averages gradients over processes, multiply it by their number.

        Args:
            hidden: The student's last hidden states, (B, T, H); logits without a head.
            head: Its head.
            outputs: What each teacher says of the same positions.
            batch: Labels, contexts and tasks.

        Raises:
            InvalidInput: ``begin`` was not called, or something does not fit.
            NotFinite: A teacher or the student gives no distribution.
        """
        if self._count is None:
            raise InvalidInput("No step is under way; call begin(batches) with all microbatches of the step first.")
        reads = bool(self.constraints) and head is not None and torch.is_grad_enabled() and self._reads_scales()
        result = distillation_loss(
            hidden,
            head,
            outputs,
            **self._loss_settings,
            **_describe(batch),
            measures=[rule.bind(batch) for rule in self.constraints],
            multipliers=self._weight_M,
            group_weights=[value.factors(surrogate=True) for value in self._values],
            measure_counts=self._counts,
            count=self._count,
            keep_hidden_gradient=reads,
        )
        self.last = result
        self._add_up(result)
        if reads and head is not None and result.hidden_gradient is not None:
            self._add_scales(hidden, head, batch, result)
        return result.loss

    def measure(
        self, hidden: Tensor, head: Head | None, outputs: Sequence[TeacherOutput], batch: Batch
    ) -> LanguageLoss:
        """Return loss and sums of measures of a batch outside of any step, without gradient.

        Args:
            hidden: The student's last hidden states; logits without a head.
            head: Its head.
            outputs: What each teacher says.
            batch: Labels, contexts and tasks.
        """
        with torch.no_grad():
            return distillation_loss(
                hidden,
                head,
                outputs,
                **self._loss_settings,
                **_describe(batch),
                measures=[rule.bind(batch) for rule in self.constraints],
            )

    def finish(self) -> StepRecord:
        """Move the multipliers by what the step showed, and end it.

        Raises:
            InvalidInput: ``begin`` was not called, or ``loss`` not once for each of its microbatches.
        """
        if self._count is None:
            raise InvalidInput("No step is under way; call begin(batches) first.")
        count, known = self._count, self._reads_scales()
        scales = self._scales.pack()
        length = self._sum_layout.length + len(scales)
        vector = self.ranks.add_up(
            lambda: torch.cat([self._sum_layout.pack(self._numbers, self._sums), scales]), length
        )
        numbers, sums = self._sum_layout.unpack(vector[: self._sum_layout.length])
        if round(float(numbers[2])) != round(count):
            raise InvalidInput(
                f"The losses of this step read {float(numbers[2]):.0f} positions, and begin() counted {count:.0f}; "
                "call loss() once for each microbatch that begin() was given, or cancel() the step."
            )
        self._scales = ScaleSums.unpack(vector[self._sum_layout.length :])
        loss, truth = float(numbers[0]) / count, float(numbers[1]) / count
        share = float(self._loss_settings["cross_entropy"])
        objective = (1 - share) * loss + (share * truth if share else 0.0)
        safety_M, violation_M = self._move_multipliers(objective, sums, known)
        self._count = None
        self.steps += 1
        return StepRecord(
            self.steps,
            loss,
            truth if self._has_labels else None,
            objective,
            safety_M,
            violation_M,
            self.multipliers,
            numbers[3:] / count,
            int(numbers[2]),
        )

    def cancel(self) -> None:
        """Forget a step that was begun, for a caller that could not use it: multipliers stay where they are."""
        self._count = None

    @property
    def multipliers(self) -> Tensor:
        """Multipliers in the order of the constraints, (M,), float64."""
        return self._layout.join_kinds(self.engine.multipliers, self.engine.equality_multipliers).clone()

    @property
    def constraint_weights(self) -> Tensor:
        """What each constraint's gradient weighs in the next step, (M,): the multiplier and its penalty term."""
        return self._weight_M.clone()

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of everything that moves but the weighting rule, tensors by name."""
        state = {f"engine.{name}": value for name, value in self.engine.state_dict().items()}
        state |= {f"running.{m}": value.state() for m, value in enumerate(self._values)}
        return state | {"weight": self._weight_M.clone(), "steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` gave.

        Args:
            state: Of a run with the same constraints.

        Raises:
            InvalidInput: It belongs to others.
        """
        wanted = self.state_dict().keys()
        if state.keys() != wanted:
            missing = sorted(wanted - state.keys()) or sorted(state.keys() - wanted)
            raise InvalidInput(f"The state is that of other constraints: '{missing[0]}' is in one of the two only.")
        self.engine.load_state_dict({name[7:]: x for name, x in state.items() if name.startswith("engine.")})
        for m, value in enumerate(self._values):
            value.load_state(state[f"running.{m}"])
        self._weight_M = state["weight"].to(self._weight_M)
        self.steps = int(state["steps"])

    def _reads_scales(self) -> bool:
        """Say whether the multiplier scales may be asked for at the end of this step."""
        step = self.steps + 1
        return step & (step - 1) == 0 or step <= _FIRST_READINGS

    def _add_up(self, result: LanguageLoss) -> None:
        truth = result.cross_entropy
        self._has_labels = truth is not None
        if result.positions:
            pair = [
                result.distillation.double(),
                result.distillation.new_zeros(()) if truth is None else truth.double(),
            ]
            numbers = torch.cat([torch.stack([*pair, pair[0].new_ones(())]) * result.positions, result.weights.sum(0)])
            self._numbers += numbers.to(self._numbers)
        for m, sums in enumerate(result.sums):
            self._sums[m] = sums if m not in self._sums else self._sums[m] + sums

    def _add_scales(self, hidden: Tensor, head: Head, batch: Batch, result: LanguageLoss) -> None:
        assert result.hidden_gradient is not None
        parts = []
        for rule, value, count_G in zip(self.constraints, self._values, self._counts, strict=True):
            averages = [average for _, average in rule.bind(batch).parts]
            sizes = [average.size for average in averages]
            coefficient_G = value.factors(surrogate=True) / count_G.clamp_min(1.0)
            parts.append(list(zip(averages, torch.split(coefficient_G, sizes), strict=True)))
        cut = head if self._loss_settings["vocabulary"] is None else head.cut(self._loss_settings["vocabulary"])
        assert self._count is not None
        self._scales += read_scale_sums(
            hidden, cut, result.hidden_gradient, result.kept, batch, parts, 1 / self._count, self._weight_M
        )

    def _move_multipliers(self, objective: float, sums: Mapping[int, GroupSums], known: bool) -> tuple[Tensor, Tensor]:
        """Return the measured value and the violation of each constraint, (M,)."""
        M = len(self.constraints)
        if not M:
            none = torch.zeros(0, dtype=torch.float64)
            return none, none
        read = [value.read(sums[m]) for m, value in enumerate(self._values)]
        surrogate_M, measured_M, present_M = (
            torch.stack([getattr(one, name) for one in read]) for name in ("surrogate", "measured", "present")
        )
        leaf_M = surrogate_M.requires_grad_()
        g_M, h_E = self._layout.split_by_kind(leaf_M)
        measured_g, measured_h = self._layout.split_by_kind(measured_M)
        present = torch.cat(self._layout.split_by_kind(present_M))
        order = torch.cat([self._layout.inequalities, self._layout.equalities])

        def read_scales() -> MultiplierScales:
            off_C = torch.cat([g_M.detach().clamp_min(0.0), h_E.detach().abs()])
            if not known:
                unknown_C = torch.full_like(off_C, torch.nan)
                return MultiplierScales(unknown_C, unknown_C)
            scales = ScaleSums(self._scales.squares, self._scales.rows[:, order])
            return scales.read(off_C)

        value = torch.tensor(objective, dtype=torch.float64, device=self.device)
        with torch.enable_grad():
            total = self.engine.step(
                value,
                g_M,
                h_E if len(h_E) else None,
                measured=measured_g,
                measured_equality=measured_h if len(h_E) else None,
                present=present,
                scales=read_scales,
            )
            (weight_M,) = torch.autograd.grad(total, leaf_M)
        # of a constraint that this step says nothing of, the next one may: its weight stays
        self._weight_M = torch.where(present_M, weight_M.double(), self._weight_M)
        required_M = torch.tensor([rule.required for rule in self.constraints], dtype=torch.float64)
        violation_M = torch.where(present_M, measured_M, torch.nan).cpu()
        return required_M - violation_M, violation_M


def _describe(batch: Batch) -> dict[str, Any]:
    """Return what the loss is told of a batch."""
    return {
        "labels": batch.labels,
        "mask": batch.mask,
        "task": batch.task,
        "context": batch.context,
        "index": batch.index if batch.numbered else None,
    }
