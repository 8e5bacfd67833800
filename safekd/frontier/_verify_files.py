"""Files of runs, sweeps and frontiers against the hashes that were written beside them: whether a byte was changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from solvers.short_repr import ShortRepr

from ..errors import InvalidInput
from ..io import open_regular_file
from ..io.folders import finish_replacement, read_manifest
from ..training import RUN
from .store import TABLE, is_sweep, read_finished_sweep, require_whole_point
from .table import read_frontier


@dataclass(frozen=True, repr=False)
class FilesReport(ShortRepr):
    """What became of the files that a run, a sweep or a frontier consists of.

    Attributes:
        path: What was looked at.
        kind: "run", "sweep" or "frontier".
        checked: How many parts were compared with their hashes: files, or points of a sweep.
        wrong: What is wrong, by name of the part.
    """

    path: Path
    kind: str
    checked: int
    wrong: Mapping[str, str]

    def holds(self) -> bool:
        """Say whether every part is as it was written."""
        return not self.wrong

    def __str__(self) -> str:
        if self.holds():
            return f"{self.path}, a {self.kind}: {self.checked} parts are as they were written."
        return f"{self.path}, a {self.kind}, is not as it was written:\n" + "\n".join(self.wrong.values())


def verify_files(path: str | os.PathLike[str]) -> FilesReport:
    """Compare files with the hashes that were written beside them; nothing is trained or evaluated.

    Args:
        path: Folder of a run (``fit(run_dir=)``, ``FitResult.save``, ``safekd train``), folder of a sweep
            (``trace_frontier(run_dir=)``), or a CSV file of ``Frontier.to_csv``.

    Returns:
        A report; ``report.holds()`` says whether all is as it was written.

    Raises:
        InvalidInput: It is none of these, or a run or a sweep that was not finished.
    """
    place = Path(path)
    if not place.is_dir():
        open_regular_file(place).close()
        return FilesReport(place, "frontier", 2, _find_refusal(place.name, lambda: read_frontier(place)))
    if not is_sweep(place):
        finish_replacement(place)
        manifest = read_manifest(place, RUN)
        return FilesReport(place, "run", len(manifest.files), manifest.find_changes())
    done = read_finished_sweep(place)
    points = sorted({*done.kept, *filter(None, done.points)})
    wrong = _find_refusal(TABLE, lambda: read_frontier(place / TABLE))
    for name in points:
        wrong |= _find_refusal(name, lambda name=name: require_whole_point(place / name, done.run_id))  # type: ignore[misc]
    return FilesReport(place, "sweep", len(points) + 4, wrong)


def _find_refusal(name: str, read: Callable[[], object]) -> dict[str, str]:
    try:
        read()
    except InvalidInput as error:
        return {name: f"{name}: {error}"}
    return {}
