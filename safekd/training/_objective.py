"""The distillation problem of one student: targets, losses, and exact readings over whole splits.

Axes: N examples, B batch, ... positions, K teachers, V classes, M constraints, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from solvers.kkt import gradients

from .._torch_state import evaluating, extract_logits
from ..data import Batch, Split, SplitCache
from ..errors import InvalidInput, NotFinite
from ..pooling import arithmetic_pool
from ..safety import Constraint, GroupSums
from ..teachers import Perturbation, TeacherEnsemble
from ..weights import Rule, Signals, TeacherEvidence, collect_modules, collect_needs, looks_at_student
from ._attainable import is_plain
from .trace import ConstraintReading

Loss = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 4096


@dataclass(frozen=True)
class FullPass:
    """Exact values over whole splits: loss, readings, and, if asked for, gradients of loss and constraints.

    loss_se: standard error of the loss, from the spread over positions.
    """

    loss: float
    loss_se: float
    readings: list[ConstraintReading]
    gradient_n: Tensor
    jacobian_Mn: Tensor


@dataclass(frozen=True)
class Pool:
    """The teachers of some examples, weighed and pooled: readings, weights (B, ..., K), log target (B, ..., V)."""

    signals: Signals
    weights_K: Tensor
    log_q_V: Tensor


@dataclass
class Objective:
    """``mean over a split of divergence(pool of teachers, student)``, and readings of constraints.

    Rules are functions of what the teachers and the data say, so targets are worked out once a split and kept, unless
    the rule looks at the student or holds a module, which may learn.
    features: what rules that learn from a representation see of a batch, (B, ..., D); None: its inputs, flattened.
    perturbation: how teachers are asked again where the rule needs their variance.
    """

    student: nn.Module
    ensemble: TeacherEnsemble
    rule: Rule
    divergence: Loss
    evidence: TeacherEvidence | None
    critical_classes: Collection[int]
    critical_contexts: Collection[int]
    features: Callable[[Batch], Tensor] | None = None
    perturbation: Perturbation = field(default_factory=Perturbation)

    def __post_init__(self) -> None:
        self._targets = SplitCache()
        self._variances: dict[int, tuple[Split, Tensor]] = {}
        self.complaint: str | None = None  # of a teacher, in the last pass: its targets are no numbers then
        self._counts: dict[tuple[int, int], tuple[Constraint, Split, Tensor]] = {}
        self._needs, modules = collect_needs(self.rule), collect_modules(self.rule).values()
        self.fixed = not (looks_at_student(self.rule) or modules)
        self.readers = nn.ModuleList([self.student, *modules])  # all that has an eval mode

    def signals(self, split: Split, index: Tensor, logits_V: Tensor | None = None) -> Signals:
        """Return what the weighting rule may look at for the examples ``index`` of ``split``.

        logits_V: the student's for them; where left out and needed, it is asked in eval mode.
        """
        batch = split.batch(index)
        if logits_V is None and not self.fixed:
            with evaluating(self.readers), torch.no_grad():
                logits_V = self.logits(batch)
        log_p_KV = self.ensemble.cached_log_probabilities(split, index)
        if logits_V is not None:
            _require_same_classes(log_p_KV, logits_V)
        return Signals(
            log_p=log_p_KV,
            labels=batch.labels,
            task=batch.task,
            context=batch.context,
            evidence=None if self.evidence is None else self.evidence.to(batch.labels.device),
            critical_classes=self.critical_classes,
            critical_contexts=self.critical_contexts,
            student_log_p=None if logits_V is None else _log_p(logits_V.detach()),
            features=self._features(batch),
            variance=self._variance(split, index),
        )

    def pool(self, split: Split, index: Tensor, logits_V: Tensor | None = None) -> Pool:
        """Weigh and pool the teachers for the examples ``index`` as the rule is now; weights keep their gradient."""
        signals = self.signals(split, index, logits_V)
        w_K = self.rule(signals)
        return Pool(signals, w_K, arithmetic_pool(signals.log_p, w_K))

    def target(self, split: Split, index: Tensor, logits_V: Tensor) -> Tensor:
        """Return the log of the pooled target for the examples ``index``, (B, ..., V), without gradient."""
        with torch.no_grad():
            if not self.fixed and not bool(torch.isfinite(logits_V).all()):
                return torch.full_like(logits_V, torch.nan)  # no rule can say anything of such a student
            try:
                if not self.fixed:
                    return self.pool(split, index, logits_V).log_q_V
                return self._targets.rows(split, index, lambda some: self.pool(split, some).log_q_V, _CHUNK)
            except NotFinite as error:
                self.complaint = self.complaint or error.source
                return torch.full_like(logits_V, torch.nan)

    def keeps(self, split: Split) -> bool:
        """Tell whether the targets of ``split`` are in memory, and will not be asked for again."""
        return self._targets.holds(split)

    def logits(self, batch: Batch) -> Tensor:
        """Return the student's logits, (B, ..., V)."""
        logits_V = extract_logits(self.student(batch.inputs), "The student")
        if logits_V.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"The student gives {tuple(logits_V.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of logits a label."
            )
        return logits_V

    def loss(self, log_q_V: Tensor, logits_V: Tensor) -> Tensor:
        """Return one distillation loss a position, (B, ...)."""
        _require_same_classes(log_q_V, logits_V)
        loss = self.divergence(log_q_V.to(logits_V), logits_V)
        if loss.shape != logits_V.shape[:-1]:
            raise InvalidInput(
                f"The divergence gives shape {tuple(loss.shape)}; wanted one loss a position, "
                f"{tuple(logits_V.shape[:-1])}: sum over classes only, without averaging over the batch."
            )
        return loss

    def full_pass(
        self,
        train: Split,
        splits: Mapping[str, Split],
        constraints: Sequence[Constraint],
        *,
        with_gradients: bool,
    ) -> FullPass:
        """Read loss on ``train`` and each constraint on the split it names, exactly, student and rule in eval mode."""
        variables: list[Tensor] = [p for p in self.student.parameters() if p.requires_grad]
        names = sorted({"train"} | {rule.split for rule in constraints})
        placed = {name: train if name == "train" else splits[name] for name in names}
        self.complaint = None
        with evaluating(self.readers):
            slopes = self.slopes(placed, constraints) if with_gradients else None
            sums = _Sums(constraints, slopes, variables)
            with torch.set_grad_enabled(with_gradients):
                for name, split in placed.items():
                    for index in split.chunks(_CHUNK):
                        batch = split.batch(index)
                        logits_V = self.logits(batch)
                        loss = None
                        if name == "train":
                            log_q_V = self.target(split, index, logits_V)
                            losses = self.loss(log_q_V, logits_V)
                            sums.losses.append(losses.detach().double().reshape(-1).cpu())
                            loss = losses.sum() / split.labels.numel()
                        sums.add(name, batch, logits_V, loss)
        return sums.finished()

    def slopes(self, placed: Mapping[str, Split], constraints: Sequence[Constraint]) -> list[Tensor]:
        """Return how much each group's sum of surrogates counts in each constraint's value, (G,).

        Where slopes depend on the means themselves, those are read in a pass of their own.
        """
        found = []
        for rule in constraints:
            split = placed[rule.split]
            count_G = self.counts(rule, split)
            mean_G = torch.full_like(count_G, torch.nan)
            if rule.gradient_depends_on_means:
                mean_G = self._smooth_means(rule, split, count_G)
            found.append(torch.where(count_G > 0, rule.gradient(mean_G, count_G, surrogate=True) / count_G, 0.0))
        return found

    def counts(self, rule: Constraint, split: Split) -> Tensor:
        """Return how many examples of ``split`` each group of ``rule`` has, (G,); counted once."""
        key = id(rule), id(split)
        if key not in self._counts:
            count_G = sum(rule.counts(split.batch(index)) for index in split.chunks(_CHUNK))
            self._counts[key] = (rule, split, torch.as_tensor(count_G))  # holding both keeps their ids taken
        return self._counts[key][2]

    @torch.no_grad()
    def _smooth_means(self, rule: Constraint, split: Split, count_G: Tensor) -> Tensor:
        total_G = torch.zeros_like(count_G)
        for index in split.chunks(_CHUNK):
            batch = split.batch(index)
            total_G += rule.sums(torch.log_softmax(self.logits(batch), dim=-1), batch).surrogate_G
        return total_G / count_G

    def _variance(self, split: Split, index: Tensor) -> Tensor | None:
        """How unsteady teachers are, (B, ..., K): asked once a split, since neither they nor the noise change."""
        if "variance" not in self._needs:
            return None
        if id(split) not in self._variances:
            asked = self.perturbation.variance(self.ensemble, split)
            self._variances[id(split)] = (split, asked)  # holding the split keeps its id taken
        return self._variances[id(split)][1][index]

    def _features(self, batch: Batch) -> Tensor | None:
        if self.features is None and "features" not in self._needs:
            return None
        found = _flat_inputs(batch) if self.features is None else self.features(batch).detach()
        if found.shape[:-1] != batch.labels.shape:
            raise InvalidInput(
                f"`features` has shape {tuple(found.shape)} for labels of shape {tuple(batch.labels.shape)}; "
                "wanted one row of features a label."
            )
        return found


