"""Training one student again and again under other thresholds, and the account of it.

Every round is a fit of its own: optimizer and schedule begin as they were given; student, multipliers and a learned
weighting rule go on from a warm start.  Axes: M constraints.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ..._torch_state import share_in_eval_mode
from ...data import Split, SplitUse, require_unshared
from ...errors import InvalidInput
from ...safety import Constraint
from .._constraint_layout import is_single_average
from .._fit_result import ROUND_COLUMNS, FitResult, Tightening, Verdict
from .._parameter_vectors import copy_state
from .._training_problem import TrainingProblem
from .._warm_start import WarmStart
from ..loop import FitData, FitOptions, fit_once, restore_result
from ._fixed_sequence import Shares
from ._round_outcomes import HeldOutReading, TrainedRound

OnRound = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class TighteningSettings:
    """Numbers of raised thresholds; ``tests/safekd/training/generalization/test_crossfit.py`` notices both.

    Attributes:
        shortfall_divisor: Where no highest threshold is given, it leaves this part of the shortfall from 1 that was
            asked for: 0.98 where 0.8 is asked for, which students still reach.
        edge: Safety nearer than this to 0 or 1 counts as this near: log-odds have no end.
    """

    shortfall_divisor: float = 10.0
    edge: float = 1e-6


SETTINGS = TighteningSettings()


class TighteningRounds:
    """The rounds of one call of ``fit``.

    A run that goes on from a checkpoint does again what decides the rounds, and takes what was trained from ``once``.

    Args:
        problem: As it was posed, at the thresholds that were asked for.
        data: Of the fit.
        options: Of each round.
        warm_start: Where to begin; None for where the student is.
        on_round: Called with every finished row.
    """

    def __init__(
        self,
        problem: TrainingProblem,
        data: FitData,
        options: FitOptions,
        warm_start: WarmStart | None,
        on_round: OnRound | None,
    ) -> None:
        self.problem, self.data, self.warm_start = problem, data, warm_start
        self._options = replace(options, choose=False)  # a split that judges must not choose
        self._on_round = on_round
        self.asked = problem.constraints
        self.raised: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self._done: dict[str, Any] = {}
        kept = None if options.checkpoints is None else options.checkpoints.take_surroundings()
        if kept is None:
            self._start: dict[str, Any] = {
                "optimizer": copy.deepcopy(problem.optimizer.state_dict()),
                "scheduler": None if problem.scheduler is None else copy.deepcopy(problem.scheduler.state_dict()),
                "student": copy_state(problem.student),
                "rule": problem.learning.state(),
            }
        else:
            self.rows, self._done, self._start = list(kept["rows"]), dict(kept["done"]), dict(kept["start"])
            problem.learning.load(self._start["rule"])
        self._restore_rule = problem.learning.snapshot()
        if options.checkpoints is not None:
            options.checkpoints.surround(lambda: {"rows": self.rows, "done": self._done, "start": self._start})

    def once(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what a part of the search came to, from the checkpoint where it was done before.

        Args:
            name: Of the part; ``name/...`` are parts of it, which are forgotten once it is done.
            compute: Does it; returns what a checkpoint can hold.
        """
        if name not in self._done:
            outcome = compute()
            self._done = {key: one for key, one in self._done.items() if not key.startswith(f"{name}/")}
            self._done[name] = outcome
        outcome = self._done[name]
        return dict(outcome)

    def forget_ending(self, name: str) -> None:
        """Forget the student of a part of the search, which is not handed back.

        Args:
            name: Of the part.
        """
        if name in self._done:
            self._done[name] = {**self._done[name], "ending": None}

    def take_ending(self) -> Any:
        """Return a copy of how the last training ended, for ``restore``; None where no checkpoints are kept."""
        checkpoints = self._options.checkpoints
        return None if checkpoints is None else copy.deepcopy(checkpoints.ending)

    def restore(self, shares: Shares, ending: Mapping[str, Any]) -> FitResult:
        """Return the result of a training that ended before the checkpoint was written.

        Args:
            shares: Under which it was trained.
            ending: Of ``take_ending``.
        """
        problem = self.problem.with_constraints(self.pose(shares))
        return restore_result(problem, self.data, replace(self._options, checkpoints=None), ending)

    def choose(self, names: Sequence[str], highest: float | None, margin: float) -> None:
        """Decide which constraints are raised, how far at most, and by how much more is asked for.

        Args:
            names: Of the constraints; empty for all.
            highest: No threshold is posed above; None for a tenth of the shortfall from 1 that was asked for.
            margin: Added to what those constraints ask for.

        Raises:
            InvalidInput: A name is unknown, or a constraint has no threshold that could be raised.
        """
        known = [rule.name for rule in self.asked]
        if unknown := [name for name in names if name not in known]:
            raise InvalidInput(f"There is no constraint '{unknown[0]}' to tighten; there is {known}.")
        self.raised = [m for m, name in enumerate(known) if name in (names or known)]
        if not self.raised:
            raise InvalidInput("There is no constraint to tighten; give the trainer at least one.")
        self.highest = {}
        for m in self.raised:
            if not is_single_average(self.asked[m]):
                raise InvalidInput(
                    f"Constraint '{known[m]}' is an equality, a mix or a budget, whose threshold is not raised; wanted "
                    "one average with at_least. Name the others in `constraints`."
                )
            asked = self.asked[m].required + margin
            if margin and asked >= 1:
                raise InvalidInput(
                    f"Constraint '{known[m]}' asks for {self.asked[m].required:g}, and `margin` is {margin:g}; wanted "
                    "a sum below 1."
                )
            top = 1 - (1 - asked) / SETTINGS.shortfall_divisor if highest is None else highest
            if not asked < top < 1:
                raise InvalidInput(
                    f"Constraint '{self.asked[m].name}' asks for {asked:g}, and `highest` is {top:g}; wanted "
                    f"{asked:g} < highest < 1, so that there is room to raise the threshold."
                )
            self.highest[m] = top
        more = {m: self.asked[m].with_threshold(self.asked[m].required + margin) for m in self.raised if margin}
        self.asked = tuple(more.get(m, rule) for m, rule in enumerate(self.asked))

    def pose(self, shares: Shares) -> list[Constraint]:
        """Return the constraints at some shares of the way: 0 is what was asked for, 1 the highest.

        Args:
            shares: By constraint.
        """
        return [
            rule.with_threshold(interpolate_threshold(rule.required, self.highest[m], shares[m]))
            if m in self.raised
            else rule
            for m, rule in enumerate(self.asked)
        ]

    @property
    def as_asked(self) -> dict[int, float]:
        """The shares of the thresholds that were asked for."""
        return dict.fromkeys(self.raised, 0.0)

    def shortfall(self, m: int, value: float) -> float:
        """Return by what share of the way ``value`` misses what constraint ``m`` asks for, in log-odds.

        Args:
            m: Number of the constraint.
            value: A safety, in [0, 1].
        """
        asked = logit(self.asked[m].required)
        return (asked - logit(min(max(value, SETTINGS.edge), 1 - SETTINGS.edge))) / (logit(self.highest[m]) - asked)

    def fit(
        self,
        shares: Shares,
        start: WarmStart | None,
        train: Split | None = None,
        *,
        read_validation: bool = True,
    ) -> FitResult:
        """Train once under the thresholds at some shares.

        Args:
            shares: By constraint.
            start: Where to begin; None for where the student is.
            train: Training split; None for that of the fit.
            read_validation: Whether the trace has readings of the validation split.
        """
        problem = self.problem
        problem.optimizer.load_state_dict(copy.deepcopy(self._start["optimizer"]))
        if problem.scheduler is not None:
            problem.scheduler.load_state_dict(copy.deepcopy(self._start["scheduler"]))
        read_validation = read_validation or any(rule.split == "validation" for rule in self.asked)
        data = self.data if train is None else replace(self.data, train=train)
        data = data if read_validation else data.without_validation()
        return fit_once(problem.with_constraints(self.pose(shares)), data, self._options, start)

    def restart(self) -> None:
        """Put student and weighting rule back to where ``fit`` found them."""
        self.problem.student.load_state_dict(self._start["student"])
        self._restore_rule()

    def note(
        self,
        shares: Shares,
        trained: TrainedRound,
        judged: Mapping[int, HeldOutReading],
        *,
        cleared: Mapping[int, bool],
        looks: int,
    ) -> None:
        """Write down one round.

        Args:
            shares: Of its thresholds, by constraint.
            trained: What its training came to.
            judged: What new data said, by constraint.
            cleared: Whether the bound reaches what was asked for, by constraint.
            looks: At the judging split so far.
        """
        number = self.rows[-1]["round"] + 1 if self.rows else 1
        posed = self.pose(shares)
        for m in self.raised:
            reading = judged.get(m, HeldOutReading(math.nan, 0))
            row: dict[str, Any] = {
                "round": number,
                "constraint": posed[m].name,
                "asked": self.asked[m].required,
                "posed": posed[m].required,
                "measured": trained.measured[m],
                "judged": reading.average,
                "cases": reading.cases,
                "level": reading.confidence,
                "lower_bound": reading.bound,
                "cleared": cleared.get(m, False),
                "looks": looks,
                "status": trained.status,
                "distillation_loss": trained.loss,
                "steps": trained.steps,
                "kept": False,
            }
            self.rows.append(row)
            if self._on_round is not None:
                self._on_round(dict(self.rows[-1]))

    def count_looks(self, uses: Sequence[SplitUse], judges: Sequence[Split], looks: int) -> list[SplitUse]:
        """Return ``uses`` and that each of ``judges`` was looked at so often to raise thresholds.

        Args:
            uses: Of the splits so far.
            judges: Splits that judged.
            looks: How often.
        """
        listed = list(uses)
        for split in judges:
            here = next((number for number, use in enumerate(listed) if use.split is split), len(listed))
            known = listed[here] if here < len(listed) else SplitUse(split, ())
            listed[here:] = [known.add_looks(looks, "to raise thresholds"), *listed[here + 1 :]]
        return listed

    def add_folds(self, uses: Sequence[SplitUse], folds: int, rounds: int) -> list[SplitUse]:
        """Return ``uses`` and that the training split was cross-fitted on.

        Args:
            uses: Of the splits so far.
            folds: Of a round.
            rounds: How many; none where 0.
        """
        role = f"cross-fitting, {folds} folds x {rounds} rounds"
        train = self.data.train
        return [replace(use, roles=(*use.roles, role)) if rounds and use.split is train else use for use in uses]

    def doubt(self, judges: Sequence[str]) -> str:
        """Return a sentence for where the teachers were measured on a split that judges; else nothing.

        Args:
            judges: Names of the splits that judge.
        """
        evidence = self.problem.objective.evidence
        measured = evidence is not None and evidence.source in [self.data.splits[name].name for name in judges]
        return " The teachers were measured on that split, so its bound is no guarantee." * measured

    def hand_back(
        self, result: FitResult, verdict: Verdict, shares: Shares, kept: int, on: str, uses: Sequence[SplitUse]
    ) -> FitResult:
        """Return a result with the account of the rounds.

        Args:
            result: Of the round that is handed back.
            verdict: What became of the search, status "cleared" or "not_cleared".
            shares: Of the thresholds of that round, by constraint.
            kept: Number of that round, from 1.
            on: Split that judged, or "crossfit".
            uses: Of the splits.
        """
        for row in self.rows:
            row["kept"] = row["round"] == kept
        names = [self.asked[m].name for m in self.raised]
        posed = self.pose(shares)
        account = Tightening(
            status=verdict.status,
            message=verdict.message,
            posed={name: posed[m].required for name, m in zip(names, self.raised, strict=True)},
            on=on,
            looks=max((row["looks"] for row in self.rows), default=0),
            rounds=pd.DataFrame(self.rows, columns=list(ROUND_COLUMNS)),
        )
        failed = verdict.status == "not_cleared" and result.status != "diverged"
        combined = Verdict(
            "not_cleared" if failed else result.status,
            f"{verdict.message} {result.message}" if failed else f"{result.message} {verdict.message}",
            verdict.next_move if failed else result.next_move,
        )
        return replace(
            result,
            student=share_in_eval_mode(self.problem.student),
            verdict=combined,
            uses=tuple(uses),
            tightening=account,
        )


