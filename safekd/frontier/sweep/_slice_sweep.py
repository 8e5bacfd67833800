"""The epsilon-constraint sweep of one slice: anchor, targets, gaps, one reverse pass, and who takes whose student.

Thresholds are tightened step by step, so concave parts of the frontier are reached too, which a sweep over weights
cannot do (Miettinen 1999, theorem 3.2.2: every epsilon-constraint optimum is weakly Pareto optimal).  A slice sweep
only says which runs it wants next and takes their points; who runs them, and where, is none of its business.  What it
decides as every sweep does (targets, gaps, budget, whether a pass back may gain) comes from ``solvers.pareto``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

from solvers.pareto import RunBudget, Standing, explain_fall, is_better, lies_inside, list_largest_gaps
from solvers.short_repr import ShortRepr

from ..store import RunSpec, TrainedPoint
from ._sweep_plan import SweepPlan, ToleranceSettings
from ._training_run import LOOSEST

RunRequests = Generator[list[RunSpec], list[TrainedPoint], None]


@dataclass(frozen=True)
class SliceSettings:
    """What closes a gap, and what makes a pass back worth a run.  test_slice_sweep.py would notice.

    Attributes:
        end_margin: Of a gap: a run that lands so near one of its ends closes nothing; tolerances are far smaller.
        same_safety: Neighbors whose safeties differ by no more leave no room for a target.
        multiplier_slack: The part of a multiplier by which a neighbor's branch must pass below a row for a run: less
            is curvature.
        loss_slack: Likewise, of the range of losses: less is what runs leave of a difference.
    """

    end_margin: float = 0.05
    same_safety: float = 1e-9
    multiplier_slack: float = 0.05
    loss_slack: float = 1e-4


SETTINGS = SliceSettings()


@dataclass(frozen=True, repr=False)
class TargetRow(ShortRepr):
    """One row of a sweep.

    Attributes:
        target: Its threshold.
        point: Whose student it has, None where there is none.
        status: As the table has it.
        warm_from: Threshold whose student was the start, NaN for a cold one.
        note: What the status leaves unsaid.
        steps: Of all runs for this row.
        wall_s: Seconds of all runs for this row.
        weight: Of a mu sweep, nats a unit of safety; else NaN.
    """

    target: float
    point: TrainedPoint | None
    status: str
    warm_from: float = math.nan
    note: str = ""
    steps: int = 0
    wall_s: float = 0.0
    weight: float = math.nan

    @property
    def solved(self) -> bool:
        """Whether a run was spent on it that left a student."""
        return self.point is not None and self.point.finite and self.steps > 0

    @property
    def feasible(self) -> bool:
        """Whether its student meets its threshold."""
        return self.point is not None and self.point.meets(self.target)

    @property
    def ending(self) -> str:
        """How its run ended, in words."""
        if self.point is None or not self.point.finite:
            return f"ended {self.status}" + (f": {self.note}" if self.note else "")
        return f"ended {self.status} at a loss of {self.point.loss:.6g} and a safety of {self.point.safety:.6g}"


class SliceSweep:
    """One slice of a sweep: one seed, one set of held thresholds.

    Args:
        plan: The sweep.
        seed: Handed to make_trainer, None where that decides.
        held: Thresholds of further constraints, by name.
        name: Begins the names of its runs.
        on_row: Called with every row as it lands; what a later pass changes stands in the table alone.
    """

    def __init__(
        self,
        plan: SweepPlan,
        seed: int | None,
        held: Mapping[str, float],
        name: str,
        on_row: Callable[[TargetRow], None],
    ) -> None:
        self.plan, self.seed, self.held, self.name, self.on_row = plan, seed, held, name, on_row
        self.rows: list[TargetRow] = []
        self.budget = RunBudget(1, 1)  # the anchor's run; how many more depends on where it ends
        self.anchor: TrainedPoint | None = None
        self.tolerance = ToleranceSettings().first if plan.tolerance is None else plan.tolerance
        self._reported: set[str] = set()

    def list_run_specs(self) -> RunRequests:
        """Ask for runs, batch by batch, until the slice is traced."""
        (anchor,) = yield [RunSpec(f"{self.name}anchor", self.seed, LOOSEST, self.held, self.tolerance)]
        self.anchor = anchor
        if self.plan.tolerance is None and anchor.status != "converged":
            self.tolerance = ToleranceSettings().round_up(anchor.stationarity)
        targets = self.plan.list_targets(anchor.safety if anchor.finite else LOOSEST)
        self.budget.limit = self.plan.count_runs(len(targets))
        loosest = anchor.safety if targets[0] > anchor.safety else targets[0]
        usable = anchor.finite and anchor.status in ("converged", "budget_spent", "stationary_unverified")
        status = "anchor" if usable else anchor.status
        self._add(TargetRow(loosest, anchor, status, note=anchor.note, steps=anchor.steps, wall_s=anchor.wall_s))
        rest = [target for target in targets if target > loosest]
        if anchor.finite:
            yield from self._trace(rest)
        else:
            for target in rest:
                self._add(TargetRow(target, None, "failed", note="the unconstrained run left no student to begin from"))
        self.rows.sort(key=lambda row: row.target)

    def report_early(self, spec: RunSpec, point: TrainedPoint) -> None:
        """Report one point of a batch, in whatever order they come."""
        self._reported.add(spec.name)
        self.on_row(self._build_row(spec.target, point, None))

    def _trace(self, targets: list[float]) -> RunRequests:
        yield from self._tighten(targets) if self.plan.warm else self._train_all(targets)
        yield from self._fill_gaps()
        if self.plan.warm:
            yield from self._pass_back()
        self._share()

    def _tighten(self, targets: list[float]) -> RunRequests:
        """Train for one target after the other, each run begun where the last one ended."""
        before: TrainedPoint | None = None
        last = self.rows[0].point
        assert last is not None
        for target in targets:
            if self._answer_without_run(target):
                continue
            (point,) = yield [self._specify("target", target, last, before)]
            self._count(point)
            self._add(self._build_row(target, point, last))
            if _leads_on(point):
                straight = point.safety <= target + SETTINGS.end_margin * (target - last.safety)
                before, last = (last if straight and last is not self.anchor else None), point

    def _train_all(self, targets: list[float]) -> RunRequests:
        """Train for all targets at once, each run begun afresh."""
        unanswered = [target for target in targets if not self._answer_without_run(target)]
        affordable = unanswered[: self.budget.left]
        if affordable:
            points = yield [self._specify("target", target) for target in affordable]
            self._count(*points)
            for target, point in zip(affordable, points, strict=True):
                self._add(self._build_row(target, point, None))
        for target in unanswered[len(affordable) :]:
            self._add(self._build_unsolved(target))

    def _answer_without_run(self, target: float) -> bool:
        """Add the row of a target that needs no run, and say whether it is one."""
        looser = [row for row in self.rows if row.point is not None and row.target <= target]
        for row in looser:
            if row.status in ("anchor", "converged") and row.point is not None and row.point.violation(target) == 0:
                self._add(TargetRow(target, row.point, "redundant", note=f"target {row.target:.6g} meets it already"))
                return True
        for row in looser:
            if row.point is not None and row.point.impossible:
                note = f"target {row.target:.6g}, which is looser, was proved to be out of reach"
                self._add(TargetRow(target, row.point, "infeasible", note=note))
                return True
        if self.budget.left == 0:
            self._add(self._build_unsolved(target))
            return True
        return False

    def _build_unsolved(self, target: float) -> TargetRow:
        note = f"the budget of {self.budget.limit} runs was spent before"
        return TargetRow(target, None, "budget_spent", note=note)

    def _fill_gaps(self) -> RunRequests:
        """Spend what is left of the budget between the neighbors that are farthest apart."""
        closed: list[tuple[float, float]] = []
        while self.budget.left:
            gaps = self._find_gaps(closed)[: 1 if self.plan.warm else self.budget.left]
            if not gaps:
                return
            middles = [(low.safety + high.safety) / 2 for low, high in gaps]
            starts = [low if self.plan.warm else None for low, _ in gaps]
            points = yield [self._specify("gap", *pair) for pair in zip(middles, starts, strict=True)]
            self._count(*points)
            for (low, high), target, point, start in zip(gaps, middles, points, starts, strict=True):
                row = self._build_row(target, point, start)
                left, right = low.safety, high.safety
                if not (row.feasible and lies_inside(point.safety, left, right, SETTINGS.end_margin)):
                    closed.append((left, right))
                    note = f"no student was found between safety {left:.6g} and {right:.6g}: this run {row.ending}"
                    row = replace(row, status="gap", note=note)
                self._add(row)

    def _find_gaps(self, closed: list[tuple[float, float]]) -> list[tuple[TrainedPoint, TrainedPoint]]:
        """Return the ends of the gaps that a run may close, the looser one first, the widest gap first."""
        front = self._collect_front()
        pairs = list_largest_gaps(
            [(point.loss, -point.safety) for point in front], len(front), self.plan.find_smallest_gap(len(front))
        )
        gaps = []
        for i, j in pairs:
            low, high = sorted((front[i], front[j]), key=lambda point: point.safety)
            middle = (low.safety + high.safety) / 2
            wide = high.safety - low.safety > SETTINGS.same_safety
            if wide and not any(left < middle < right for left, right in closed):
                gaps.append((low, high))
        return gaps

    def _pass_back(self) -> RunRequests:
        """Go once from tight to loose, where a student from the right may do better; keep the better."""
        self.rows.sort(key=lambda row: row.target)
        for i in range(len(self.rows) - 2, -1, -1):
            row = self.rows[i]
            right = next((later for later in self.rows[i + 1 :] if later.solved and later.feasible), None)
            if right is None or right.point is None or self.budget.left == 0 or not self._may_gain(row, right):
                continue
            (point,) = yield [self._specify("back", row.target, right.point)]
            self._count(point)
            updated = replace(row, steps=row.steps + point.steps, wall_s=row.wall_s + point.wall_s)
            if _answers_better(point, row):
                note = f"begun from the right; from the left it {row.ending}"
                updated = replace(updated, point=point, status=point.status, warm_from=right.target, note=note)
            self.rows[i] = updated

    def _may_gain(self, row: TargetRow, right: TargetRow) -> bool:
        """Say whether the branch on which ``right`` lies may pass below ``row``.

        Along a branch the loss falls by the multiplier times the step; where both multipliers say that the right
        student's branch costs less at this target than the row does, it is worth following.
        """
        if row.status in ("redundant", "anchor"):
            return False
        if row.point is None or right.point is None or not row.feasible:
            return True
        losses = [other.point.loss for other in self.rows if other.point is not None and other.feasible]
        least, _ = explain_fall(
            right.target - row.target,
            (row.point.multipliers[0], right.point.multipliers[0]),
            relative=SETTINGS.multiplier_slack,
            absolute=SETTINGS.loss_slack * (max(losses) - min(losses)),
        )
        return right.point.loss - row.point.loss < least

    def _share(self) -> None:
        """Let a row take the student of a tighter one that costs less: it meets the looser threshold too."""
        self.rows.sort(key=lambda row: row.target)
        best: TargetRow | None = None
        for i in range(len(self.rows) - 1, -1, -1):
            row = self.rows[i]
            if row.status == "failed":  # an error is not to be covered up
                continue
            if best is not None and best.point is not None and _answers_better(best.point, row):
                note = f"the student of target {best.target:.6g} meets this one too, for less; its own run {row.ending}"
                status = row.status if row.status in ("anchor", "redundant") else "taken"
                self.rows[i] = replace(row, point=best.point, status=status, warm_from=best.target, note=note)
            elif row.feasible:
                best = row

    def _collect_front(self) -> list[TrainedPoint]:
        """Return the points of the frontier, each once, in the order of rows."""
        front: dict[str, TrainedPoint] = {}
        for row in self.rows:
            if row.feasible and row.point is not None:
                front.setdefault(row.point.spec.name, row.point)
        return list(front.values())

    def _specify(
        self, kind: str, target: float, start: TrainedPoint | None = None, before: TrainedPoint | None = None
    ) -> RunSpec:
        return RunSpec(
            f"{self.name}{kind}-{target!r}",
            self.seed,
            target,
            self.held,
            self.tolerance,
            start=None if start is None else start.spec.name,
            before=None if before is None else before.spec.name,
            trace_every=None if start is None else self._choose_interval(),
        )

    def _choose_interval(self) -> int | None:
        """Return how often a warm run is evaluated: oftener than a cold one, since it is soon over.

        A run of L steps, evaluated every k of them at the cost of c steps, wastes about 3 k / 2 + c L / k; for the
        trainer's own interval c is a fiftieth of it, and warm runs take some 80 steps.
        """
        usual = None if self.anchor is None else self.anchor.interval
        return None if usual is None else max(1, min(usual, math.ceil(math.sqrt(usual))))

    def _build_row(self, target: float, point: TrainedPoint, start: TrainedPoint | None) -> TargetRow:
        warm_from = math.nan
        if start is not None:
            warm_from = start.safety if start is self.anchor else start.spec.target
        return TargetRow(target, point, point.status, warm_from, point.note, point.steps, point.wall_s)

    def _count(self, *points: TrainedPoint) -> None:
        """Count runs, and ask for less exactness from here on where a run fell short of what was tried."""
        for _ in points:
            self.budget.spend()
        if self.plan.tolerance is None and any(point.status == "budget_spent" for point in points):
            self.tolerance = ToleranceSettings().loosen(self.tolerance)

    def _add(self, row: TargetRow) -> None:
        self.rows.append(row)
        if row.point is None or row.steps == 0 or row.point.spec.name not in self._reported:
            self.on_row(row)


def _leads_on(point: TrainedPoint) -> bool:
    """Say whether the next run may begin here."""
    ends = ("diverged", "infeasible", "no_multiplier", "overpenalized", "loss_rose", "failed")
    return point.finite and point.status not in ends


def _answers_better(point: TrainedPoint, row: TargetRow) -> bool:
    """Say whether a student is better for a row than its own: feasible first, then of lower loss."""
    if not point.finite:
        return False
    if row.point is None or not row.point.finite:
        return True
    new, old = (Standing(p.loss, p.violation(row.target), p.meets(row.target)) for p in (point, row.point))
    return is_better(new, old)
