"""The checkpoints of one run, each a folder that is there whole or not at all.

    RUN/checkpoints/step-000123/     student.safetensors  optimizer.safetensors  ...   tensors, a file for each part
                                     state.json                                        everything else
                                     manifest.json                                     size and SHA-256 of each file

A folder is written under a name that begins with a dot, flushed, and renamed; the newest whose manifest holds is what a
run goes on from.  The last ones are kept.  Whoever writes holds the lock of the run's folder.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from ...io.folders import MANIFEST, Manifest, flush_folder, format_manifest, hash_file, read_manifest, require_room
from ._state_encoding import decode_state, encode_state
from ._tensor_files import HashedFile, count_bytes, list_pieces, read_tensor_file

CHECKPOINTS = "checkpoints"
_KIND, _STATE, _PART = "checkpoint", "state.json", ".part"
_NAME = re.compile(r"step-(\d{6,15})")
_FILE = re.compile(r"[A-Za-z0-9_]{1,64}\.safetensors|state\.json")
_SET_ASIDE = "damaged-"


@dataclass(frozen=True)
class CheckpointSettings:
    """Numbers of the store.

    Attributes:
        keep: Checkpoints that stay: one to go on from where the last one is found damaged.
        largest_manifest: Bytes of a manifest at most: a few hundred a file, and what the run is.
        largest_state: Bytes of ``state.json`` at most; long lists of numbers stand in tensors.
    """

    keep: int = 2
    largest_manifest: int = 2**26
    largest_state: int = 2**28


SETTINGS = CheckpointSettings()


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint whose files are as they were written.

    Attributes:
        folder: Where it lies.
        step: Optimizer steps of the run so far.
        number: How many checkpoints were written in this folder up to it: the largest is the newest.
        about: What its manifest notes besides.
    """

    folder: Path
    step: int
    number: int
    about: Mapping[str, Any]


