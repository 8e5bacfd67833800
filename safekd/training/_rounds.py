"""Training one student again and again under other thresholds, and the account of it.

Every round is a run of its own: optimizer and schedule begin as they were given; student, multipliers and a learned
weighting rule go on from a warm start.  Axes: M constraints.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..data import Split, SplitUse, move_split
from ..errors import InvalidInput
from ..safety import Constraint
from ._attainable import is_plain
from ._fixed_sequence import Places
from ._result import ROUND_COLUMNS, FitResult, Tightening, Verdict
from ._warm_start import WarmStart

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer

Once = Callable[[Split, Split | None, Mapping[str, Split], WarmStart | None], FitResult]
OnRound = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Judged:
    """What new data said of one constraint in one round; bound and level are no numbers where nothing is bounded."""

    average: float
    cases: int
    bound: float = math.nan
    level: float = math.nan


class Rounds:
    """The rounds of one call of ``fit``.

    once: one run on (train, validation, splits) from a warm start.  on_round: called with every finished row.
    """

    def __init__(
        self,
        trainer: ConstrainedTrainer,
        train: Any,
        validation: Any,
        splits: Mapping[str, Any],
        warm_start: WarmStart | None,
        once: Once,
        on_round: OnRound | None,
    ) -> None:
        self.trainer, self.warm_start, self._once, self._on_round = trainer, warm_start, once, on_round
        self.train = move_split(train, "train", trainer.device)
        self.validation = None if validation is None else move_split(validation, "validation", trainer.device)
        self.splits = {name: move_split(data, name, trainer.device) for name, data in splits.items()}
        self.asked = list(trainer.constraints)
        self.raised: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self._optimizer = copy.deepcopy(trainer.optimizer.state_dict())
        self._scheduler = None if trainer.scheduler is None else copy.deepcopy(trainer.scheduler.state_dict())
        self._student = {name: value.detach().clone() for name, value in trainer.student.state_dict().items()}
        self._rule = trainer.learning.snapshot()

    @property
    def given(self) -> dict[str, Split]:
        """Every split but the training split, by name."""
        return self.splits if self.validation is None else {"validation": self.validation, **self.splits}

    def choose(self, names: Sequence[str], highest: float | None) -> None:
        """Decide which constraints are raised, and how far at most.  Raises InvalidInput."""
        known = [rule.name for rule in self.asked]
        if unknown := [name for name in names if name not in known]:
            raise InvalidInput(f"There is no constraint '{unknown[0]}' to tighten; there is {known}.")
        self.raised = [m for m, name in enumerate(known) if name in (names or known)]
        if not self.raised:
            raise InvalidInput("There is no constraint to tighten; give the trainer at least one.")
        self.highest = {}
        for m in self.raised:
            if not is_plain(self.asked[m]):
                raise InvalidInput(
                    f"Constraint '{known[m]}' is an equality, a mix or a budget, whose threshold is not raised; wanted "
                    "one average with at_least. Name the others in `constraints`."
                )
            asked = self.asked[m].required
            top = 1 - (1 - asked) / 10 if highest is None else highest
            if not asked < top < 1:
                raise InvalidInput(
                    f"Constraint '{self.asked[m].name}' asks for {asked:g}, and `highest` is {top:g}; wanted "
                    f"{asked:g} < highest < 1, so that there is room to raise the threshold."
                )
            self.highest[m] = top

    def posed(self, places: Places) -> list[Constraint]:
        """Return the constraints at ``places``: 0 is what was asked for, 1 the highest, between them even log-odds."""
        return [
            rule.with_threshold(between(rule.required, self.highest[m], places[m])) if m in self.raised else rule
            for m, rule in enumerate(self.asked)
        ]

    @property
    def as_asked(self) -> dict[int, float]:
        """The places of the thresholds that were asked for."""
        return dict.fromkeys(self.raised, 0.0)

    def shortfall(self, m: int, value: float) -> float:
        """Return by how many places ``value`` misses what constraint ``m`` asks for, in log-odds."""
        asked = logit(self.asked[m].required)
        return (asked - logit(min(max(value, 1e-6), 1 - 1e-6))) / (logit(self.highest[m]) - asked)

    def fit(
        self, places: Places, start: WarmStart | None, train: Split | None = None, *, watched: bool = True
    ) -> FitResult:
        """Run once under the thresholds at ``places``; ``watched``: with readings of the validation split in the
        trace.
        """
        trainer = self.trainer
        trainer.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        if trainer.scheduler is not None:
            trainer.scheduler.load_state_dict(copy.deepcopy(self._scheduler))  # type: ignore[arg-type]
        trainer.constraints = self.posed(places)
        evaluated = watched or any(rule.split == "validation" for rule in self.asked)
        try:
            return self._once(train or self.train, self.validation if evaluated else None, self.splits, start)
        finally:
            trainer.constraints = self.asked

    def restart(self) -> None:
        """Put student and weighting rule back to where ``fit`` found them."""
        self.trainer.student.load_state_dict(self._student)
        self._rule()

    def note(
        self,
        places: Places,
        result: FitResult,
        judged: Mapping[int, Judged],
        *,
        cleared: Mapping[int, bool],
        looks: int,
        **more: Any,
    ) -> None:
        """Write down one round; ``more`` overrides what the result says."""
        number = self.rows[-1]["round"] + 1 if self.rows else 1
        posed = self.posed(places)
        for m in self.raised:
            found = judged.get(m, Judged(math.nan, 0))
            row: dict[str, Any] = {
                "round": number,
                "constraint": posed[m].name,
                "asked": self.asked[m].required,
                "posed": posed[m].required,
                "measured": result.point.readings[m].measured,
                "judged": found.average,
                "cases": found.cases,
                "level": found.level,
                "lower_bound": found.bound,
                "cleared": cleared.get(m, False),
                "looks": looks,
                "status": result.status,
                "distillation_loss": result.point.loss,
                "steps": result.point.step,
                "kept": False,
            }
            self.rows.append(row | more | ({"measured": more["measured"][m]} if "measured" in more else {}))
            if self._on_round is not None:
                self._on_round(dict(self.rows[-1]))

    def looked_at(self, uses: Sequence[SplitUse], judges: Sequence[Split], looks: int) -> list[SplitUse]:
        """Return ``uses`` and that each of ``judges`` was looked at so often to raise thresholds."""
        told = list(uses)
        for split in judges:
            here = next((number for number, use in enumerate(told) if use.split is split), len(told))
            known = told[here] if here < len(told) else SplitUse(split, ())
            told[here:] = [known.add_looks(looks, "to raise thresholds"), *told[here + 1 :]]
        return told

    def doubt(self, judges: Sequence[str]) -> str:
        """Return a sentence for where the teachers were measured on a split that judges; else nothing."""
        evidence = self.trainer.objective.evidence
        measured = evidence is not None and evidence.source in [self.given[name].name for name in judges]
        return " The teachers were measured on that split, so its bound is no guarantee." * measured

    def hand_back(
        self, result: FitResult, verdict: Verdict, places: Places, kept: int, on: str, uses: Sequence[SplitUse]
    ) -> FitResult:
        """Return ``result`` with the account of the rounds; ``kept``: the round whose thresholds it has, from 1.

        verdict: what became of the search, status "cleared" or "not_cleared".
        """
        for row in self.rows:
            row["kept"] = row["round"] == kept
        names = [self.asked[m].name for m in self.raised]
        posed = self.posed(places)
        account = Tightening(
            status=verdict.status,
            message=verdict.message,
            posed={name: posed[m].required for name, m in zip(names, self.raised, strict=True)},
            on=on,
            looks=max((row["looks"] for row in self.rows), default=0),
            rounds=pd.DataFrame(self.rows, columns=list(ROUND_COLUMNS)),
        )
        failed = verdict.status == "not_cleared" and result.status != "diverged"
        told = Verdict(
            "not_cleared" if failed else result.status,
            f"{verdict.message} {result.message}" if failed else f"{result.message} {verdict.message}",
            verdict.next_move if failed else result.next_move,
        )
        return replace(result, student=self.trainer.student, verdict=told, uses=tuple(uses), tightening=account)


def splits_that_judge(names: Sequence[str], rounds: Rounds) -> list[Split]:
    """Return the splits that are to judge a student.

    Args:
        names: Of the splits.
        rounds: Knows which were given.

    Returns:
        The splits, in that order.

    Raises:
        InvalidInput: One was not given, or the student trains on it.
    """
    for name in names:
        if name not in rounds.given:
            raise InvalidInput(
                f"Thresholds are to be raised until split '{name}' shows what was asked for, but it was not given; "
                f"there is {['train', *rounds.given]}. Pass it to fit, as validation= or in splits=; the training "
                "split cannot judge."
            )
        posed = [rule.name for rule in rounds.asked if rule.split == name]
        if posed:
            raise InvalidInput(
                f"Constraint '{posed[0]}' is posed on split '{name}', which is also to judge it; a split on which a "
                "constraint is posed has trained the student. Pose it on 'train' or on another split."
            )
    return [rounds.given[name] for name in names]


def between(asked: float, highest: float, place: float) -> float:
    """Return the threshold at ``place`` in [0, 1] from ``asked`` to ``highest``, evenly spaced in log-odds."""
    if place <= 0:
        return asked
    return 1 / (1 + math.exp(-((1 - place) * logit(asked) + place * logit(highest))))


def logit(p: float) -> float:
    """Return the log-odds of ``p`` in (0, 1)."""
    return math.log(p) - math.log1p(-p)