class _Sums:
    """Adds up losses, constraint values and their gradients over the chunks of a full pass.

    slopes: of each constraint's value in its groups' sums of surrogates; None where no gradient is wanted.
    """

    def __init__(
        self, constraints: Sequence[Constraint], slopes: Sequence[Tensor] | None, variables: list[Tensor]
    ) -> None:
        self.constraints, self.slopes, self.variables = constraints, slopes, variables
        size, like = sum(p.numel() for p in variables), variables[0]
        self.loss = 0.0
        self.losses: list[Tensor] = []
        self.gradient_n = torch.zeros(size, dtype=torch.float64, device=like.device)
        self.jacobian_Mn = torch.zeros(len(constraints), size, dtype=torch.float64, device=like.device)
        self.sums: list[GroupSums | None] = [None] * len(constraints)

    def add(self, name: str, batch: Batch, logits_V: Tensor, loss: Tensor | None) -> None:
        """Add one chunk of the split ``name``; ``loss`` is its share of the mean loss, on the training split."""
        here = [m for m, rule in enumerate(self.constraints) if rule.split == name]
        log_p_V = torch.log_softmax(logits_V, dim=-1)
        scalars = [] if loss is None else [loss]
        for m in here:
            found = self.constraints[m].sums(log_p_V, batch)
            if self.slopes is not None:
                scalars.append(-(self.slopes[m] * found.surrogate_G).sum())
            before, found = self.sums[m], found.detach()
            self.sums[m] = found if before is None else before + found
        if self.slopes is not None:
            rows = gradients(scalars, self.variables)
            if loss is not None:
                self.gradient_n += rows[0]
            self.jacobian_Mn[here] += rows[0 if loss is None else 1 :]
        if loss is not None:
            self.loss += float(loss.detach())

    def finished(self) -> FullPass:
        """Divide by counts and hand over."""
        readings = [
            _reading(rule, found) for rule, found in zip(self.constraints, self.sums, strict=True) if found is not None
        ]
        return FullPass(self.loss, _standard_error(torch.cat(self.losses)), readings, self.gradient_n, self.jacobian_Mn)