class CheckpointStore:
    """The checkpoints in the folder of a run.

    Args:
        run_folder: Exists.
        keep: How many checkpoints stay, at least 1.
        goes_on: Whether those that lie there are of the run that writes; else its first one takes their place.
        name: Of the folder inside it that holds them.

    Attributes:
        goes_on: As given; what is written from then on is of one run.
        damaged: What is wrong with each checkpoint that cannot be gone on from, by name, as ``find_latest`` found it.
    """

    def __init__(
        self, run_folder: Path, keep: int = SETTINGS.keep, *, goes_on: bool = True, name: str = CHECKPOINTS
    ) -> None:
        self.folder, self._keep, self.goes_on = run_folder / name, keep, goes_on
        self.damaged: dict[str, str] = {}

    def find_latest(self) -> StoredCheckpoint | None:
        """Return the newest checkpoint that is as it was written, None where there is none."""
        whole = self.list_whole()
        return whole[-1] if whole else None

    def list_whole(self) -> list[StoredCheckpoint]:
        """Return the checkpoints that are as they were written, the newest last; ``damaged`` tells of the others."""
        self.damaged, whole = {}, []
        for folder in self._list_folders():
            try:
                whole.append(verify_checkpoint(folder))
            except InvalidInput as error:
                if folder.exists() or folder.is_symlink():  # else its run has just taken it away
                    self.damaged[folder.name] = str(error)
        return sorted(whole, key=lambda one: one.number)

    def save(self, step: int, state: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint, then take away those that are older than the last ones.

        Args:
            step: Optimizer steps so far.
            state: Parts by name, of letters; see ``encode_state``.
            about: What the manifest notes besides, as JSON has it.

        Returns:
            Its folder.

        Raises:
            InvalidInput: It cannot be written, or holds what cannot be kept; the checkpoints before it are as they
                were.
        """
        final = self.folder / f"step-{step:06d}"
        part = self.folder / f".{final.name}.{secrets.token_hex(4)}{_PART}"
        try:
            above = self._begin()
            numbered = self._list_numbered()
            number = max((number for number, _ in numbered), default=0) + 1
            older = [one for one in numbered if one[1] != final and one[1].name not in self.damaged]
            part.mkdir()
            self._write_files(part, state, {"step": step, "number": number, **(about or {})})
            self._rename(part, final, above)
        except OSError as error:
            raise InvalidInput(
                f"Cannot keep the checkpoint of step {step} in {self.folder}: {error.strerror or error}."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        spare = max(len(older) + 1 - self._keep, 0) if self.goes_on else len(older)
        self.goes_on = True
        for _, folder in sorted(older)[:spare]:
            self._remove(folder)
        return final

    def read(self, checkpoint: StoredCheckpoint) -> dict[str, Any]:
        """Return the state of a checkpoint, bit for bit; tensors are on the processor.

        Args:
            checkpoint: Of ``find_latest``.

        Raises:
            InvalidInput: It is not what a run writes; the message names the file.
        """
        file = checkpoint.folder / _STATE
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInput(f"Cannot read {file}: {error}.") from error
        if not isinstance(record, dict):
            raise InvalidInput(f"{file} holds no state of a run: wanted an object of JSON.")
        tensors = {path.stem: read_tensor_file(path) for path in sorted(checkpoint.folder.glob("*.safetensors"))}
        try:
            return decode_state(record, tensors)
        except InvalidInput as error:
            raise InvalidInput(f"{file} holds {error}.") from error

    def set_aside(self) -> dict[str, str]:
        """Give damaged checkpoints names under which no run looks for them; return what was wrong with each.

        Raises:
            InvalidInput: One cannot be renamed.
        """
        self.list_whole()
        for name in self.damaged:
            try:
                (self.folder / name).rename(self.folder / f"{_SET_ASIDE}{name}-{secrets.token_hex(4)}")
            except OSError as error:
                raise InvalidInput(f"Cannot rename {self.folder / name}: {error.strerror or error}.") from error
        flush_folder(self.folder)
        return self.damaged

    def list_set_aside(self) -> list[str]:
        """Return the names of damaged checkpoints that were set aside."""
        return sorted(path.name for path in self.folder.glob(f"{_SET_ASIDE}*"))

    def clear(self) -> None:
        """Take away all checkpoints: the run has ended, or begins anew."""
        for folder in self._list_folders():
            self._remove(folder)
        self._remove_parts()
        with suppress(OSError):  # it is absent, or somebody put something else there
            self.folder.rmdir()

    def _begin(self) -> list[Path]:
        """Make the folder, and take away what killed writers left; return the folders that are to be flushed for it."""
        new = not self.folder.is_dir()
        if new:
            self.folder.mkdir()  # not its parents: a run folder that was removed meanwhile is not made anew
        self._remove_parts()
        return [self.folder.parent] if new else []

    def _remove_parts(self) -> None:
        for stale in self.folder.glob(f".*{_PART}"):
            shutil.rmtree(stale, ignore_errors=True)

    def _write_files(self, part: Path, state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        encoded = encode_state(state)
        text = json.dumps(encoded.record, separators=(",", ":"), allow_nan=False).encode()
        if len(text) > SETTINGS.largest_state:
            raise InvalidInput(
                f"The state of the run has {len(text):,} bytes besides its tensors; wanted at most "
                f"{SETTINGS.largest_state:,}."
            )
        sizes = {f"{name}.safetensors": count_bytes(held) for name, held in encoded.tensors.items()}
        sizes[_STATE] = len(text)
        require_room(self.folder, sum(sizes.values()) + 2**16 * len(sizes))
        pieces: dict[str, Iterable[memoryview]] = {_STATE: [memoryview(text)]}
        pieces |= {f"{name}.safetensors": list_pieces(held) for name, held in encoded.tensors.items()}
        with ExitStack() as closing, ThreadPoolExecutor(2 * len(sizes) + 2) as pool:
            # a large file is hashed while it is flushed; small ones are flushed at one moment, and the disk is waited
            # for once.  The folder holds all names by then.
            files = {name: closing.enter_context(HashedFile(part / name, size)) for name, size in sizes.items()}

            def write_large(name: str) -> Future[None]:
                files[name].write(pieces[name])
                return pool.submit(files[name].flush)

            written = [pool.submit(write_large, name) for name in files if files[name].is_large]
            small = [name for name in files if not files[name].is_large]
            for name in small:
                files[name].write(pieces[name])
            flushed = [one.result() for one in written]
            manifest = format_manifest(_KIND, about, {name: files[name].describe() for name in sorted(files)}).encode()
            small.append(MANIFEST)
            files[MANIFEST] = closing.enter_context(HashedFile(part / MANIFEST, 0))
            files[MANIFEST].write([memoryview(manifest)])
            flushed += [pool.submit(files[name].flush) for name in small]
            flush_folder(part)
            for one in flushed:
                one.result()

    def _rename(self, part: Path, final: Path, above: list[Path]) -> None:
        """Put a finished checkpoint in its place; one of the same step that lies there goes first."""
        old = None
        if final.exists() or final.is_symlink():
            old = self.folder / f".{final.name}.{secrets.token_hex(4)}{_PART}"
            final.rename(old)
        part.rename(final)
        for folder in [self.folder, *above]:
            flush_folder(folder)
        if old is not None:
            self._remove(old)

    def _list_folders(self) -> list[Path]:
        """Return what is named like a checkpoint, whole or damaged."""
        try:
            return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        except OSError:
            return []

    def _list_numbered(self) -> list[tuple[int, Path]]:
        """Return the checkpoints whose manifest can be read, with their numbers; their files are not looked at."""
        numbered = []
        for folder in self._list_folders():
            with suppress(InvalidInput):
                numbered.append((_read_about(folder)[1], folder))
        return numbered

    def _remove(self, folder: Path) -> None:
        with suppress(OSError):
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink()
            else:  # under another name first: nothing that is half removed looks like a checkpoint
                aside = self.folder / f".{folder.name.lstrip('.')}.{secrets.token_hex(4)}{_PART}"
                folder.rename(aside)
                shutil.rmtree(aside)


def verify_checkpoint(folder: Path) -> StoredCheckpoint:
    """Return a checkpoint after a look at every file.

    Args:
        folder: Named ``step-...``.

    Raises:
        InvalidInput: A file is missing, changed, no plain file or does not belong there; the message names it.
    """
    manifest, number = _read_about(folder)
    sizes = _list_files(folder)
    if more := sorted(set(sizes) - {MANIFEST, *manifest.files}):
        raise InvalidInput(f"{folder / more[0]} was not written there.")
    if missing := sorted({_STATE, *manifest.files} - set(sizes)):
        raise InvalidInput(f"{folder / missing[0]} is missing.")
    for name, stated in manifest.files.items():
        if not isinstance(stated, Mapping) or sizes[name] != stated.get("bytes") or hash_file(folder / name) != stated:
            raise InvalidInput(f"{folder / name} is not what was written.")
    return StoredCheckpoint(folder, manifest.about["step"], number, manifest.about)


def _read_about(folder: Path) -> tuple[Manifest, int]:
    """Return the manifest and the number of a checkpoint, whose other files are not looked at."""
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder, or a link to one.")
    _list_files(folder)
    manifest = read_manifest(folder, _KIND)
    step, number = manifest.about.get("step"), manifest.about.get("number")
    if type(step) is not int or type(number) is not int or folder.name != f"step-{step:06d}":
        raise InvalidInput(f"{folder / MANIFEST} is that of another checkpoint.")
    for name in manifest.files:
        if not _FILE.fullmatch(name):
            raise InvalidInput(f"{folder / MANIFEST} lists {name!r}, which is no file of a checkpoint.")
    return manifest, number


def _list_files(folder: Path) -> dict[str, int]:
    """Return the sizes of the files; refuse links, folders and devices, and texts that are too large to be read."""
    limits, sizes = {MANIFEST: SETTINGS.largest_manifest, _STATE: SETTINGS.largest_state}, {}
    try:
        for path in folder.iterdir():
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise InvalidInput(f"{path} is no plain file.")
            if found.st_size > limits.get(path.name, found.st_size):
                raise InvalidInput(f"{path} has {found.st_size:,} bytes; wanted at most {limits[path.name]:,}.")
            sizes[path.name] = found.st_size
    except OSError as error:
        raise InvalidInput(f"Cannot read {folder}: {error.strerror or error}.") from error
    return sizes
