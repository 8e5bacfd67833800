"""What a run hands back: the students, the trace, and a verdict with its evidence."""

from __future__ import annotations

import copy
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pandas as pd
from torch import Tensor, nn

from solvers.kkt import KKTResiduals
from solvers.short_repr import SETTINGS, ShortRepr, shorten_repr
from solvers.statuses import Status

from ..data import SplitUse
from ..errors import InvalidInput
from ..io import read_text_file, refuse_misfit, write_atomically, write_csv
from ..io.folders import Manifest, finish_replacement, lock_folder, read_manifest, replace_files
from ..safety import Certificate
from ..weights import Rule, load_rule_state
from ._mixture import Mixture
from .result_files import (
    POINT_FIELDS,
    ROUNDS,
    RUN,
    TRACE_LINES,
    TRACE_TABLE,
    USED_EXAMPLES,
    VERDICT,
    build_checked,
    describe_structure,
    read_rounds,
    read_state,
    remove_stale_report,
    require_same_student,
    restore_mixture,
    restore_numbers,
    restore_uses,
    save_tensors,
    write_states,
)
from .trace import FEASIBLE, TracePoint, read_trace, write_jsonl

FURTHER_STUDENTS = (
    "best_feasible",
    "most_feasible",
    "best_validated",
)  # besides the final one; each a field of FitResult
_SHOWN = 10  # readings in a text that fits a screen


Finding = float | str | Sequence[float] | Sequence[str]


@dataclass(frozen=True, repr=False)
class Verdict(ShortRepr):
    """How a run ended.

    Attributes:
        status: A word of ``solvers.statuses``; where it is infeasible, ``evidence["proof"]`` is "farkas" (no student
            meets the thresholds) or "local" (none near this one).
        message: Cause and evidence in numbers.
        next_move: What to do; empty where there is nothing to do.
        evidence: The numbers by name, lists one entry a constraint.
    """

    status: Status
    message: str
    next_move: str
    evidence: Mapping[str, Finding] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Tightening(ShortRepr):
    """How thresholds were raised until data that the student did not train on showed what was asked for.

    Attributes:
        status: "cleared" or "not_cleared".
        message: The method and its numbers.
        posed: Thresholds under which the student was trained, by constraint.
        on: Split that judged, or "crossfit".
        looks: How many decisions were read off splits that judge.
        rounds: One row for each round and constraint, columns as ``ROUND_COLUMNS`` explains them.
    """

    status: str
    message: str
    posed: Mapping[str, float]
    on: str
    looks: int
    rounds: pd.DataFrame


ROUND_COLUMNS = {
    "round": "from 1",
    "constraint": "its name",
    "asked": "threshold that the user asked for, with the margin of the tightening",
    "posed": "threshold that this round trained under",
    "measured": "average on the split on which it is posed",
    "judged": "average on the split that judges, or over the folds, each by the student that did not see it",
    "cases": "examples in that average",
    "level": "confidence of the bound; none for the student that cross-fitting trains on everything",
    "lower_bound": "lower bound at that level; approximate out of fold",
    "cleared": "whether the bound reaches what was asked for",
    "looks": "looks at the judging split up to and with this round",
    "status": "verdict of the round's training",
    "distillation_loss": "nats, training split; over the folds: mean of their students",
    "steps": "optimizer steps of the round",
    "kept": "whether the student handed back was trained under this threshold",
}


