"""Files of runs, sweeps and frontiers against the hashes that were written beside them: whether a byte was changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from solvers.short_repr import ShortRepr

from ..errors import InvalidInput
from ..io.folders import MANIFEST, finish_replacement, lock_folder, read_manifest
from ..training import RUN
from ..training.resume import CheckpointStore
from .store import TABLE, is_sweep, read_finished_sweep, require_whole_point
from .table import read_frontier


@dataclass(frozen=True, repr=False)
class FilesReport(ShortRepr):
    """What became of the files that a run, a sweep or a frontier consists of.

    Attributes:
        path: What was looked at.
        kind: "run", "unfinished run", "sweep" or "frontier".
        checked: How many parts were compared with their hashes: files, checkpoints, or points of a sweep.
        wrong: What is wrong, by name of the part.
        notes: What a run goes on from, and what was set aside.
    """

    path: Path
    kind: str
    checked: int
    wrong: Mapping[str, str]
    notes: Sequence[str] = ()

    def holds(self) -> bool:
        """Say whether every part is as it was written."""
        return not self.wrong

    def __str__(self) -> str:
        what = f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"
        if self.holds():
            parts = "1 part is as it was" if self.checked == 1 else f"{self.checked} parts are as they were"
            lines = [f"{self.path}, {what}: {parts} written."]
        else:
            lines = [f"{self.path}, {what}, is not as it was written:", *self.wrong.values()]
        return "\n".join([*lines, *self.notes])


def verify_files(path: str | os.PathLike[str], *, repair: bool = False) -> FilesReport:
    """Compare files with the hashes that were written beside them; nothing is trained or evaluated.

    Args:
        path: Folder of a run (``fit(run_dir=)``, ``FitResult.save``, ``safekd train``), finished or stopped, folder of
            a sweep (``trace_frontier(run_dir=)``), or a CSV file of ``Frontier.to_csv``.
        repair: Whether damaged checkpoints of a run are set aside, so that it goes on from the last one that is whole.
            Of a sweep nothing needs that: ``resume="auto"`` trains damaged points again.

    Returns:
        A report; ``report.holds()`` says whether all is as it was written.

    Raises:
        InvalidInput: It is none of these, a run that was stopped before its first checkpoint, or a sweep that was not
            finished; or, with ``repair``, a run that is being written.
    """
    place = Path(path)
    if not place.is_dir():
        return FilesReport(place, "frontier", 2, _find_refusal(place.name, lambda: read_frontier(place)))
    if not is_sweep(place):
        return _verify_run(place, repair=repair)
    done = read_finished_sweep(place)
    points = sorted({*done.kept, *filter(None, done.points)})
    wrong = _find_refusal(TABLE, lambda: read_frontier(place / TABLE))
    for name in points:
        wrong |= _find_refusal(name, lambda name=name: require_whole_point(place / name, done.run_id))  # type: ignore[misc]
    return FilesReport(place, "sweep", len(points) + 4, wrong)


def _verify_run(place: Path, *, repair: bool) -> FilesReport:
    finish_replacement(place)
    store = CheckpointStore(place)
    whole = store.list_whole()
    finished = (place / MANIFEST).exists()
    if finished or not (whole or store.damaged or store.list_set_aside()):
        manifest = read_manifest(place, RUN)
        checked, wrong = len(manifest.files), manifest.find_changes()
    else:
        checked, wrong = 0, {}
    checked += len(whole)
    notes = []
    if repair and store.damaged:
        with lock_folder(place, "a repair"):
            set_aside = store.set_aside()
        notes += [f"{name} was set aside: {said}" for name, said in set_aside.items()]
        lost = max(int(name.removeprefix("step-")) for name in set_aside) - (whole[-1].step if whole else 0)
        notes += [f"Steps lost: {lost}."] if lost > 0 else []
    else:
        checked += len(store.damaged)
        wrong |= store.damaged
    if whole:
        notes.append(f"The run goes on from step {whole[-1].step}.")
    elif not finished:
        notes.append("No checkpoint is whole: the run begins anew.")
    return FilesReport(place, "run" if finished else "unfinished run", checked, wrong, notes)


def _find_refusal(name: str, read: Callable[[], object]) -> dict[str, str]:
    try:
        read()
    except InvalidInput as error:
        return {name: f"{name}: {error}"}
    return {}