def require_margin(margin: float) -> None:
    """Raise InvalidInput for a margin that is none.

    Args:
        margin: What more is asked for.

    Raises:
        InvalidInput: It is below 0, or 1 or more.
    """
    if not 0 <= margin < 1:
        raise InvalidInput(f"`margin` is {margin!r}; wanted a number of at least 0 and below 1, such as 0.05.")


def require_judges(names: Sequence[str], rounds: TighteningRounds) -> list[Split]:
    """Return the splits that are to judge a student.

    Args:
        names: Of the splits.
        rounds: Knows which were given.

    Returns:
        The splits, in that order.

    Raises:
        InvalidInput: One was not given, the student trains on it or on some of its examples, or two are alike.
    """
    given = rounds.data.splits
    for name in names:
        if name not in given:
            raise InvalidInput(
                f"Thresholds are to be raised until split '{name}' shows what was asked for, but it was not given; "
                f"there is {['train', *given]}. Pass it to fit, as validation= or in splits=; the training "
                "split cannot judge."
            )
        posed = [rule.name for rule in rounds.asked if rule.split == name]
        if posed:
            raise InvalidInput(
                f"Constraint '{posed[0]}' is posed on split '{name}', which is also to judge it; a split on which a "
                "constraint is posed has trained the student. Pose it on 'train' or on another split."
            )
    rounds.data.require_unseen(names, rounds.asked)
    judges = [rounds.data.require_split(name, "Raising thresholds by what new data show") for name in names]
    for number, name in enumerate(names):
        require_unshared(judges[number], dict(zip(names[:number], judges[:number], strict=True)), name)
    return judges


def interpolate_threshold(asked: float, highest: float, share: float) -> float:
    """Return a threshold between two, evenly spaced in log-odds.

    Args:
        asked: At share 0, in (0, 1).
        highest: At share 1, in (0, 1).
        share: Of the way, in [0, 1].

    >>> round(interpolate_threshold(0.5, 0.9, 0.5), 6)
    0.75
    """
    if share <= 0:
        return asked
    return 1 / (1 + math.exp(-((1 - share) * logit(asked) + share * logit(highest))))


def logit(p: float) -> float:
    """Return the log-odds of a probability.

    Args:
        p: In (0, 1).
    """
    return math.log(p) - math.log1p(-p)