@dataclass(frozen=True, repr=False)
class FitResult:
    """A trained student and everything that is known about it.

    Attributes:
        verdict: How the run ended, and the evidence.
        student: The final iterate, in minibatches the averaged one, corrected onto its active constraints where it
            ended near them.  In eval mode like the others, since that is how its numbers were read: a module of its
            own, made of the parameters of the trained one, which comes back in the mode in which it came.
        best_feasible: Evaluated iterate with the lowest loss among those that met every constraint; None if none did.
        most_feasible: The one with the smallest violation; where the verdict had to look for it, also one that left the
            loss aside.
        best_validated: The evaluated iterate that is best on the validation split: of smallest violation there, up to
            1e-3 counting as none, then of least loss there; None without such a split, and where thresholds were
            raised.  It was chosen by that split, which can then no longer certify anything.
        multipliers: Final multiplier of each constraint, nats a unit of safety.
        residuals: KKT residuals of ``student``, at the weights that ``rule`` gives as it is now.
        point: Last trace point.
        trace: All trace points, one row each.
        rule: Weighting rule, in eval mode where it learned; None where it was read from a folder without one.
        rule_state: Its state and its optimizer's, by name; empty where it has none.
        checkpoint_rule_states: The same as it was at "best_feasible", "most_feasible" and "best_validated".
        mixture: Of lowest loss among mixtures of snapshots that meet every constraint on average, where ``fit`` was
            asked for snapshots.
        mixture_note: Why there is no mixture then.
        uses: Which data it was made with, and for what.
        tightening: How its thresholds were raised; None if they were not.
        certificates: What held-out data were found to prove of it; kept beside it.
        save_note: Why its folder does not hold it, where it could not be written; empty else.
    """

    verdict: Verdict
    student: nn.Module
    best_feasible: nn.Module | None
    most_feasible: nn.Module
    best_validated: nn.Module | None
    multipliers: Mapping[str, float]
    residuals: KKTResiduals
    point: TracePoint
    trace: pd.DataFrame
    rule: Rule | None
    rule_state: Mapping[str, Tensor]
    checkpoint_rule_states: Mapping[str, Mapping[str, Tensor]]
    mixture: Mixture | None
    mixture_note: str
    uses: Sequence[SplitUse] = ()
    tightening: Tightening | None = None
    certificates: Sequence[Certificate] = ()
    save_note: str = ""

    @property
    def status(self) -> Status:
        """One word, see Verdict."""
        return self.verdict.status

    @property
    def message(self) -> str:
        """Cause and evidence."""
        return self.verdict.message

    @property
    def next_move(self) -> str:
        """What to do now."""
        return self.verdict.next_move

    @property
    def feasible(self) -> bool:
        """Whether the final student met every constraint, to 1e-3, on the split on which it is posed."""
        return all(reading.violation <= FEASIBLE for reading in self.point.readings)

    def __repr__(self) -> str:
        readings = [*self.point.readings, *self.point.validation]
        multipliers = [f", multiplier {value:.4g}" for value in self.multipliers.values()]
        multipliers += [""] * (len(readings) - len(multipliers))
        lines = [
            f"'{shorten_repr(r.name, 40)[1:-1]}' on '{r.split}': {r.measured:.6g}, asked for {r.required:g}{more}"
            for r, more in zip(readings[:_SHOWN], multipliers, strict=False)
        ]
        lines += [f"... {len(readings) - _SHOWN} more readings"] * (len(readings) > _SHOWN)
        kept = [name for name in ("student", *FURTHER_STUDENTS, "mixture") if getattr(self, name) is not None]
        texts = [self.message, f"Next: {self.next_move}" if self.next_move else "", self.save_note]
        return "\n  ".join(
            [
                f"FitResult: {self.status}, distillation loss {self.point.loss:.6g} nats after {self.point.step} steps",
                *lines,
                *(line for text in texts for line in textwrap.wrap(text, SETTINGS.width, max_lines=3)),
                f"with {', '.join(kept)}, trace ({len(self.trace)} rows)",
            ]
        )

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write everything that is known of the run to a folder, from which ``load`` reads it back.

        The trace as trace.csv and trace.jsonl, verdict.json with the evidence, student.safetensors, weighting_rule and
        mixture-STEP where there are such, best_feasible and most_feasible where they are other students.
        used_examples.safetensors knows the examples of the run again, tightening.csv says how thresholds were raised,
        manifest.json holds size and SHA-256 of each.  All of them take the place of those of an earlier run together.

        Args:
            folder: Made if absent.

        Returns:
            The paths of the files.

        Raises:
            InvalidInput: The folder cannot be written to, or another process writes to it; what was there is there
                still.
        """
        target = Path(folder)
        with lock_folder(target, "a result"):
            with replace_files(target, RUN) as part:
                self.write_files(part)
            remove_stale_report(target)
            return [target / name for name in sorted(read_manifest(target, RUN).files)]

    def write_files(self, folder: Path) -> None:
        """Write the files of ``save``, without a manifest, to a folder that holds none.

        Args:
            folder: Exists.
        """
        write_csv(self.trace, folder / TRACE_TABLE)
        write_jsonl(self.trace.to_dict("records"), folder / TRACE_LINES)
        states = _list_states(self)
        sharing = [name for name in states if name.startswith(FURTHER_STUDENTS)]
        same_as = write_states(states, folder, sharing)
        keys = {str(number): use.seen.to_tensor() for number, use in enumerate(self.uses)}
        if keys:
            save_tensors(keys, folder / USED_EXAMPLES)
        if self.tightening is not None:
            write_csv(self.tightening.rounds, folder / ROUNDS)
        record = {**_describe_result(self), "same_as": same_as}
        with write_atomically(folder / VERDICT) as temporary:
            temporary.write_text(json.dumps(record, indent=2, allow_nan=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], student: nn.Module, *, rule: Rule | None = None) -> Self:
        """Return the result that ``save`` or ``fit(run_dir=)`` wrote, numbers and parameters to the last bit.

        The data are not kept, but the marks of their examples are, so that ``certify`` still refuses those that the run
        used.

        Args:
            folder: Where it was written.
            student: A module built as for the run; it gets the final student's parameters and is
                ``FitResult.student``, the other students are copies of it.
            rule: A weighting rule built as for the run, which gets what that had learned; None to do without.

        Returns:
            The result.

        Raises:
            InvalidInput: The folder holds no finished run, a file in it was changed, or the student or the rule is of
                another making; nothing is put into them then.
        """
        if not isinstance(student, nn.Module):
            raise InvalidInput(f"`student` is a {type(student).__name__}; wanted a torch module, built as for the run.")
        place = Path(folder)
        finish_replacement(place)
        manifest = read_manifest(place, RUN)
        manifest.require_whole()
        with refuse_misfit(place / VERDICT, "what a run writes there"):
            record = json.loads(read_text_file(place / VERDICT))
            state = read_state(manifest, "student", record["same_as"]) or {}
            require_same_student(student, state, record["structure"], place)
            rule_state = read_state(manifest, "weighting_rule", record["same_as"]) or {}
            parts = _restore_parts(record, manifest, student)
        if rule is not None:
            load_rule_state(rule, {k.removeprefix("rule."): v for k, v in rule_state.items() if k.startswith("rule.")})
        student.load_state_dict(state)
        student.eval()
        return cls(student=student, rule=rule, rule_state=rule_state, **parts)


def _restore_parts(record: Mapping[str, Any], manifest: Manifest, student: nn.Module) -> dict[str, Any]:
    """Return all fields of a result that its folder alone decides; ``student`` is copied, and stays as it is."""
    place, same_as = manifest.folder, record["same_as"]

    def build(name: str) -> Any:
        kept = read_state(manifest, name, same_as)
        if kept is None:
            return None
        module = copy.deepcopy(student)
        require_same_student(module, kept, record["structure"], place)
        module.load_state_dict(kept)
        return module.eval()

    raised = record.get("tightening")
    rules = {name: read_state(manifest, f"{name}-weighting_rule", same_as) for name in record["checkpoint_rule_states"]}
    verdict = {name: record[name] for name in ("status", "message", "next_move", "evidence")}
    return {
        "checkpoint_rule_states": {str(name): kept or {} for name, kept in rules.items()},
        "trace": read_trace(place / TRACE_LINES),
        "mixture": restore_mixture(record, build),
        "uses": restore_uses(record["data"], manifest),
        "verdict": build_checked(Verdict, verdict),
        "tightening": None if raised is None else restore_tightening(raised, place),
        **{name: build(name) for name in FURTHER_STUDENTS},
        **restore_numbers(record),
    }


def restore_tightening(raised: Mapping[str, Any], place: Path) -> Tightening:
    """Return how thresholds were raised, as a run folder has it.

    Args:
        raised: What verdict.json says of it.
        place: The folder, whose table of rounds was checked against its manifest.

    Raises:
        InvalidInput: The table is not what a run writes there.
    """
    posed = {str(name): float(threshold) for name, threshold in raised["posed"].items()}
    texts = {name: str(raised[name]) for name in ("status", "message", "on")}
    rounds = read_rounds(place, list(ROUND_COLUMNS))
    return Tightening(**texts, posed=posed, looks=int(raised["looks"]), rounds=rounds)


def _list_states(result: FitResult) -> dict[str, Mapping[str, Tensor]]:
    """Return the tensors of a result by the name of their file."""
    states: dict[str, Mapping[str, Tensor]] = {"student": result.student.state_dict()}
    states["weighting_rule"] = result.rule_state
    if result.mixture is not None:
        named = zip(result.mixture.steps, result.mixture.students, strict=True)
        states |= {f"mixture-{step}": student.state_dict() for step, student in named}
    for name in FURTHER_STUDENTS:
        if (student := getattr(result, name)) is not None:
            states[name] = student.state_dict()
    return states | {f"{name}-weighting_rule": state for name, state in result.checkpoint_rule_states.items()}


def _describe_result(result: FitResult) -> dict[str, Any]:
    """Return what verdict.json holds."""
    point = result.point
    record: dict[str, Any] = {
        **asdict(result.verdict),
        "distillation_loss": point.loss,
        "residuals": asdict(result.residuals),
        "multipliers": dict(result.multipliers),
        "readings": [asdict(reading) for reading in (*point.readings, *point.validation)],
        "data": [use.record() for use in result.uses],
        # without their dates: a run that was killed and gone on with leaves the same bytes
        "certificates": [asdict(replace(certificate, date="")) for certificate in result.certificates],
        "point": {**{name: getattr(point, name) for name in POINT_FIELDS}, "memory": asdict(point.memory)},
        "structure": describe_structure(result.student),
        "checkpoint_rule_states": list(result.checkpoint_rule_states),
        "mixture_note": result.mixture_note,
    }
    if mixture := result.mixture:
        record["mixture"] = {
            "weights": dict(zip(map(str, mixture.steps), mixture.weights, strict=True)),
            "distillation_loss": mixture.loss,
            "safety": dict(mixture.safety),
            "multipliers": dict(mixture.multipliers),
        }
    if raised := result.tightening:
        outcome = {"status": raised.status, "message": raised.message, "posed": dict(raised.posed), "on": raised.on}
        record["tightening"] = {**outcome, "looks": raised.looks}
    return record
