"""The folder of a sweep: one folder a trained point, in which it survives.

A point's folder is written under another name, flushed, and renamed: it is there whole or not at all.  Its manifest
holds size and SHA-256 of every file beside it and the name of the sweep; what does not verify is run again.  Each also
holds the record of the sweep, from which a damaged ``sweep.json`` is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from ...errors import InvalidInput
from ...io import is_plain_name, read_text_file, refuse_misfit, write_atomically
from ...io.folders import (
    LOCK,
    MANIFEST,
    FolderLock,
    flush_folder,
    read_checked_json,
    read_manifest,
    write_checked_json,
    write_manifest,
)
from ...training import build_checked, load_tensors, save_tensors
from ._trained_point import RunSpec, TrainedPoint

_KIND, _POINT, _SWEEP, _DONE = "trained point", "point.json", "sweep.json", "done.json"
TABLE = "frontier.csv"
_PART = ".*.part"  # a point that is not yet whole
# file of each field of a trained point that holds tensors
_TENSORS = {
    "student": "student.safetensors",
    "rule_state": "weighting_rule.safetensors",
    "optimizer": "optimizer.safetensors",
}
FindChanges = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]


class WritesFiles(Protocol):
    """What came of a run, which writes its trace and its verdict, as a ``FitResult`` does."""

    def write_files(self, folder: Path) -> None:
        """Write files into a folder that exists.

        Args:
            folder: Holds none of them.
        """


@dataclass(frozen=True)
class PlaceOfPoints:
    """Where a run of a sweep keeps its point.

    Attributes:
        lock: Of the sweep's folder, held as long as the sweep lasts.
        record: What makes the sweep the sweep it is.
        run_id: Its name.
    """

    lock: FolderLock
    record: Mapping[str, Any]
    run_id: str


def check_run_dir(run_dir: str | os.PathLike[str] | None, resume: str | bool | None) -> tuple[Path | None, bool]:
    """Return the folder of a sweep, None for none, and whether what lies there is gone on with.

    Args:
        run_dir: The folder; None for none.
        resume: "auto" or True to go on, None or False to begin afresh.

    Raises:
        InvalidInput: It is no folder, or one of them is of another kind.
    """
    if not (run_dir is None or isinstance(run_dir, (str, os.PathLike))) or run_dir == "":
        raise InvalidInput(f"`run_dir` is {run_dir!r}; wanted a folder for the runs, or None to keep none.")
    if resume not in (None, True, False, "auto"):
        raise InvalidInput(f"`resume` is {resume!r}; wanted 'auto', or None to begin afresh.")
    if resume and run_dir is None:
        raise InvalidInput("`resume` needs the folder to go on in: give `run_dir` too.")
    if run_dir is not None and Path(run_dir).exists() and not Path(run_dir).is_dir():
        raise InvalidInput(f"{run_dir} is a file; wanted a folder for the runs of a sweep. Choose another name.")
    return (None if run_dir is None else Path(run_dir)), bool(resume)


class PointStore:
    """The folder of a sweep: ``sweep.json`` says what was asked for, and every point has a folder.

    Args:
        lock: Of the folder.
        record: What makes the sweep the sweep it is, as plain JSON.
        find_changes: Says what differs between a record that was kept and this one.
        name_sweep: Makes the name of a sweep from its record.
        resume: Whether what is there may be read.

    Attributes:
        place: Where its runs keep their points; the record is the one that was kept, where there was one.

    Raises:
        InvalidInput: The folder belongs to another sweep, or to one that was not finished and is not to be resumed.
    """

    def __init__(
        self,
        lock: FolderLock,
        record: Mapping[str, Any],
        find_changes: FindChanges,
        name_sweep: Callable[[Mapping[str, Any]], str],
        *,
        resume: bool,
    ) -> None:
        self.folder = folder = lock.folder
        self.notes: list[str] = []
        others = [path.name for path in folder.iterdir() if path.name != LOCK and not fnmatch(path.name, _PART)]
        kept = self._read_record()
        if kept is not None and self.finished_count:  # a sweep of which nothing is kept may be replaced by another
            if changed := find_changes(kept, json.loads(json.dumps(record))):
                raise InvalidInput(
                    f"{folder} holds points of another sweep: {'; '.join(changed)}. "
                    "Put that back, or choose another folder."
                )
            if not resume and not (folder / _DONE).exists():
                raise InvalidInput(
                    f"{folder} holds {self.finished_count} finished points of this sweep, which was stopped; "
                    "go on with resume='auto' (--resume), or choose another folder."
                )
            record = kept
        if kept is None and others and others != [_SWEEP]:
            raise InvalidInput(f"{folder} holds other files, but no sweep; choose another folder.")
        if not resume:
            self._clear()
        for stale in folder.glob(_PART):  # of a run that was killed
            shutil.rmtree(stale, ignore_errors=True)
        self.place = PlaceOfPoints(lock, record, name_sweep(record))
        write_checked_json(record, folder / _SWEEP)

    @property
    def finished_count(self) -> int:
        """How many runs are there whole."""
        return len(_list_points(self.folder))

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
            require_whole_point(folder, self.place.run_id)
            return read_point(folder, spec)
        except InvalidInput as error:
            self.notes.append(f"point {spec.name} was run again: {error}")
            return None

    def finish(self, points: Sequence[str | None], rows: Sequence[Mapping[str, Any]]) -> None:
        """Note that the sweep is complete: which point each row of its table rests on, and what else the row says."""
        kept = [point.name for point in _list_points(self.folder)]
        record = _hash_record(read_checked_json(self.folder / _SWEEP))
        done = {"run_id": self.place.run_id, "record": record, "points": list(points), "kept": kept, "rows": list(rows)}
        write_checked_json(done, self.folder / _DONE)

    def _read_record(self) -> dict[str, Any] | None:
        """Return the record of the sweep that lies here, from its points where its own file is damaged; None for none.

        Raises:
            InvalidInput: There is a file of that name, and neither it nor any point says which sweep this is.
        """
        file, damage = self.folder / _SWEEP, None
        if file.exists():
            try:
                return read_checked_json(file)
            except InvalidInput as error:
                damage = error
        for point in _list_points(self.folder):
            try:
                run_id = read_manifest(point, _KIND).about.get("run_id")
                require_whole_point(point, run_id)
                record = read_checked_json(point / _SWEEP)
            except InvalidInput:
                continue
            self.notes.append(f"{_SWEEP} was made anew from point {point.name}: {damage or 'it was missing'}")
            return record
        if damage is not None and any(path.is_dir() for path in self.folder.glob("[!.]*")):
            raise InvalidInput(f"{file} is not what a sweep writes there: {damage} Choose another folder.")
        return None

    def _clear(self) -> None:
        """Remove what a sweep wrote here, and nothing else."""
        for name in (_DONE, TABLE, f"{TABLE}.meta.json"):
            (self.folder / name).unlink(missing_ok=True)
        for point in _list_points(self.folder):
            _remove_own_files(point)


def write_point(place: PlaceOfPoints, point: TrainedPoint, result: WritesFiles) -> None:
    """Write the folder of a finished run: its trace and verdict, its row's student, and all that a warm start needs."""
    folder = place.lock.folder
    final = folder / point.spec.name
    part = folder / f".{point.spec.name}.{secrets.token_hex(4)}.part"
    try:
        _require_held(place)
        part.mkdir()
        _write_files(part, place, point, result)
        _require_held(place)
        if final.exists():  # damaged, or of another run
            _remove_own_files(final)
        if final.exists():  # what somebody else put there
            final.rename(folder / f"{final.name}.set-aside-{secrets.token_hex(4)}")
        part.rename(final)
    except (InvalidInput, OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        reason = (
            str(error) if isinstance(error, InvalidInput) else f"{error}. Make room there, or choose another folder."
        )
        raise InvalidInput(f"Run {point.spec.name} cannot be kept in {folder}: {reason}") from error
    flush_folder(folder)


def _require_held(place: PlaceOfPoints) -> None:
    if not place.lock.is_held():
        raise InvalidInput("the sweep that asked for this run has ended, or its lock file was removed.")


def _write_files(part: Path, place: PlaceOfPoints, point: TrainedPoint, result: WritesFiles) -> None:
    result.write_files(part)
    for name, file in _TENSORS.items():
        tensors = getattr(point, name)
        if tensors:
            save_tensors(tensors, part / file)
    numbers = {name: value for name, value in vars(point).items() if name not in _TENSORS}
    numbers |= {"spec": asdict(point.spec), "readings": [asdict(reading) for reading in point.readings]}
    numbers["validation"] = [asdict(reading) for reading in point.validation]
    with write_atomically(part / _POINT) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    write_checked_json(place.record, part / _SWEEP)
    write_manifest(part, _KIND, {"run_id": place.run_id})


def read_point(folder: Path, spec: RunSpec | None = None) -> TrainedPoint:
    """Return the point in ``folder``, floats and tensors to the last bit.

    Raises InvalidInput where it answers another run spec than ``spec``, or a file is not what a sweep writes.
    """
    files = {name: folder / file for name, file in _TENSORS.items()}
    tensors: dict[str, Any] = {name: load_tensors(path) for name, path in files.items() if os.path.lexists(path)}
    with refuse_misfit(folder / _POINT, "what a sweep writes there"):
        numbers = json.loads(read_text_file(folder / _POINT))
        if spec is not None and numbers["spec"] != json.loads(json.dumps(asdict(spec))):
            raise InvalidInput(f"{folder} answers another run spec.")
        if odd := {*numbers} & {*_TENSORS}:
            raise ValueError(f"it holds {min(odd)}")
        return build_checked(TrainedPoint, numbers, **tensors)


def require_whole_point(folder: Path, run_id: str | None) -> None:
    """Raise InvalidInput naming every file that is not as it was written, or where the point is of another sweep."""
    manifest = read_manifest(folder, _KIND)
    manifest.require_whole(others_allowed=False)
    if manifest.about.get("run_id") != run_id:
        raise InvalidInput(f"{folder} is of sweep {manifest.about.get('run_id')}, not of {run_id}.")


@dataclass(frozen=True)
class FinishedSweep:
    """What the folder of a finished sweep says of its table.

    Attributes:
        run_id: Name of the sweep.
        points: Which point each row rests on, None for rows without one.
        kept: All points that lay there, those that no row rests on too.
        rows: What each row says besides, as ``PointStore.finish`` was given it.
    """

    run_id: str
    points: Sequence[str | None]
    kept: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


def is_sweep(folder: Path) -> bool:
    """Say whether a folder is that of a sweep, finished or not."""
    return (folder / _SWEEP).exists() and not (folder / MANIFEST).exists()


def read_finished_sweep(folder: Path) -> FinishedSweep:
    """Return what a finished sweep noted.  Raises InvalidInput where there is none, or its files were changed."""
    file = folder / _DONE
    if not file.exists():
        raise InvalidInput(f"{folder} holds no finished sweep; finish it with resume='auto', or check the path.")
    try:
        done = read_checked_json(file)
        points, kept, rows, run_id, _ = (done[name] for name in ("points", "kept", "rows", "run_id", "record"))
        whole = len(points) == len(rows) and all(
            map(is_plain_name, [*kept, *(name for name in points if name is not None)])
        )
        whole = whole and isinstance(run_id, str) and all(isinstance(row, dict) for row in rows)
        cause = "its lists do not belong together."
    except (InvalidInput, KeyError, TypeError) as error:
        whole, cause = False, str(error)
    if not whole:
        raise InvalidInput(f"{file} is not what a sweep writes there: {cause} Finish it again with resume='auto'.")
    if _hash_record(read_checked_json(folder / _SWEEP)) != done["record"]:
        raise InvalidInput(f"{folder / _SWEEP} is that of another sweep than {file}. Trace it again, or copy both.")
    return FinishedSweep(run_id, points, kept, rows)


def _hash_record(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _list_points(folder: Path) -> list[Path]:
    """Return the folders of points that a sweep wrote here, whole or damaged, by name."""
    # a link leads to somebody else's files
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir() and not path.is_symlink() and _is_point(path))


def _is_point(folder: Path) -> bool:
    """Say whether a folder is one that ``write_point`` wrote: a manifest of a web page, say, makes none."""
    if not os.path.lexists(folder / MANIFEST):
        return False
    try:
        read_manifest(folder, _KIND)
    except InvalidInput:
        return os.path.lexists(folder / _POINT)
    return True


def _remove_own_files(folder: Path) -> None:
    """Remove the files that ``write_point`` wrote, and the folder where it then is empty."""
    names = {_POINT, _SWEEP, MANIFEST, "trace.csv", "trace.jsonl", "verdict.json", *_TENSORS.values()}
    with suppress(InvalidInput):
        names |= set(read_manifest(folder, _KIND).files)
    for name in names:
        with suppress(IsADirectoryError, PermissionError, NotADirectoryError):
            (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
