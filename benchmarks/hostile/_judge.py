"""Runs one hostile input and says what is wrong with what came of it.

An input that is refused ends with exit code 2 and one message, and leaves every file as it was; one that is accepted
leaves what it should, with the right numbers.  Nothing prints a traceback, a word that a terminal obeys, or takes long.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

import safekd as kd
from safekd.cli import main
from safekd.cli._app import FAULT
from safekd.errors import SafekdError

from ._api_inputs import draw_api_input
from ._csv_inputs import draw_csv_input
from ._input import ACCEPTED, REFUSED, HostileInput
from ._parquet_inputs import draw_parquet_input
from ._toml_inputs import draw_toml_input

KINDS = {"csv": draw_csv_input, "parquet": draw_parquet_input, "toml": draw_toml_input, "api": draw_api_input}
SHARES = (0.4, 0.2, 0.2, 0.2)  # of the inputs, by kind
SECONDS = 20.0  # that an input may take on a machine that does nothing else
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass
class Judgement:
    """What came of an input: "accepted" or "refused", and what is wrong with that."""

    outcome: str
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ran:
    """Exit code and both streams."""

    code: int
    out: str
    err: str


def draw_input(seed: int, number: int) -> HostileInput:
    """Return an input: the same one for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    return KINDS[str(rng.choice(list(KINDS), p=SHARES))](rng)


def warm_up() -> None:
    """Compile what the first inputs would wait for."""
    for teachers in range(1, 9):
        for orderings in ([], [(0, 1)] if teachers > 1 else []):
            for dtype in (np.float64, np.float32):
                kd.project(np.ones((2, teachers), dtype), kd.WeightPolytope(teachers, orderings=orderings))


def judge_input(one: HostileInput, folder: Path, most_seconds: float = math.inf) -> Judgement:
    """Run an input in an empty folder and judge it."""
    for name, data in one.files.items():
        (folder / name).write_bytes(data)
    start = perf_counter()
    with _change_folder(folder):
        judged = _judge_call(one, folder) if one.call is not None else _judge_command(one, folder)
    seconds = perf_counter() - start
    if seconds > most_seconds:
        judged.faults.append(f"took {seconds:.0f} seconds")
    if judged.outcome != one.wanted and one.wanted in (ACCEPTED, REFUSED):
        judged.faults.append(f"was {judged.outcome}, should be {one.wanted}")
    judged.faults += _look_at_files(one, folder, judged.outcome)
    return judged


def _judge_call(one: HostileInput, folder: Path) -> Judgement:
    assert one.call is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = one.call(folder)
    except SafekdError as error:
        return Judgement(REFUSED, [] if str(error).strip() else ["an error without a word"])
    except Exception as error:
        return Judgement(REFUSED, [f"raw {type(error).__name__}: {str(error)[:200]}"])
    return Judgement(ACCEPTED, [wrong] if wrong else [])


def _judge_command(one: HostileInput, folder: Path) -> Judgement:
    ran = run_here(one.arguments)
    outcome, faults = REFUSED if ran.code == 2 else ACCEPTED, []
    if ran.code not in (0, 1, 2) or (outcome == ACCEPTED and one.code not in (None, ran.code)):
        faults.append(f"exit code {ran.code}, wanted {one.code}")
    if "Traceback" in ran.out + ran.err or FAULT in ran.err:
        faults.append(f"broke: {ran.err.strip()[-400:]}")
    if outcome == REFUSED and not ran.err.strip():
        faults.append("refused without a word")
    if _OBEYED.search(ran.out + ran.err):
        faults.append("printed what a terminal obeys")
    if outcome == ACCEPTED:
        try:
            wrong = one.look(folder)
        except Exception as error:
            wrong = f"the answer cannot be read: {type(error).__name__}: {str(error)[:200]}"
        faults += [wrong] if wrong else []
    return Judgement(outcome, faults)


def _look_at_files(one: HostileInput, folder: Path, outcome: str) -> list[str]:
    """Return what was lost, changed or left behind."""
    faults = []
    written = set(one.appears) if outcome == ACCEPTED else set()
    for name, data in one.files.items():
        path = folder / name
        if name not in written and (not path.is_file() or path.read_bytes() != data):
            faults.append(f"{name} was lost or changed")
    there = {path.name for path in folder.iterdir()} - set(one.files)
    if there - written:
        faults.append(f"left behind: {sorted(there - written)}")
    if outcome == ACCEPTED and set(one.appears) - there - set(one.files):
        faults.append(f"missing: {sorted(set(one.appears) - there)}")
    return faults


def run_here(arguments: tuple[str, ...]) -> Ran:
    """Call ``safekd`` in this process."""
    before = sys.argv
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2))
    sys.argv = ["safekd", *arguments]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # what would have been a traceback
        err.write(f"Traceback: {type(error).__name__}: {error}")
        code = -1
    finally:
        sys.argv = before
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Ran(code, *texts)


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
