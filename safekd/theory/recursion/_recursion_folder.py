"""The folder of a recursion: a run folder a generation, and a record of what was asked for.

Generations are written by ``ConstrainedTrainer.fit(run_dir=)``, so that one that is interrupted goes on from its own
checkpoint; finished ones are read back to the last bit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from ...errors import InvalidInput
from ...fingerprints import compare_records
from ...io import write_csv
from ...io.folders import read_checked_json, write_checked_json
from ...training import FitResult
from ._generation_trace import Generation, tabulate_generations

Resume = Literal["auto", "never", "must"]
_RECORD, _TABLE = "recursion.json", "recursion.csv"


class RecursionFolder:
    """What is kept of a recursion, and what of it can be read back.

    Args:
        folder: Exists, and is locked.
        record: What makes the recursion the one it is, as plain JSON.
        resume: "auto" to read finished generations, "must" to refuse to begin anew, "never" to begin anew.

    Raises:
        InvalidInput: The folder holds another recursion, or none where one must be gone on with.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], resume: Resume) -> None:
        self.folder, self._record, self.finished = folder, json.loads(json.dumps(record)), 0
        file = folder / _RECORD
        if not file.exists():
            if resume == "must":
                raise InvalidInput(f"{folder} holds no recursion to go on with; use resume='auto', or check the path.")
        elif resume != "never":
            kept = read_checked_json(file)
            if changes := compare_records(kept.get("asked", {}), self._record):
                raise InvalidInput(
                    f"{folder} holds generations of another recursion: {'; '.join(list(changes.values())[:6])}. Put "
                    "that back, choose another folder, or begin anew with resume='never'."
                )
            self.finished = int(kept.get("finished", 0))
        self._write()

    def place(self, number: int) -> Path:
        """Return the run folder of a generation.

        Args:
            number: From 0.
        """
        return self.folder / f"generation-{number:03d}"

    def read(self, number: int, student: nn.Module) -> FitResult | None:
        """Return a finished generation; None where it was not finished or its files are not as they were written.

        A generation that is missing makes all that follow it be trained again.

        Args:
            number: From 0.
            student: Built as for the run; gets the parameters.
        """
        if number >= self.finished:
            return None
        try:
            return FitResult.load(self.place(number), student)
        except InvalidInput:
            self.finished = number
            return None

    def finish(self, generations: Sequence[Generation]) -> None:
        """Note that another generation is there whole.

        Args:
            generations: All of them so far.
        """
        self.finished = max(self.finished, len(generations))
        write_csv(tabulate_generations(generations), self.folder / _TABLE)
        self._write()

    def _write(self) -> None:
        write_checked_json({"asked": self._record, "finished": self.finished}, self.folder / _RECORD)


def require_run_dir(run_dir: Any, resume: Any) -> Path:
    """Return the folder of a recursion.

    Args:
        run_dir: A path.
        resume: "auto", "never" or "must".

    Raises:
        InvalidInput: One of them is none.
    """
    if not isinstance(run_dir, (str, os.PathLike)) or not os.fspath(run_dir):
        raise InvalidInput(f"`run_dir` is {run_dir!r}; wanted a folder for the generations, or None to keep none.")
    if resume not in get_args(Resume):
        raise InvalidInput(f"`resume` is {resume!r}; wanted 'auto', 'never' or 'must'.")
    return Path(run_dir)
