"""Checkpoints of a run while it lasts: when they are written, what a run goes on from, and what may differ then."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..._number_checks import is_whole
from ...distributed import Ranks
from ...errors import InvalidInput
from ...fingerprints import compare_records, require_key_list, select_refused
from ._checkpoint_store import CheckpointStore
from ._interrupts import Interrupts
from ._state_encoding import encode_state
from ._state_parts import StatePart

Resume = Literal["auto", "never", "must"]
_TERMINATED = 143  # what a process ends with that was asked to
_MOST_CHANGES = 6  # differences in a message
ReadState = Callable[[], Mapping[str, Any]]
ListParts = Callable[[], Mapping[str, StatePart]]


@dataclass(frozen=True)
class CheckpointScheduleSettings:
    """When checkpoints are written where nobody says.

    Attributes:
        least_seconds: From one to the next: what a killed run loses.
        share: Of the time that writing them may take.
    """

    least_seconds: float = 60.0
    share: float = 0.02


SETTINGS = CheckpointScheduleSettings()


@dataclass(frozen=True)
class ResumeOptions:
    """What a caller of ``fit`` says of checkpoints.

    Attributes:
        every: Optimizer steps between them; None for a minute, or longer where they cost much.
        resume: "auto" to go on from a checkpoint where there is one, "never" to begin anew, "must" to refuse to.
        allow_change: Keys of the run's record that may differ, each with all that is below it.

    Raises:
        InvalidInput: One is something else.
    """

    every: int | None = None
    resume: Resume = "auto"
    allow_change: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.every is not None and (not is_whole(self.every) or self.every < 1):
            raise InvalidInput(
                f"`checkpoint_every` is {self.every!r}; wanted at least 1 step between checkpoints, or None."
            )
        if self.resume not in ("auto", "never", "must"):
            raise InvalidInput(f"`resume` is {self.resume!r}; wanted 'auto', 'never' or 'must'.")
        require_key_list(self.allow_change)


class RunCheckpoints:
    """The checkpoints of one call of ``fit``, which may train several times over.

    Args:
        store: Where they lie; None on a rank that writes nothing.
        record: What the run is, see ``describe_run``.
        read_moving: Describes what of it moves.
        options: What the caller said.
        pending: State to go on from; None to begin.
        changed: Keys that differ from the run that is gone on with, and may.

    Attributes:
        interrupts: Requests to stop.
        ending: What the result of the last training is made from, where several are trained.
        changed: As given.
        pending: As given.
        ranks: Who trains: all read their state, and the first one writes.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        record: Mapping[str, Any],
        read_moving: ReadState,
        options: ResumeOptions,
        pending: Mapping[str, Any] | None = None,
        changed: Sequence[str] = (),
    ) -> None:
        self.pending, self.ranks = pending, Ranks()
        self._store, self._record, self._read_moving, self._every = store, record, read_moving, options.every
        self._loop_state = None if pending is None else pending["loop"]
        self._surroundings_state = None if pending is None else pending["run"]["surroundings"]
        self._steps_before = 0 if pending is None else pending["run"]["steps_before"]
        self._written = None if pending is None else pending["run"]["step"]
        self.interrupts, self.changed = Interrupts(), tuple(changed)
        self._surroundings: ReadState | None = None
        self.ending: Mapping[str, Any] | None = None
        self._last, self._cost, self._works = time.perf_counter(), 0.0, True

    def take_surroundings(self) -> Mapping[str, Any] | None:
        """Return the state of what trains several times over, None where a run begins."""
        state, self._surroundings_state = self._surroundings_state, None
        return state or None

    def take_loop_state(self) -> Mapping[str, Any] | None:
        """Return the state of the training that was stopped, once; None for one that begins."""
        state, self._loop_state = self._loop_state, None
        return state

    def surround(self, read_state: ReadState) -> None:
        """Say what trains several times over.

        Args:
            read_state: Gives its state.
        """
        self._surroundings = read_state

    def finish_training(self, steps: int, read_ending: ReadState) -> None:
        """Take note that one training has ended: names of later checkpoints count on.

        Args:
            steps: That it took.
            read_ending: Gives what its result is made from.
        """
        self._steps_before += steps
        self.ending = None if self._surroundings is None else read_ending()

    def after_step(self, step: int, list_parts: ListParts) -> None:
        """Write a checkpoint where one is due, and stop where that was asked for.

        Args:
            step: Optimizer steps of this training so far.
            list_parts: Gives the parts of its state.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: The process was asked to end.
        """
        stops, saves = self._agree(step, self.interrupts.noted is not None, self._is_due(step))
        if stops or saves:
            self._save(step, list_parts)
        if stops:
            self.interrupts.stop()  # which returns where a handler of the program's own does
            if self.ranks.size > 1:
                sys.exit(_TERMINATED)  # another rank was asked to

    def _agree(self, step: int, stops: bool, saves: bool) -> tuple[bool, bool]:
        """Return the same answer on every rank: what only one of them knows travels with the next step's sums."""
        if self.ranks.size == 1:
            return stops, saves
        if self._every is None:
            saves = self.ranks.ask("save", saves and self.ranks.is_first)
        return self.ranks.ask("stop", stops), saves

    def _is_due(self, step: int) -> bool:
        if self._every is not None:
            return step % self._every == 0
        return time.perf_counter() - self._last >= max(SETTINGS.least_seconds, self._cost / SETTINGS.share)

    def _save(self, step: int, list_parts: ListParts) -> None:
        """Write a checkpoint; a folder that fails is told of, and stops no run."""
        total, began = self._steps_before + step, time.perf_counter()
        if total == self._written or (self.ranks.size == 1 and not self._works):
            return
        loop = {name: part.read() for name, part in list_parts().items()}
        if self._store is None or not self._works:
            return
        run = {
            "step": total,
            "steps_before": self._steps_before,
            "record": dict(self._record),
            "moving": dict(self._read_moving()),
            "surroundings": None if self._surroundings is None else dict(self._surroundings()),
        }
        state = {"student": loop.pop("student"), "optimizer": loop.pop("optimizer"), "loop": loop, "run": run}
        try:
            if self._written is None:
                encode_state(state)
        except InvalidInput as error:
            self._works = False
            warnings.warn(f"{self._store.folder} keeps no checkpoints of this run: {error}", stacklevel=2)
            return
        try:
            self._store.save(total, state)
            self._written = total
        except InvalidInput as error:
            warnings.warn(f"{error} The run goes on; the last checkpoint stays as it is.", stacklevel=2)
        self._last = time.perf_counter()
        self._cost = self._last - began