def on_one_split(constraints: Sequence[Constraint]) -> list[Constraint]:
    """Return the constraints as if all were posed on the split that is read as ``train``."""
    return [rule.with_split("train") for rule in constraints]


def _reading(rule: Constraint, found: GroupSums) -> ConstraintReading:
    mean_G, surrogate_G = found.means(), found.surrogate_G / found.count_G
    slope_G = rule.gradient(mean_G, found.count_G)
    surrogate_slope_G = (
        rule.gradient(surrogate_G, found.count_G, surrogate=True) if rule.gradient_depends_on_means else slope_G
    )
    return ConstraintReading(
        name=rule.name,
        split=rule.split,
        measured=rule.offset + float(slope_G @ mean_G),
        surrogate=rule.offset + float(surrogate_slope_G @ surrogate_G),
        required=rule.required,
        count=int(found.count_G.sum()),
        standard_error=float((slope_G.square() * found.variances()).sum().sqrt()),
        equality=rule.is_equality,
        resolution=0.0
        if is_plain(rule)
        else rule.resolution(slope_G, found.count_G),  # a plain one is posed where it lands
    )


def _standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values, no number below two."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")


def _require_same_classes(teachers_V: Tensor, student_V: Tensor) -> None:
    if teachers_V.shape[-1] != student_V.shape[-1]:
        raise InvalidInput(
            f"The student gives {student_V.shape[-1]} classes, the teachers give {teachers_V.shape[-1]}; "
            "give the student as many outputs as there are classes."
        )


def _log_p(logits_V: Tensor) -> Tensor:
    """Return log-probabilities, half types widened."""
    return torch.log_softmax(logits_V.float() if logits_V.dtype.itemsize < 4 else logits_V, dim=-1)


def _flat_inputs(batch: Batch) -> Tensor:
    """Return each position's own inputs as one row, (B, ..., D)."""
    lead = batch.labels.shape
    if not batch.inputs.is_floating_point() or batch.inputs.shape[: len(lead)] != lead:
        raise InvalidInput(
            f"The weighting rule learns from features; inputs are {batch.inputs.dtype} of shape "
            f"{tuple(batch.inputs.shape)}, which gives none for labels of shape {tuple(lead)}. "
            "Pass features=, a function from a batch to (B, ..., D)."
        )
    return batch.inputs.reshape(*lead, -1)
