"""The fit loop: student steps under multipliers, judged by full passes.  Axes: N examples, M constraints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from solvers.primal_dual import PrimalDual

from ..._torch_state import share_in_eval_mode
from ...data import Batch
from ...errors import InvalidInput
from .._constraint_layout import ConstraintLayout
from .._fit_result import FitResult, Verdict
from .._full_pass import FullPass
from .._parameter_vectors import copy_state, parameter_norm
from .._training_problem import TrainingProblem
from .._warm_start import WarmStart
from ..checkpoints import BestIterates, FinalIterate
from ..diagnosis import (
    EndedRun,
    FeasibilityBound,
    RunProbes,
    add_validation_fall,
    find_exploded,
    is_converged,
    judge_run,
)
from ..resume import StatePart, list_training_parts, load_parts, read_random_states, set_random_states
from ..trace import Callbacks, RunInfo, Trace, TracePoint, pack_points, unpack_points
from ._averaged_iterate import AveragedIterate
from ._early_endings import judge_impatient, judge_not_finite, judge_stopped
from ._epoch_batches import EpochBatches
from ._evaluation_sample import note_sample, sample_evaluations
from ._fit_inputs import FitData, FitOptions
from ._point_reader import PointReader
from ._state_facts import choose_default_interval, state_facts
from .step import PrimalDualStep


@dataclass(frozen=True)
class FitLoopSettings:
    """Numbers of the loop.

    Attributes:
        small_violation: Share of a threshold below which violations are small, for the engine's scales.
        loss_at_rest: Tolerances by which the loss may have fallen lately, as a share of itself, where it is at rest;
            below 5 runs of ``benchmarks.primal_dual`` that were done went on.
        lately: Share of the steps before which a loss is not late: the last tenth.
        least_loss: Nats: a loss that falls to 0 would never be at rest by shares of itself.
        largest_distance: How far training may carry a student, in norms of its parameters, or 1 where they are smaller;
            without an end a constraint whose surrogate is flat at a fresh student is given a multiplier of 1e16
            (``python -m benchmarks.counted``).
        first_bound: Steps after which a feasibility bound is asked for first, least and most: fewer than ten show
            little of a violation.
        first_bound_share: Share of the run's steps that it is between them.
    """

    small_violation: float = 0.01
    loss_at_rest: float = 5.0
    lately: float = 0.9
    least_loss: float = 0.01
    largest_distance: float = 10.0
    first_bound: tuple[int, int] = (10, 50)
    first_bound_share: float = 0.05


SETTINGS = FitLoopSettings()
_ENDING = ("student", "rule", "best", "trace", "counts", "average")  # parts that a result is made from
_COUNTS = ("step", "epoch", "taken", "first_gap", "at_rest", "exploded", "next_bound", "start_norm")


class FitLoop:
    """One fit: what changes while it lasts.

    Args:
        problem: What is trained.
        data: Splits on the problem's device.
        options: How long, and what is read on the way.
        warm_start: Where to begin; None for where the student is.
    """

    def __init__(
        self, problem: TrainingProblem, data: FitData, options: FitOptions, warm_start: WarmStart | None
    ) -> None:
        data.require_covered(problem.constraints, problem.objective)
        problem.begin()
        self.problem, self.data, self.options = problem, data, options
        full = problem.is_full_batch(data.train)
        self.batch_size = problem.batch_rows(data.train)
        self.steps = options.epochs * problem.count_batches(data.train)
        self.evaluated = read = sample_evaluations(problem, data, options, self.steps, self.batch_size)
        default = choose_default_interval(problem, read, options, self.steps, self.batch_size)
        self.trace_every = default if options.trace_every is None else options.trace_every
        kept = None if options.checkpoints is None else options.checkpoints.take_loop_state()
        self.start_norm = parameter_norm(problem.student) if kept is None else kept["counts"]["start_norm"]
        layout = ConstraintLayout(problem.constraints, problem.device)
        self.engine = PrimalDual(
            len(layout.inequalities),
            len(layout.equalities),
            method=problem.choose_dual(data.train),
            device=problem.device,
            least_range=[SETTINGS.small_violation * abs(c.required) for c in layout.order_by_kind(problem.constraints)],
            horizon=self.steps,
            exact=full,
            largest_distance=SETTINGS.largest_distance * max(self.start_norm, 1.0),
        )
        if warm_start is not None and kept is None:
            warm_start.begin(problem.student, self.engine, layout, problem.learning)
            problem.trained.write_back()
        averaged = problem.ema is not None or not full
        self.average = AveragedIterate(problem.trained.moved, self.engine, problem.ema) if averaged else None
        self.stepper, sampled = PrimalDualStep(problem, self.engine, data), options.stationarity
        self.reader = PointReader(
            problem, read, self.engine, self.average, sampled, self.stepper.mover, read is not data
        )
        self.final = FinalIterate(
            problem.objective,
            read.train,
            read.splits,
            problem.constraints,
            options.tolerance,
            not sampled,
            self.batch_size,
            self.steps,
        )
        self.callbacks, self.trace = Callbacks(options.callbacks if problem.ranks.is_first else ()), Trace()
        self.best = BestIterates(problem.learning.state, options.snapshots, options.choose)
        self.probes = RunProbes(problem.objective, read.whole, problem.constraints, self.best, problem.evidence_budget)
        earliest, latest = SETTINGS.first_bound
        self.next_bound = max(earliest, min(latest, int(self.steps * SETTINGS.first_bound_share)))
        self.proof: FeasibilityBound | None = None
        self.epoch, self.taken = 1, 0  # where the run is, and how many batches of that epoch it has taken
        self.step, self.first_gap, self.at_rest, self.exploded = 0, 0.0, 0, 0  # the last two: points in a row
        self.batches = EpochBatches(problem, data.train, options.epochs)
        self._random: Mapping[str, Any] | None = None  # of the generators, where the run goes on
        if kept is not None and options.checkpoints is not None:
            load_parts(self.list_parts(options.checkpoints.changed), kept)
            if self.step >= self.steps:
                raise InvalidInput(
                    f"The checkpoint is at step {self.step}, and the run is to end at step {self.steps}; wanted more "
                    "`epochs` than were trained."
                )

    def run(self) -> Verdict:
        """Run to the end and judge."""
        for part, training in self.problem.modes:
            part.training = training
        self.problem.learning.train()
        self.callbacks.start(self._describe())
        if not self.trace.points:
            last = self.evaluate(0)
            if (stop := self._find_stop()) is not None:
                return judge_stopped(stop, self.trace.points[-1], self.step, self.steps)
        for epoch in range(self.epoch, self.options.epochs + 1):
            if epoch > self.epoch:
                self.epoch, self.taken = epoch, 0
            for batch, other in self._batches(epoch, self.taken):
                source = self.stepper.step(batch, other)
                if source is not None:
                    return self._judge_refused_step(epoch, source)
                self.step, self.taken = self.step + 1, self.taken + 1
                self.steps = self.batches.correct_steps(self.step, self.steps, epoch)
                if self.average is not None:
                    self.average.add()
                if self.step % self.trace_every == 0 or self.step == self.steps:
                    last = self.evaluate(epoch)
                    point = self.trace.points[-1]
                    if not point.finite:
                        return self._judge_unusable(point)
                    self.at_rest = self.at_rest + 1 if self._is_at_rest(point) else 0
                    exploded = find_exploded(self.trace.points, self.options.tolerance)
                    self.exploded = self.exploded + 1 if exploded else 0
                    if 2 in (self.at_rest, self.exploded) or self._is_as_feasible_as_any(point):
                        return self._judge_ending(last)
                    if self.options.patience is not None and self.best.unimproved >= self.options.patience:
                        return judge_impatient(point, self.steps, self.options.patience)
                    if (stop := self._find_stop()) is not None:
                        return judge_stopped(stop, point, self.step, self.steps)
                if self.options.checkpoints is not None and self.step < self.steps:
                    self.options.checkpoints.after_step(self.step, self.list_parts)
        return self._judge_ending(last)

    def evaluate(self, epoch: int) -> FullPass:
        """Read everything exactly, record it, keep the student if it is the best so far.

        In minibatches the averaged student is read; after the last step the best of what may be handed back.

        Args:
            epoch: Passes over the training data so far.
        """
        trained = self.problem.trained
        self.problem.ranks.require_alike("Multipliers and penalties", self.engine.state_dict().values())
        if self.step == self.steps:
            full, point = self.final.choose(
                self._candidates(), lambda: self.reader.read(self.step, epoch), self.first_gap
            )
            if self.final.failure is not None:
                self.probes.note_failure("whether a last correction onto the constraints helps", self.final.failure)
            trained.write_back()
            self._record(point)
            return full
        with nullcontext() if self.average is None else self.average.install_temporarily():
            trained.refresh()
            full, point = self.reader.read(self.step, epoch)
            self._record(point)
        if self.step == 0:
            self.first_gap = max((reading.violation for reading in full.readings), default=0.0)
        return full

    def result(self, verdict: Verdict) -> FitResult:
        """Put the answer together.

        Args:
            verdict: How the run ended.
        """
        problem, point = self.problem, self.trace.points[-1]
        student, learning = problem.student, problem.learning
        self._install_average()
        learning.eval()
        mixture, note = self.best.mixture(student)
        names = [rule.name for rule in problem.constraints]
        verdict = note_sample(verdict, self.data, self.evaluated)
        return FitResult(
            verdict=add_validation_fall(verdict, self.trace.points) if self.options.choose else verdict,
            student=share_in_eval_mode(student),  # the mode in which all its numbers were read
            best_feasible=self.best.best_feasible(student),
            most_feasible=self.best.most_feasible(student),
            best_validated=self.best.best_validated(student),
            multipliers=dict(zip(names, point.multipliers, strict=True)),
            residuals=point.residuals,
            point=point,
            trace=self.trace.table(),
            rule=problem.objective.rule,
            rule_state=learning.state(),
            checkpoint_rule_states=self.best.rule_states(),
            mixture=mixture,
            mixture_note=note,
            uses=self.data.list_uses(problem, looks=len(self.trace.points) if self.options.choose else 0),
        )

    def read_ending(self, verdict: Verdict) -> dict[str, Any]:
        """Return what ``load_ending`` takes; the tensors are those of the run itself.

        Args:
            verdict: How the run ended.
        """
        parts = self.list_parts()
        return {"verdict": vars(verdict), **{name: parts[name].read() for name in _ENDING if name in parts}}

    def load_ending(self, ending: Mapping[str, Any]) -> Verdict:
        """Put the run where it ended; return how.

        Args:
            ending: Of ``read_ending``, of the same run.
        """
        parts = self.list_parts()
        load_parts({name: parts[name] for name in _ENDING if name in parts}, ending)
        return Verdict(**ending["verdict"])

    def list_parts(self, changed: Sequence[str] = ()) -> dict[str, StatePart]:
        """Return all that moves while the run lasts.

        Args:
            changed: Keys of the run's record that may differ where it goes on.
        """
        problem, engine, best, points = self.problem, self.engine, self.best, self.trace.points
        parts = list_training_parts(problem.trained, problem.optimizer, problem.scheduler, problem.scaler, changed)
        parts |= {
            "rule": StatePart(problem.learning.state, problem.learning.load),
            "engine": StatePart(engine.state_dict, engine.load_state_dict),
            "values": StatePart(self.stepper.values.state, self.stepper.values.load_state),
            "mover": StatePart.of_attributes(self.stepper.mover, ["clipped", "skipped", "skipped_in_a_row"]),
            "best": StatePart(best.state, lambda state: best.load_state(state, problem.device)),
            "callbacks": StatePart(self.callbacks.state, self.callbacks.load_state),
            "trace": StatePart(lambda: pack_points(points), lambda state: points.extend(unpack_points(state))),
            "teachers": StatePart(problem.objective.ensemble.state, problem.objective.ensemble.load_state),
            "reader": StatePart.of_attributes(self.reader, ["elapsed"]),
            "counts": StatePart.of_attributes(self, _COUNTS),
            "proof": StatePart(lambda: self.proof and vars(self.proof), self._load_proof),
            "random": StatePart(lambda: self.problem.ranks.gather(read_random_states()), self._load_random),
        }
        if self.average is not None:
            parts["average"] = StatePart(self.average.state, self.average.load_state)
        return parts

    def _load_random(self, state: Any) -> None:
        """Go on with this rank's random numbers; a rank that was not there before goes on with its own."""
        states = state if isinstance(state, list) else [state]
        self._random = dict(enumerate(states)).get(self.problem.ranks.rank)

    def _load_proof(self, state: Mapping[str, Any] | None) -> None:
        self.proof = None if state is None else FeasibilityBound(**state)

    def _candidates(self) -> list[dict[str, Tensor]]:
        """Return the states of the students that may be handed back: the averaged one, and the last."""
        student, trained = self.problem.student, self.problem.trained
        trained.refresh()
        states = [copy_state(student)]
        if self.average is not None:
            with self.average.install_temporarily():
                trained.refresh()
                states.insert(0, copy_state(student))
        return states

    def _install_average(self) -> None:
        """Leave the student at the average, unless the run ended by choosing among both."""
        if self.average is not None and self.step < self.steps:
            self.average.install()
            self.problem.trained.refresh()

    def _find_stop(self) -> str | None:
        """Return who ended the run and why, None while nobody did; callbacks are called on rank 0 alone."""
        return self.problem.ranks.agree(self.callbacks.stopped())

    def _record(self, point: TracePoint) -> None:
        self.trace.record(point)
        self.stepper.mover.clipped = self.stepper.mover.skipped = 0
        self.best.add(self.problem.student, point)
        self.callbacks.trace(point)

    def _is_at_rest(self, point: TracePoint) -> bool:
        """Say whether all residuals are within tolerance, and the loss has no more to gain.

        Residuals of 1e-3 may be reached where the loss still falls by percents, slowly.
        """
        if not is_converged(point, self.options.tolerance):
            return False
        before = [past.loss for past in self.trace.points if past.step <= SETTINGS.lately * point.step]
        allowed = SETTINGS.loss_at_rest * self.options.tolerance * max(abs(point.loss), SETTINGS.least_loss)
        return not before or before[-1] - point.loss <= allowed

    def _is_as_feasible_as_any(self, point: TracePoint) -> bool:
        """Say whether the thresholds are out of reach and the student as near to them as any student comes.

        Near is meant as the proof weighs violations.
        Asked at the first evaluation after so many steps, then after twice as many, and so on: an answer costs a pass.
        """
        if point.residuals.primal <= self.options.tolerance:
            return False
        if self.step >= self.next_bound:
            self.next_bound, bound = 2 * self.step, self.problem.ranks.ask_first(self.probes.bound_feasibility)
            if bound is not None and bound.infeasible:
                self.proof = bound
        if self.proof is None:
            return False
        gaps = [reading.required - reading.measured for reading in point.readings]
        weighed = sum(weight * gap for weight, gap in zip(self.proof.weights_M.tolist(), gaps, strict=True))
        return bool(weighed <= self.proof.least + self.options.tolerance)

    def _judge_ending(self, last: FullPass) -> Verdict:
        self._install_average()  # evidence is looked up for the student that the last point is about
        at_cap = self.reader.order_by_constraint(self.engine.capped).tolist()
        capped = [rule.name for rule, at in zip(self.problem.constraints, at_cap, strict=True) if at]
        facts = state_facts(self.problem, self.data, self.options)
        moves = not self.problem.objective.fixed
        ended = EndedRun(self.trace.points, last.jacobian_Mn, self.options.tolerance, capped, facts, targets_move=moves)
        verdict = self.problem.ranks.ask_first(lambda: judge_run(ended, self.probes))
        self.best.share_most_feasible(self.problem.student, self.problem.ranks)
        return verdict

    def _judge_unusable(self, point: TracePoint) -> Verdict:
        source = self.problem.ranks.agree(self.problem.objective.non_finite_source) or point.unusable
        what = f"Not finite in the full pass after step {self.step}: {source}."
        return judge_not_finite(what, source, self.step, state_facts(self.problem, self.data, self.options))

    def _judge_refused_step(self, epoch: int, source: str) -> Verdict:
        if self.trace.points[-1].step < self.step:
            self.evaluate(epoch)  # so that the result's numbers are those of its student
        what = f"{source} at step {self.step + 1}; the student was left as it was before that step."
        return judge_not_finite(what, source, self.step, state_facts(self.problem, self.data, self.options))

    def _describe(self) -> RunInfo:
        problem = self.problem
        return RunInfo(
            steps=self.steps,
            epochs=self.options.epochs,
            trace_every=self.trace_every,
            tolerance=self.options.tolerance,
            examples=len(self.data.train),
            batch_size=self.batch_size,
            constraints=[rule.name for rule in problem.constraints],
            required=[rule.required for rule in problem.constraints],
            splits=["train", *self.data.splits],
            seed=problem.seed,
            device=str(problem.device),
            past=tuple(self.trace.points),
        )

    def _batches(self, epoch: int, taken: int) -> Iterator[tuple[Batch, Batch | None]]:
        """Yield each batch and, where that was asked for, the one half an epoch away; the first ones were taken.

        Where a run goes on, random generators do so after the way to its place, on which a data set may draw.
        """
        batches = self.batches.read(epoch, taken)
        if self._random is not None:
            set_random_states(self._random)
            self._random = None
        return batches
