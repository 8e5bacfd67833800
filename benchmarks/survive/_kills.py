"""Runs that are killed, once or twice, and gone on with: do they end as the run that nobody killed?

Each run is a process of its own, forked from one in which torch is loaded and nothing was trained.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import safekd as kd
from safekd.training.resume import CheckpointStore

from ._crash_points import AFTER, BEFORE, HALFWAY, CrashPoints
from ._runs import contents_but_clock, make_split, make_trainer

EVERY = 5  # steps between checkpoints


@dataclass(frozen=True)
class Way:
    """A kind of run.

    Attributes:
        name: In the report.
        trainer: See ``make_trainer``.
        epochs: Of each training.
        tighten: Makes what raises thresholds; None for nothing.
    """

    name: str
    trainer: str
    epochs: int
    tighten: Callable[[], object] | None = None


WAYS = (
    Way("minibatches, dropout, batch normalization", "minibatches", 8),
    Way("full batches", "full batches", 40),
    Way("independent batches", "independent batches", 8),
    Way("a schedule, momentum", "schedule", 8),
    Way("microbatches", "microbatches", 8),
    Way("a rule that learns", "learned rule", 8),
    Way("CrossFit", "schedule", 4, lambda: kd.CrossFit(folds=2, rounds=2, highest=0.7)),
    Way("Tighten", "schedule", 4, lambda: kd.Tighten(folds=0, attempts=3, highest=0.6, confidence=0.6)),
)


@dataclass
class Outcome:
    """What came of one run that was killed.

    Attributes:
        way: Its kind.
        where: Each place where it was killed.
        fault: What differs from the run that nobody killed; empty where nothing does.
    """

    way: str
    where: list[str] = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True)
class Whole:
    """The run that nobody kills.

    Attributes:
        contents: Its files, without readings of clock and memory.
        seconds: That it lasts.
        calls: How often it comes to each crash point.
    """

    contents: dict[str, object]
    seconds: float
    calls: dict[str, int]


def fit(way: Way, folder: Path, start: int) -> None:
    """Train, or go on.

    Args:
        way: The kind of run.
        folder: That keeps it.
        start: Where the student begins, which matters only where there is no checkpoint.
    """
    trainer = make_trainer(way.trainer, start=start, at_least=0.2 if way.tighten else 0.5)
    trainer.fit(
        make_split("train", 70, 1),
        make_split("validation", 200, 2),
        epochs=way.epochs,
        trace_every=7,
        snapshots=6,
        tighten=None if way.tighten is None else way.tighten(),  # type: ignore[arg-type]
        run_dir=folder,
        checkpoint_every=EVERY,
    )


def run_apart(work: Callable[[], None], seconds: float | None = None) -> int:
    """Do something in a process of its own; return how it ended, as ``os.waitpid`` says.

    Args:
        work: What.
        seconds: After which it is killed; None to wait.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # a child that has ended waits to be asked for: its number is still its own
    return os.waitpid(child, 0)[1]


def read_whole(way: Way, folder: Path) -> Whole:
    """Return the run that nobody kills.

    Args:
        way: Its kind.
        folder: For it.
    """
    count = folder.with_suffix(".points")

    def work() -> None:
        points = CrashPoints(folder.with_suffix(".log"))
        points.install()
        fit(way, folder, 11)
        with count.open("w") as stream:
            json.dump(points.calls, stream)

    began = time.perf_counter()
    if run_apart(work):
        raise RuntimeError(f"the run that nobody kills failed: {way.name}")
    return Whole(contents_but_clock(folder), time.perf_counter() - began, json.loads(count.read_text()))


def kill_and_go_on(way: Way, whole: Whole, folder: Path, draw: random.Random, at_point: bool) -> Outcome:
    """Kill a run, every third one twice, and go on with it.

    Args:
        way: Its kind.
        whole: The run that nobody kills.
        folder: For it.
        draw: Chooses where.
        at_point: Whether at a crash point; else at a moment.
    """
    outcome = Outcome(way.name)
    for number in range(1 + (draw.random() < 1 / 3)):
        where = _kill_once(way, whole, folder, draw, at_point, 11 + number if _has_checkpoint(folder) else 11)
        if where is not None:
            outcome.where.append(where)
    if not outcome.where:
        outcome.fault = "no kill happened"
    elif run_apart(lambda: fit(way, folder, 77 if _has_checkpoint(folder) else 11)):
        outcome.fault = "it could not be gone on with"
    elif contents_but_clock(folder) != whole.contents:
        now = contents_but_clock(folder)
        names = [name for name in {*now, *whole.contents} if now.get(name) != whole.contents.get(name)]
        outcome.fault = f"differs in {', '.join(sorted(names))}"
    elif not kd.verify_files(folder).holds():
        outcome.fault = str(kd.verify_files(folder))
    elif left := [path.name for path in folder.rglob("*") if path.name.startswith(".") or path.name == "checkpoints"]:
        outcome.fault = f"left behind: {', '.join(left)}"
    return outcome


def _has_checkpoint(folder: Path) -> bool:
    return CheckpointStore(folder).find_latest() is not None


def _kill_once(way: Way, whole: Whole, folder: Path, draw: random.Random, at_point: bool, start: int) -> str | None:
    """Kill the run once; return where, and None where it failed, or ended before, twenty times in a row."""
    log = folder.with_suffix(".log")
    for attempt in range(20):
        log.unlink(missing_ok=True)
        if at_point:
            name = draw.choice(sorted(whole.calls))  # each kind as often, however many calls it has
            fatal = name, draw.randrange(max(whole.calls[name] >> attempt, 1))
            when = draw.choice((BEFORE, HALFWAY, AFTER) if name == "write" else (BEFORE, AFTER))
            status = run_apart(partial(_fit_to_crash, way, folder, start, CrashPoints(log, fatal, when)))
            where = log.read_text().strip() if log.exists() else "?"
        else:
            seconds = draw.uniform(0.0, whole.seconds) * 0.8**attempt
            status = run_apart(partial(fit, way, folder, start), seconds)
            where = f"at a random moment of the run, after {seconds:.2f} s"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return where
        if status:
            return None
        shutil.rmtree(folder, ignore_errors=True)  # it has ended: from the beginning, and earlier
        start = 11
    return None


def _fit_to_crash(way: Way, folder: Path, start: int, points: CrashPoints) -> None:
    points.install()
    fit(way, folder, start)


def kill_many(kills: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yield what came of runs that were killed, half of them at crash points.

    Args:
        kills: How many runs.
        seed: Draws them.
        folder: For all of them.
    """
    draw, wholes = random.Random(seed), {}
    for number in range(kills):
        way = WAYS[number % len(WAYS)]
        if way.name not in wholes:
            wholes[way.name] = read_whole(way, folder / f"whole-{number}")
        yield kill_and_go_on(
            way, wholes[way.name], folder / f"killed-{number}", draw, at_point=number // len(WAYS) % 2 == 0
        )
        shutil.rmtree(folder / f"killed-{number}", ignore_errors=True)
