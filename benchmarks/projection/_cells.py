"""One cell of the table: one contender on one problem at one size, timed and checked against ours.

Series run in a child process each, so that memory is counted for one contender alone and a crash costs one series.
Cells whose estimate, by growing the last one in proportion, exceeds the budget are skipped and say so.

Axes: B rows, K teachers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._timing import PeakMemory, available_memory, time_calls
from ._cases import Case, case_of
from ._peers import OURS, Contender, contender

MODES = ("forward", "forward + backward")
_CHECKED_ROWS = 256
_PROBE = 64  # rows: one call says too much about a batch, so estimates are refined here


@dataclass(frozen=True)
class Cell:
    """What one measurement found.

    seconds: median of one call, NaN if it was not run; then ``note`` says why.  cores: how many were kept busy.
    peak: bytes beyond the data, or None.
    difference, gradient_difference: largest deviation from ours on the checked rows, None where there is none to check.
    agrees: whether both are within the contender's tolerances; NaN is not.
    """

    case: str
    contender: str
    K: int
    B: int
    mode: str
    seconds: float = math.nan
    repeats: int = 0
    cores: float = math.nan
    peak: int | None = None
    difference: float | None = None
    gradient_difference: float | None = None
    agrees: bool = True
    note: str = ""


def measure_series(
    who: str, case_name: str, classes: Sequence[int], sizes: Sequence[int], budget: float
) -> Iterator[Cell]:
    """Yield the cells of a registered contender, for each K forward first, sizes ascending."""
    for K in classes:
        yield from measure_contender(contender(who), case_of(case_name, K), sizes, budget)


def measure_contender(who: Contender, case: Case, sizes: Sequence[int], budget: float) -> Iterator[Cell]:
    """Yield the cells of any contender."""
    for mode in MODES:
        if mode == MODES[1] and not who.has_gradient:
            yield from (Cell(case.name, who.name, case.K, B, mode, note="no gradient") for B in sizes)
            continue
        last: Cell | None = None
        for B in sizes:
            if last is not None and last.B < _PROBE < B and _grown(last, B) > budget >= _grown(last, _PROBE):
                last = _measure(who, case, _PROBE, mode, budget, budget)
            cell = _skip(last, B, budget)
            if cell is None:
                cell = last = _measure(who, case, B, mode, budget, 0.0 if last is None else _grown(last, B))
            yield cell
            if math.isnan(cell.seconds) and not cell.note.startswith("skipped"):
                break


def _grown(last: Cell, B: int) -> float:
    return last.seconds * B / last.B


def _skip(last: Cell | None, B: int, budget: float) -> Cell | None:
    """Return a cell that says why this size is not run, or None to run it."""
    if last is None:
        return None
    seconds, peak = _grown(last, B), (last.peak or 0) * B / last.B
    if seconds > budget:
        note = f"skipped, about {_duration(seconds)}"
    # a first call's peak holds what is loaded once, so only larger ones can be grown
    elif last.B > 1 and peak > 0.6 * available_memory():
        note = f"skipped, about {peak / 1e9:.0f} GB"
    else:
        return None
    return Cell(last.case, last.contender, last.K, B, last.mode, note=note)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _measure(who: Contender, case: Case, B: int, mode: str, budget: float, expected: float) -> Cell:
    v_BK, c_BK = case.scores(B)
    memory = PeakMemory()
    place = {"case": case.name, "contender": who.name, "K": case.K, "B": B, "mode": mode}
    try:
        call = who.build(case, v_BK, c_BK, mode == MODES[1])
        timing = time_calls(call, budget, expected)
        peak = memory.bytes()
        answer = call() if timing.seconds <= budget / 4 else _on_checked_rows(who, case, v_BK, c_BK, mode)
    except ImportError as cause:
        return Cell(**place, note=why_missing(who, cause))
    except Exception as cause:
        return Cell(**place, note=f"does not run: {type(cause).__name__}: {str(cause).splitlines()[0][:120]}")
    found = compare(who, case, v_BK, c_BK, answer, mode == MODES[1])
    return Cell(**place, seconds=timing.seconds, repeats=timing.repeats, cores=timing.cores, peak=peak, **found)


def _on_checked_rows(who: Contender, case: Case, v_BK: Tensor, c_BK: Tensor, mode: str) -> Any:
    return who.build(case, v_BK[:_CHECKED_ROWS], c_BK[:_CHECKED_ROWS], mode == MODES[1])()


def why_missing(who: Contender, cause: ImportError) -> str:
    """Return what is missing and how to install it."""
    absent = isinstance(cause, ModuleNotFoundError) and (cause.name or "").split(".")[0] in who.packages
    if absent:
        return f"not installed: pip install {' '.join(who.packages)}"
    return f"does not import: {cause}"


def compare(who: Contender, case: Case, v_BK: Tensor, c_BK: Tensor, answer: Any, with_gradient: bool) -> dict[str, Any]:
    """Compare an answer with ours on the first rows; return difference, gradient_difference and agrees."""
    if who.tolerance is None:
        return {}
    rows = slice(0, _CHECKED_ROWS)
    reference = contender(OURS).build(case, v_BK[rows], c_BK[rows], True)()
    given = answer if with_gradient else (answer,)
    tolerances = (who.tolerance, who.gradient_tolerance)
    gaps, agrees = [], True
    for theirs, ours, tolerance in zip(given, reference, tolerances, strict=False):
        theirs_BK = theirs.detach()[rows] if isinstance(theirs, Tensor) else torch.tensor(np.asarray(theirs)[rows])
        gaps.append(float((theirs_BK - ours.detach()).abs().max()))
        agrees = agrees and tolerance is not None and gaps[-1] <= tolerance
    return {
        "difference": gaps[0],
        "gradient_difference": gaps[1] if with_gradient else None,
        "agrees": agrees,
    }
