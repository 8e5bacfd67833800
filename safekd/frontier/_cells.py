"""One training run of a sweep, and the folder in which it survives.

A cell's folder is written under another name, flushed, and renamed: it is there whole or not at all.  ``manifest.json``
holds size and SHA-256 of every file beside it, so that a flipped bit is found; what does not verify is run again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InvalidInput
from ..io import written_whole
from ..training import FEASIBLE, FitResult, WarmStart, save_run, save_tensors
from ..training.trace import ConstraintReading

Parameters = Mapping[str, Tensor]
_CELL, _MANIFEST, _SWEEP, _DONE = "cell.json", "manifest.json", "sweep.json", "done.json"
TABLE = "frontier.csv"
_TENSORS = ("student", "weights", "optimizer")
MEASURED = "what the teachers say"  # the entry of a record that another number of threads may round otherwise


@dataclass(frozen=True)
class Request:
    """A training run that a sweep asks for.

    name: of its folder.  target: threshold of the swept constraint; weight: or the fixed weight that it gets instead.
    held: thresholds of others.  tolerance: of residuals.  start: name of the cell where it begins, before: of the one
    before that, along whose line it begins; None for a cold run.  trace_every: steps between full passes, None for the
    trainer's own choice.
    """

    name: str
    seed: int | None
    target: float
    held: Mapping[str, float]
    tolerance: float
    weight: float | None = None
    start: str | None = None
    before: str | None = None
    trace_every: int | None = None


@dataclass(frozen=True)
class Cell:
    """What a run left behind: one student, and its numbers, each read on whole splits.

    status, note: as its row has them.  seed: of the trainer.  interval: steps between its full passes.
    impossible: whether it was proved that no student meets its thresholds.  wall_s: seconds it took.
    """

    request: Request
    status: str
    note: str = ""
    seed: int = 0
    loss: float = math.nan
    loss_se: float = math.nan
    readings: Sequence[ConstraintReading] = ()
    multipliers: Sequence[float] = ()
    rho: float = math.nan
    stationarity: float = math.nan
    primal: float = math.nan
    dual: float = math.nan
    complementarity: float = math.nan
    steps: int = 0
    interval: int | None = None
    impossible: bool = False
    optimizer_kind: str = ""
    wall_s: float = 0.0
    data: Sequence[Mapping[str, Any]] = ()
    student: Parameters = field(default_factory=dict)
    weights: Parameters = field(default_factory=dict)
    optimizer: Parameters = field(default_factory=dict)

    @property
    def safety(self) -> float:
        """What the swept constraint reads."""
        return self.readings[0].measured if self.readings else math.nan

    @property
    def finite(self) -> bool:
        """Whether there is a student with a loss and a safety."""
        return math.isfinite(self.loss) and all(math.isfinite(reading.measured) for reading in self.readings)

    @property
    def start(self) -> WarmStart:
        """Where a run that follows begins."""
        return WarmStart(self.student, list(self.multipliers), self.weights)

    def misses(self, target: float) -> float:
        """Return by how much the student misses ``target`` or what else was asked, 0 where all is met."""
        if not self.finite:
            return math.inf
        others = [reading.violation for reading in self.readings[1:]]
        return max([target - self.safety, 0.0, *others])

    def meets(self, target: float) -> bool:
        """Say whether the student meets ``target`` and all else that was asked, to 1e-3."""
        return self.misses(target) <= FEASIBLE


class Store:
    """The folder of a sweep: ``sweep.json`` says what was asked for, and every cell has a folder.

    resume: whether what is there may be read.  Raises InvalidInput where it belongs to another sweep, or to one that
    was not finished and is not to be resumed.
    """

    def __init__(self, folder: str | os.PathLike[str], record: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = Path(folder)
        self.damaged: list[str] = []
        file = self.folder / _SWEEP
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInput(
                f"{self.folder} is a file; wanted a folder for the runs of a sweep. Choose another name."
            )
        if file.exists():
            if self.finished:  # a sweep of which nothing is kept may be replaced by another
                self._require_same(file, record)
            if self.finished and not resume and not (self.folder / _DONE).exists():
                raise InvalidInput(
                    f"{self.folder} holds {self.finished} finished cells of this sweep, which was stopped; "
                    "go on with resume='auto' (--resume), or choose another folder."
                )
            if not resume:
                self._clear()
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise InvalidInput(f"{self.folder} holds other files, but no sweep; choose another folder.")
        for stale in self.folder.glob(".*.part"):  # of a run that was killed
            shutil.rmtree(stale, ignore_errors=True)
        with written_whole(file) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @property
    def finished(self) -> int:
        """How many runs are there whole."""
        return sum((path / _MANIFEST).exists() for path in self.folder.glob("[!.]*"))

    @property
    def said(self) -> str:
        """What someone who stopped the sweep wants to know."""
        return f"{self.folder} keeps {self.finished} finished runs; go on there with resume='auto' (--resume)."

    def read(self, request: Request) -> Cell | None:
        """Return the cell that ``request`` asks for, None where it is absent, damaged, or of another request."""
        folder = self.folder / request.name
        if not folder.exists():
            return None
        try:
            require_whole(folder)
            return read_cell(folder, request)
        except (InvalidInput, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self.damaged.append(f"cell {request.name} was run again: {error}")
            return None

    def finish(self, rows: Sequence[str | None]) -> None:
        """Note that the sweep is complete, and which cell each row of its table rests on."""
        with written_whole(self.folder / _DONE) as temporary:
            temporary.write_text(json.dumps({"cells": list(rows)}, indent=2) + "\n", encoding="utf-8")

    def _require_same(self, file: Path, record: Mapping[str, Any]) -> None:
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{file} is no readable JSON: {error}. Choose another folder.") from error
        if not isinstance(kept, dict):
            raise InvalidInput(f"{file} is not what a sweep writes there. Choose another folder.")
        changed = _changes(kept, json.loads(json.dumps(record)))
        if changed:
            raise InvalidInput(
                f"{self.folder} holds cells of another sweep: {'; '.join(changed)}. "
                "Put that back, or choose another folder."
            )

    def _clear(self) -> None:
        (self.folder / _DONE).unlink(missing_ok=True)
        for cell in self.folder.glob(f"*/{_MANIFEST}"):
            shutil.rmtree(cell.parent)


def write_cell(folder: Path, cell: Cell, result: FitResult) -> None:
    """Write the folder of a finished run: its trace and verdict, its row's student, and all that a warm start needs."""
    final = folder / cell.request.name
    part = folder / f".{cell.request.name}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir(parents=True)
        _fill(part, cell, result)
        if final.exists():  # damaged, or of another request
            shutil.rmtree(final)
        part.rename(final)
    except (InvalidInput, OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        said = str(error) if isinstance(error, InvalidInput) else f"{error}. Make room there, or choose another folder."
        raise InvalidInput(f"Run {cell.request.name} cannot be kept in {folder}: {said}") from error
    _flush(folder)


def _fill(part: Path, cell: Cell, result: FitResult) -> None:
    save_run(result, part)
    for name in _TENSORS:
        tensors = getattr(cell, name)
        if tensors:
            save_tensors(tensors, part / f"{name}.safetensors")
    numbers = {name: value for name, value in vars(cell).items() if name not in _TENSORS}
    numbers |= {"request": asdict(cell.request), "readings": [asdict(reading) for reading in cell.readings]}
    with written_whole(part / _CELL) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    listed = {path.name: _digest(path) for path in sorted(part.iterdir())}
    with written_whole(part / _MANIFEST) as temporary:
        temporary.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def read_cell(folder: Path, request: Request | None = None) -> Cell:
    """Return the cell in ``folder``, floats and tensors to the last bit.

    Raises InvalidInput where it answers another request than ``request``.
    """
    numbers = json.loads((folder / _CELL).read_text(encoding="utf-8"))
    asked = numbers.pop("request")
    if request is not None and asked != json.loads(json.dumps(asdict(request))):
        raise InvalidInput(f"{folder} answers another request.")
    readings = [ConstraintReading(**reading) for reading in numbers.pop("readings")]
    files = {name: folder / f"{name}.safetensors" for name in _TENSORS}
    tensors: dict[str, Any] = {name: load_file(path) for name, path in files.items() if path.exists()}
    return Cell(request=Request(**asked), readings=readings, **numbers, **tensors)


def cells_of_rows(folder: Path) -> list[str | None]:
    """Return which cell each row of a finished sweep rests on.  Raises InvalidInput where there is no finished one."""
    file = folder / _DONE
    if not file.exists():
        raise InvalidInput(f"{folder} holds no finished sweep; finish it with resume='auto', or check the path.")
    try:
        cells: list[str | None] = json.loads(file.read_text(encoding="utf-8"))["cells"]
        whole = all(name is None or Path(name).name == name for name in cells)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InvalidInput(f"{file} is not what a sweep writes there. Finish it again with resume='auto'.")
    return cells


def require_whole(folder: Path) -> None:
    """Raise InvalidInput naming the first file that is not as the manifest has it."""
    listed = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    found = {path.name for path in folder.iterdir()} - {_MANIFEST}
    if found != set(listed):
        raise InvalidInput(f"its files are not those of its manifest: {', '.join(sorted(found ^ set(listed)))}")
    for name, wanted in listed.items():
        if _digest(folder / name) != wanted:
            raise InvalidInput(f"{name} is not what was written")


def _digest(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def _flush(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _changes(kept: Any, now: Any, place: str = "") -> list[str]:
    """Say what differs between two records, one phrase a difference."""
    if isinstance(kept, dict) and isinstance(now, dict):
        names = [*kept, *(name for name in now if name not in kept)]
        pairs = [(f"{place}.{name}".lstrip("."), kept.get(name), now.get(name)) for name in names]
        return [phrase for name, old, new in pairs for phrase in _changes(old, new, name)]
    if kept == now or (place.endswith(MEASURED) and kept and now and _near(kept, now)):
        return []
    return [f"`{place}` was {_short(kept)} and is now {_short(now)}"]


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    """Say whether numbers differ by no more than the rounding of another number of threads."""
    return len(one) == len(other) and all(abs(a - b) <= 1e-6 for a, b in zip(one, other, strict=True))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