def open_checkpoints(
    folder: Path, record: Mapping[str, Any], read_moving: ReadState, machine: Mapping[str, Any], options: ResumeOptions
) -> RunCheckpoints:
    """Return the checkpoints of a run that begins, or goes on.

    Args:
        folder: Of the run, locked.
        record: What the run is, plain JSON.
        read_moving: Describes what of it moves while it is trained.
        machine: What decides the last digits, plain JSON.
        options: What the caller said.

    Raises:
        InvalidInput: There is nothing to go on from where there must be; the checkpoint is of another run, and the
            message says what differs; or it is not what a run writes.
    """
    record = {**record, "machine": dict(machine)}
    store = CheckpointStore(folder, goes_on=False)
    if options.resume == "never":
        return RunCheckpoints(store, record, read_moving, options)
    latest = store.find_latest()
    damaged = "; ".join(store.damaged.values())
    if latest is None:
        if options.resume == "must":
            raise InvalidInput(
                f"{folder} holds no checkpoint to go on from{f': {damaged}' if damaged else '.'} Begin with "
                "resume='auto', or check the folder."
            )
        if damaged:
            warnings.warn(f"The run begins anew: no checkpoint is whole. {damaged}", stacklevel=3)
        return RunCheckpoints(store, record, read_moving, options)
    if damaged:
        warnings.warn(f"The run goes on from step {latest.step}, the last that is whole. {damaged}", stacklevel=3)
    state = store.read(latest)
    try:
        kept, moving, loop = state["run"]["record"], state["run"]["moving"], state["loop"]
        state["loop"] = {**loop, "student": state["student"], "optimizer": state["optimizer"]}
        changes = _list_changes(kept, record, moving, read_moving())
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{latest.folder} holds no state of a run: {type(error).__name__}: {error}.") from error
    changed = _require_allowed(changes, options.allow_change, folder, latest.step)
    store.goes_on = True
    return RunCheckpoints(store, record, read_moving, options, state, changed)


def share_checkpoints(
    open_first: Callable[[], RunCheckpoints] | None, options: ResumeOptions, ranks: Ranks
) -> RunCheckpoints:
    """Return the checkpoints of a run of several processes: rank 0 opens them, and all go on from what it found.

    Args:
        open_first: Opens them; None on other ranks.
        options: What the caller said.
        ranks: Who trains.

    Raises:
        InvalidInput: As ``open_checkpoints`` does.
        RankFailure: The same, on the other ranks.
    """
    opened: list[RunCheckpoints] = []

    def open_them() -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
        if open_first is not None:
            opened.append(open_first())
        return (opened[0].pending, opened[0].changed) if ranks.size > 1 else (None, ())

    pending, changed = ranks.ask_first(open_them)
    checkpoints = opened[0] if opened else RunCheckpoints(None, {}, dict, options, pending, changed)
    checkpoints.pending, checkpoints.ranks = None, ranks
    return checkpoints


def _list_changes(
    kept: Mapping[str, Any], now: Mapping[str, Any], moved: Mapping[str, Any], moving: Mapping[str, Any]
) -> dict[str, str]:
    """Return what differs, but for what moved with the run that was stopped, and what teachers hold besides."""
    before, after = dict(kept), dict(now)
    for name in moving:
        if moved.get(name) == moving[name]:  # the same objects go on, in the program that was interrupted
            before.pop(name, None)
            after.pop(name, None)
    places = {name: set(content) & set(before["teachers"].get(name, {})) for name, content in after["teachers"].items()}
    for side in (before, after):  # what a teacher holds besides is a record of calls
        side["teachers"] = {
            name: {place: value for place, value in content.items() if name not in places or place in places[name]}
            for name, content in side["teachers"].items()
        }
    return compare_records(before, after)


def _require_allowed(changes: Mapping[str, str], allowed: Sequence[str], folder: Path, step: int) -> list[str]:
    """Return the keys that differ and may; versions and threads may, and are told."""
    machine = [phrase for key, phrase in changes.items() if key.startswith("machine.")]
    if machine:
        warnings.warn(
            f"The run goes on, but its last digits may not be those that it would have had: {'; '.join(machine)}.",
            stacklevel=4,
        )
    mine = {key: phrase for key, phrase in changes.items() if not key.startswith("machine.")}
    refused = select_refused(mine, allowed)
    if refused:
        phrases = [*refused.values()][:_MOST_CHANGES]
        phrases += [f"and {len(refused) - _MOST_CHANGES} more"] if len(refused) > _MOST_CHANGES else []
        key = next(iter(refused))
        raise InvalidInput(
            f"{folder} holds a run that was stopped at step {step} and is another one: {'; '.join(phrases)}. Put that "
            f"back, accept it with allow_change=['{key}'] (--allow-change {key}), begin anew with resume='never', or "
            "choose another folder."
        )
    return [*mine]
