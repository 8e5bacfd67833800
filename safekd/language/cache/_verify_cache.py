"""What a cache holds, and whether it is as it was written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import InvalidInput
from ...frontier import FilesReport
from ...io.folders import MANIFEST
from ._cache_folder import TEACHER_CACHE, find_teacher_folder, is_cache, list_teachers, require_folder
from ._cache_record import HEAD, read_record
from ._cache_writer import find_damage


@dataclass(frozen=True)
class CacheInfo:
    """One teacher of a cache.

    Attributes:
        teacher: Its name.
        kind: "hidden" or "topk".
        width: Of hidden states, or how many tokens are kept.
        vocabulary: How many tokens it scores.
        dtype: Of hidden states or log-probabilities.
        examples: How many are stored.
        tokens: How many positions.
        bytes_per_token: Of the shards, without the head.
        head_bytes: Of the head, which lies there once.
        revision: What the teacher said of its revision; empty where it said nothing.
        finished: Whether all examples are there.
        folder: Where they are.
    """

    teacher: str
    kind: str
    width: int
    vocabulary: int
    dtype: str
    examples: int
    tokens: int
    bytes_per_token: float
    head_bytes: int
    revision: str
    finished: bool
    folder: str


def verify_cache(path: str | os.PathLike[str]) -> FilesReport:
    """Compare every file of a cache with the hash that was written beside it.

    Args:
        path: Folder of the cache, or of one teacher in it.

    Returns:
        A report; ``report.holds()`` says whether all is as it was written.

    Raises:
        InvalidInput: It is no cache.
    """
    checked, wrong, notes = 0, dict[str, str](), list[str]()
    for folder in _list_folders(Path(path)):
        try:
            record = read_record(require_folder(folder))
        except InvalidInput as error:
            lost = not os.path.lexists(folder / MANIFEST) and folder.is_dir() and not folder.is_symlink()
            if lost and not _list_stored(folder):
                notes.append(f"{folder.name} was begun; nothing of it is finished.")
            elif lost:
                wrong[folder.name] = (
                    f"{folder.name}: {MANIFEST} is missing, and {', '.join(_list_stored(folder)[:3])} lie there, of "
                    "which nobody knows what was written; building again asks anew."
                )
            else:
                wrong[folder.name] = f"{folder.name}: {error}"
            continue
        damage = find_damage(folder, record)
        for name in _list_stored(folder):
            if name not in record.files:
                damage[name] = f"{name} was not written there"
        wrong |= {f"{folder.name}/{name}": f"{folder.name}: {said}" for name, said in damage.items()}
        checked += len(record.files) + 1
        if not record.finished:
            notes.append(f"{folder.name} is not finished: {record.examples:,} examples so far; building goes on there.")
    return FilesReport(Path(path), TEACHER_CACHE, checked, wrong, notes)


def describe_cache(path: str | os.PathLike[str]) -> list[CacheInfo]:
    """Return what a cache holds, a record a teacher; of its files only the manifests are read.

    Args:
        path: Folder of the cache, or of one teacher in it.

    Raises:
        InvalidInput: It is no cache, or a manifest was changed.
    """
    described = []
    for folder in _list_folders(Path(path)):
        record = read_record(require_folder(folder))
        form, sizes = record.format, {name: int(stated.get("bytes", 0)) for name, stated in record.files.items()}
        head_bytes = sizes.pop(HEAD, 0)
        described.append(
            CacheInfo(
                record.name,
                form.kind,
                form.width,
                form.vocabulary,
                form.dtype,
                record.examples,
                record.positions,
                sum(sizes.values()) / max(record.positions, 1),
                head_bytes,
                str(record.teacher.get("revision") or ""),
                record.finished,
                str(folder),
            )
        )
    return described


def _list_folders(path: Path) -> list[Path]:
    if not is_cache(path):
        return [find_teacher_folder(path, None)]
    return [path / folder for folder in list_teachers(path).values()]


def _list_stored(folder: Path) -> list[str]:
    """Return the names of shards and head that lie in a folder, listed or not."""
    return sorted(path.name for pattern in ("shard-*", HEAD) for path in folder.glob(pattern))
