"""The folder of one run: checked and locked before anything is trained, filled at the end, all files together."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ...distributed import Ranks
from ...errors import InvalidInput
from ...io.folders import (
    MANIFEST,
    finish_replacement,
    lock_folder,
    read_manifest,
    replace_files,
    require_no_folders,
    require_room,
)
from .._fit_result import FURTHER_STUDENTS, FitResult
from ..result_files import RUN, TRACE_LINES, TRACE_TABLE, VERDICT, remove_stale_report, require_tensors
from ..resume import CheckpointStore
from ..trace import JsonlWriter

_UNFINISHED = ".unfinished-trace.jsonl"  # the growing trace of a run whose folder holds a finished one
_SMALL_FILES = 2**20  # bytes that trace, verdict and manifest need, generously


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run that lasts.

    Attributes:
        folder: The folder, locked.
        trace_writer: A callback that writes the trace as it grows.
    """

    folder: Path
    trace_writer: JsonlWriter

    def require_fits(self, student: nn.Module) -> None:
        """Raise InvalidInput where the student of the run cannot be kept here.

        Args:
            student: What will be written.

        Raises:
            InvalidInput: The disk has no room, or the student has what a file cannot hold.
        """
        state = student.state_dict()
        require_tensors(state, "A run folder")
        size = sum(value.numel() * value.element_size() for value in state.values())
        require_room(self.folder, (1 + len(FURTHER_STUDENTS)) * size + _SMALL_FILES)

    def list_files(self) -> list[Path]:
        """Return the paths of the files of the run that is kept here."""
        return [self.folder / name for name in sorted(read_manifest(self.folder, RUN).files)]

    def keep(self, result: FitResult, write_more: Callable[[Path], object] | None = None) -> FitResult:
        """Write a result in place of what was there, and hand it back; whatever goes wrong, the result is not lost.

        Args:
            result: Of the run.
            write_more: Writes further files of the run into the folder that it is given.

        Returns:
            The result; ``save_note`` says why the folder does not hold it, where it could not be written.
        """
        try:
            with replace_files(self.folder, RUN) as part:
                result.write_files(part)
                if write_more is not None:
                    write_more(part)
            remove_stale_report(self.folder)
            CheckpointStore(self.folder).clear()
        except Exception as error:  # hours of training stand against a folder
            note = (
                f"{self.folder} does not hold this run: {error} The result is whole; keep it by "
                "FitResult.save in another folder."
            )
            warnings.warn(note, stacklevel=3)
            return replace(result, save_note=note)
        return result


@contextmanager
def open_run_folder(run_dir: str | os.PathLike[str] | RunFolder) -> Iterator[RunFolder]:
    """Hold the folder of a run while it lasts, after a look whether it can be written to.

    A finished run that lies there stays as it is until this one is kept.  Where there is none, trace.jsonl grows in
    the folder itself, and is what a killed run leaves.

    Args:
        run_dir: The folder, made if absent; one that is open is yielded as it is.

    Yields:
        The folder.

    Raises:
        InvalidInput: It cannot be written to, or is in use by another run.
    """
    if isinstance(run_dir, RunFolder):
        yield run_dir
        return
    if not isinstance(run_dir, (str, os.PathLike)) or not os.fspath(run_dir):
        raise InvalidInput(f"`run_dir` is {run_dir!r}; wanted a folder for the files of the run, or None to keep none.")
    folder = Path(run_dir)
    with lock_folder(folder, "a training run"):
        finish_replacement(folder)
        require_no_folders(folder, (TRACE_LINES, TRACE_TABLE, VERDICT, MANIFEST, "student.safetensors"))
        beside = folder / _UNFINISHED
        beside.unlink(missing_ok=True)  # of a run that was killed
        try:
            yield RunFolder(folder, JsonlWriter(beside if (folder / MANIFEST).exists() else folder / TRACE_LINES))
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


@contextmanager
def open_on_first_rank(
    run_dir: str | os.PathLike[str] | RunFolder | None, student: nn.Module | None, ranks: Ranks
) -> Iterator[RunFolder | None]:
    """Hold the folder of a run of several processes on rank 0, which alone writes.

    Args:
        run_dir: As ``open_run_folder`` takes it; None for no folder.
        student: What will be kept there; None where that is not known yet.
        ranks: Who takes part.

    Yields:
        The folder; None on other ranks, and where none was asked for.

    Raises:
        InvalidInput: It cannot be written to, is in use, or has no room.
        RankFailure: The same, on the other ranks.
    """
    with ExitStack() as stack:
        opened: list[RunFolder] = []

        def open_folder() -> None:
            if run_dir is not None:
                opened.append(stack.enter_context(open_run_folder(run_dir)))
                if student is not None:
                    opened[0].require_fits(student)

        ranks.ask_first(open_folder)
        yield opened[0] if opened else None
