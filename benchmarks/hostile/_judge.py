"""Runs one hostile input and says what is wrong with what came of it.

An input that is refused ends with exit code 2 and one message, and leaves every file as it was; one that is accepted
leaves what it should, with the right numbers.  Nothing prints a traceback, a word that a terminal obeys, or takes long.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np

import safekd as kd
from safekd.errors import SafekdError

from .._timing import reset_peak, resident_peak
from ._api_inputs import draw_api_input
from ._command import run_here
from ._csv_inputs import draw_csv_input
from ._damage import take_snapshot
from ._folder_inputs import draw_folder_input, draw_path_input, make_good_folder
from ._good_folders import TARGETS
from ._input import ACCEPTED, REFUSED, HostileInput
from ._parquet_inputs import draw_parquet_input
from ._table_inputs import draw_table_input
from ._toml_inputs import draw_toml_input

KINDS: dict[str, Callable[[np.random.Generator], HostileInput]] = {
    "csv": draw_csv_input,
    "parquet": draw_parquet_input,
    "toml": draw_toml_input,
    "api": draw_api_input,
    "table": draw_table_input,
    "path": draw_path_input,
    **{target.kind: partial(draw_folder_input, target=target) for target in TARGETS},
}
SHARES = {"csv": 0.1, "parquet": 0.05, "toml": 0.05, "api": 0.05, "table": 0.4, "path": 0.05}  # folders share the rest
SECONDS = 20.0  # of the processor that an input may take; who waits instead is found by ``__main__``
MEMORY = 1 << 30  # bytes that reading one may take
Snapshot = Mapping[str, tuple[object, ...]]


@dataclass
class Judgement:
    """What came of an input: "accepted" or "refused", what is wrong with that, what it took, in bytes beyond before."""

    outcome: str
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: int = 0


def draw_input(seed: int, number: int, kind: str | None = None) -> HostileInput:
    """Return an input, of any kind or of one: the same one for the same seed, number and kind."""
    rng = np.random.default_rng([seed, number])
    if kind is not None:
        return KINDS[kind](rng)
    rest = (1 - sum(SHARES.values())) / len(TARGETS)
    return KINDS[str(rng.choice(list(KINDS), p=[SHARES.get(kind, rest) for kind in KINDS]))](rng)


def warm_up() -> Iterator[str]:
    """Compile and make what the first inputs would wait for; say so step by step."""
    for teachers in range(1, 9):
        for orderings in ([], [(0, 1)] if teachers > 1 else []):
            for dtype in (np.float64, np.float32):
                kd.project(np.ones((2, teachers), dtype), kd.WeightPolytope(teachers, orderings=orderings))
                yield f"{teachers} teachers"
    for target in TARGETS:
        for seed in (0, 1):
            make_good_folder(target, seed)
            yield f"a good {target.kind}"


def judge_input(one: HostileInput, folder: Path, most_seconds: float = math.inf) -> Judgement:
    """Run an input in an empty folder and judge it."""
    for name, data in one.files.items():
        (folder / name).write_bytes(data)
    done, wanted = ("", one.wanted) if one.prepare is None else one.prepare(folder)
    before, start, resident = take_snapshot(folder), process_time(), reset_peak() or 0
    with _change_folder(folder):
        judged = _judge_call(one, folder) if one.call is not None else _judge_command(one, folder)
    judged.seconds, judged.memory = process_time() - start, (resident_peak() or 0) - resident
    if judged.seconds > most_seconds:
        judged.faults.append(f"took {judged.seconds:.0f} seconds")
    if judged.memory > MEMORY:
        judged.faults.append(f"took {judged.memory >> 20} MiB of memory")
    if judged.outcome != wanted and wanted in (ACCEPTED, REFUSED):
        judged.faults.append(f"was {judged.outcome}, should be {wanted}")
    judged.faults += _look_at_files(one, before, take_snapshot(folder), judged.outcome)
    judged.faults = [f"{done}: {fault}" if done else fault for fault in judged.faults]
    return judged


def _judge_call(one: HostileInput, folder: Path) -> Judgement:
    assert one.call is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = one.call(folder)
    except SafekdError as error:
        text = " ".join([str(error), *getattr(error, "__notes__", [])])
        faults = [] if text.strip() else ["an error without a word"]
        if one.names and not any(name in text for name in one.names):
            faults.append(f"names none of {', '.join(one.names)}: {text[:200]}")
        return Judgement(REFUSED, faults)
    except Exception as error:
        return Judgement(REFUSED, [f"raw {type(error).__name__}: {str(error)[:200]}"])
    return Judgement(ACCEPTED, [wrong] if wrong else [])


def _judge_command(one: HostileInput, folder: Path) -> Judgement:
    ran = run_here(one.arguments)
    outcome, faults = REFUSED if ran.code == 2 else ACCEPTED, ran.find_faults()
    if outcome == ACCEPTED and ran.code in (0, 1) and one.code not in (None, ran.code):
        faults.append(f"exit code {ran.code}, wanted {one.code}")
    if outcome == ACCEPTED:
        try:
            wrong = one.look(folder)
        except Exception as error:
            wrong = f"the answer cannot be read: {type(error).__name__}: {str(error)[:200]}"
        faults += [wrong] if wrong else []
    return Judgement(outcome, faults)


def _look_at_files(one: HostileInput, before: Snapshot, after: Snapshot, outcome: str) -> list[str]:
    """Return what was lost, changed or left behind."""
    written = set(one.appears) if outcome == ACCEPTED else set()
    changed = [name for name, what in before.items() if name not in written and after.get(name) != what]
    faults = [f"{name} was lost or changed" for name in changed]
    if there := sorted(name for name in set(after) - set(before) if Path(name).parts[0] not in written):
        faults.append(f"left behind: {there}")
    if outcome == ACCEPTED and (missing := sorted(set(one.appears) - set(after))):
        faults.append(f"missing: {missing}")
    return faults


def compare_with_a_shell(one: HostileInput, here: Path, there: Path) -> list[str]:
    """Run an input in a process of its own, in an empty folder ``there``; return what differs from ``here``."""
    for name, data in one.files.items():
        (there / name).write_bytes(data)
    code_here = None
    with _change_folder(here):
        for path in list(here.iterdir()):
            if path.name not in one.files and path.is_file():
                path.unlink()
        for name, data in one.files.items():
            (here / name).write_bytes(data)
        code_here = run_here(one.arguments).code
    try:
        command = [sys.executable, "-m", "safekd", *one.arguments]
        ran = subprocess.run(command, cwd=there, capture_output=True, text=True, errors="replace", timeout=300)
    except ValueError:  # no process can be given such arguments
        return []
    faults = [] if ran.returncode == code_here else [f"exit code {ran.returncode} in a shell, {code_here} here"]
    if "Traceback" in ran.stderr:
        faults.append(f"broke in a shell: {ran.stderr.strip()[-400:]}")
    for path in there.iterdir():
        if path.is_file() and path.suffix == ".csv" and path.read_bytes() != (here / path.name).read_bytes():
            faults.append(f"{path.name} is another one in a shell")
    return faults


@contextlib.contextmanager
def _change_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
