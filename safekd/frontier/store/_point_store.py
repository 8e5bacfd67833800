"""The folder of a sweep: one folder a trained point, in which it survives.

A point's folder is written under another name, flushed, and renamed: it is there whole or not at all.
``manifest.json`` holds size and SHA-256 of every file beside it, so that a flipped bit is seen; what does not verify is
run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ...errors import InvalidInput
from ...io import write_atomically
from ...training import FitResult, save_run, save_tensors
from ...training.trace import ConstraintReading
from ._trained_point import RunSpec, TrainedPoint

_POINT, _MANIFEST, _SWEEP, _DONE = "point.json", "manifest.json", "sweep.json", "done.json"
TABLE = "frontier.csv"
# file of each field of a trained point that holds tensors
_TENSORS = {
    "student": "student.safetensors",
    "rule_state": "weighting_rule.safetensors",
    "optimizer": "optimizer.safetensors",
}
MEASURED = "teacher_probabilities"  # the part of a record that another number of threads may round otherwise


class PointStore:
    """The folder of a sweep: ``sweep.json`` says what was asked for, and every point has a folder.

    Args:
        folder: Where; made if absent.
        record: What makes the sweep the sweep it is, as plain JSON.
        resume: Whether what is there may be read.

    Raises:
        InvalidInput: The folder belongs to another sweep, or to one that was not finished and is not to be resumed.
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
            if self.finished_count:  # a sweep of which nothing is kept may be replaced by another
                self._require_same(file, record)
            if self.finished_count and not resume and not (self.folder / _DONE).exists():
                raise InvalidInput(
                    f"{self.folder} holds {self.finished_count} finished points of this sweep, which was stopped; "
                    "go on with resume='auto' (--resume), or choose another folder."
                )
            if not resume:
                self._clear()
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise InvalidInput(f"{self.folder} holds other files, but no sweep; choose another folder.")
        for stale in self.folder.glob(".*.part"):  # of a run that was killed
            shutil.rmtree(stale, ignore_errors=True)
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @property
    def finished_count(self) -> int:
        """How many runs are there whole."""
        return sum((path / _MANIFEST).exists() for path in self.folder.glob("[!.]*"))

    @property
    def resume_hint(self) -> str:
        """What someone who stopped the sweep wants to know."""
        return f"{self.folder} keeps {self.finished_count} finished runs; go on there with resume='auto' (--resume)."

    def read(self, spec: RunSpec) -> TrainedPoint | None:
        """Return the point that ``spec`` asks for, None where it is absent, damaged, or of another run."""
        folder = self.folder / spec.name
        if not folder.exists():
            return None
        try:
            require_whole(folder)
            return read_point(folder, spec)
        except (InvalidInput, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self.damaged.append(f"point {spec.name} was run again: {error}")
            return None

    def finish(self, rows: Sequence[str | None]) -> None:
        """Note that the sweep is complete, and which point each row of its table rests on."""
        with write_atomically(self.folder / _DONE) as temporary:
            temporary.write_text(json.dumps({"points": list(rows)}, indent=2) + "\n", encoding="utf-8")

    def _require_same(self, file: Path, record: Mapping[str, Any]) -> None:
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{file} is no readable JSON: {error}. Choose another folder.") from error
        if not isinstance(kept, dict):
            raise InvalidInput(f"{file} is not what a sweep writes there. Choose another folder.")
        changed = _describe_changes(kept, json.loads(json.dumps(record)))
        if changed:
            raise InvalidInput(
                f"{self.folder} holds points of another sweep: {'; '.join(changed)}. "
                "Put that back, or choose another folder."
            )

    def _clear(self) -> None:
        (self.folder / _DONE).unlink(missing_ok=True)
        for point in self.folder.glob(f"*/{_MANIFEST}"):
            shutil.rmtree(point.parent)


def write_point(folder: Path, point: TrainedPoint, result: FitResult) -> None:
    """Write the folder of a finished run: its trace and verdict, its row's student, and all that a warm start needs."""
    final = folder / point.spec.name
    part = folder / f".{point.spec.name}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir(parents=True)
        _write_files(part, point, result)
        if final.exists():  # damaged, or of another run
            shutil.rmtree(final)
        part.rename(final)
    except (InvalidInput, OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        reason = (
            str(error) if isinstance(error, InvalidInput) else f"{error}. Make room there, or choose another folder."
        )
        raise InvalidInput(f"Run {point.spec.name} cannot be kept in {folder}: {reason}") from error
    _flush(folder)


def _write_files(part: Path, point: TrainedPoint, result: FitResult) -> None:
    save_run(result, part)
    for name, file in _TENSORS.items():
        tensors = getattr(point, name)
        if tensors:
            save_tensors(tensors, part / file)
    numbers = {name: value for name, value in vars(point).items() if name not in _TENSORS}
    numbers |= {"spec": asdict(point.spec), "readings": [asdict(reading) for reading in point.readings]}
    with write_atomically(part / _POINT) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    listed = {path.name: _hash_file(path) for path in sorted(part.iterdir())}
    with write_atomically(part / _MANIFEST) as temporary:
        temporary.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def read_point(folder: Path, spec: RunSpec | None = None) -> TrainedPoint:
    """Return the point in ``folder``, floats and tensors to the last bit.

    Raises InvalidInput where it answers another run spec than ``spec``.
    """
    numbers = json.loads((folder / _POINT).read_text(encoding="utf-8"))
    stored = numbers.pop("spec")
    if spec is not None and stored != json.loads(json.dumps(asdict(spec))):
        raise InvalidInput(f"{folder} answers another run spec.")
    readings = [ConstraintReading(**reading) for reading in numbers.pop("readings")]
    files = {name: folder / file for name, file in _TENSORS.items()}
    tensors: dict[str, Any] = {name: load_file(path) for name, path in files.items() if path.exists()}
    return TrainedPoint(spec=RunSpec(**stored), readings=readings, **numbers, **tensors)


def read_row_points(folder: Path) -> list[str | None]:
    """Return which point each row of a finished sweep rests on.  Raises InvalidInput where there is no finished one."""
    file = folder / _DONE
    if not file.exists():
        raise InvalidInput(f"{folder} holds no finished sweep; finish it with resume='auto', or check the path.")
    try:
        points: list[str | None] = json.loads(file.read_text(encoding="utf-8"))["points"]
        whole = all(name is None or Path(name).name == name for name in points)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InvalidInput(f"{file} is not what a sweep writes there. Finish it again with resume='auto'.")
    return points


def require_whole(folder: Path) -> None:
    """Raise InvalidInput naming the first file that is not as the manifest has it."""
    listed = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    present = {path.name for path in folder.iterdir()} - {_MANIFEST}
    if present != set(listed):
        raise InvalidInput(f"its files are not those of its manifest: {', '.join(sorted(present ^ set(listed)))}")
    for name, wanted in listed.items():
        if _hash_file(folder / name) != wanted:
            raise InvalidInput(f"{name} is not what was written")


def _hash_file(path: Path) -> dict[str, Any]:
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


def _describe_changes(kept: Any, now: Any, place: str = "") -> list[str]:
    """Say what differs between two records, one phrase a difference."""
    if isinstance(kept, dict) and isinstance(now, dict):
        names = [*kept, *(name for name in now if name not in kept)]
        pairs = [(f"{place}.{name}".lstrip("."), kept.get(name), now.get(name)) for name in names]
        return [phrase for name, old, new in pairs for phrase in _describe_changes(old, new, name)]
    if kept == now or (place.endswith(MEASURED) and kept and now and _differ_by_rounding(kept, now)):
        return []
    return [f"`{place}` was {_shorten_json(kept)} and is now {_shorten_json(now)}"]


def _differ_by_rounding(one: Sequence[float], other: Sequence[float]) -> bool:
    """Say whether numbers differ by no more than the rounding of another number of threads."""
    return len(one) == len(other) and all(abs(a - b) <= 1e-6 for a, b in zip(one, other, strict=True))


def _shorten_json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
