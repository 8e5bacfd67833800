"""A student out of a run folder, ready to be called on new rows.  Axes: N rows, F features, C classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from solvers.short_repr import ShortRepr

from .._torch_state import evaluation_mode
from ..data import Split
from ..errors import InvalidInput
from ..io.folders import read_manifest
from ..safety import Certificate
from ..training import FitResult
from ._student_spec import STUDENT_SPEC, StudentSpec

Which = Literal["final", "best_feasible", "most_feasible", "best_validated"]
Rows = pd.DataFrame | Mapping[str, Sequence[float]] | NDArray[Any] | Tensor | Sequence[Sequence[float]]


@dataclass(frozen=True, repr=False)
class SavedStudent(ShortRepr):
    """A student that was trained elsewhere: called with rows as they stand in a table, it gives probabilities.

    Attributes:
        folder: The run folder.
        result: The run: verdict, trace, certificates; its ``student`` is the module.
        spec: Features, scaling, names and making; None for a run of a module of the caller's own.
        student: The module, in eval mode; it takes standardized features and gives logits.
    """

    folder: Path
    result: FitResult
    spec: StudentSpec | None
    student: nn.Module

    @property
    def certificates(self) -> Sequence[Certificate]:
        """What held-out data were found to prove of it."""
        return self.result.certificates

    @property
    def judged(self) -> FitResult:
        """What ``certify`` takes: this student, with the marks of all data that its run used."""
        return replace(self.result, student=self.student)

    @property
    def features(self) -> list[str]:
        """Names of the columns that it reads, in their order."""
        return list(self.require_spec().features)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the probabilities."""
        return list(self.require_spec().classes)

    def __call__(self, rows: Rows) -> NDArray[np.float32]:
        """Return the probability of every class for every row, (N, C).

        Args:
            rows: Features as they stand in a table, before any scaling: a DataFrame or dictionary with a column a
                feature, in any order, others left aside; or numbers (N, F) in the order of ``features``.  For a run of
                a module of the caller's own: what the module takes.

        Raises:
            InvalidInput: A feature is missing, or a value is no finite number.
        """
        inputs = _read_tensor(rows) if self.spec is None else torch.from_numpy(self._scale(rows))
        with evaluation_mode(self.student), torch.no_grad():
            logits = self.student(inputs)
            return torch.softmax(logits.float(), dim=-1).numpy()

    def predict(self, rows: Rows) -> pd.DataFrame:
        """Return the most probable class and the probability of every class, one row each.

        Args:
            rows: As for a call.

        Returns:
            Columns "predicted" and "probability: CLASS"; the index is that of ``rows`` where it has one.

        Raises:
            InvalidInput: As by a call.
        """
        spec, p_NC = self.require_spec(), self(rows)
        columns: dict[str, Any] = {"predicted": np.array(spec.classes)[p_NC.argmax(-1)]}
        columns |= {f"probability: {name}": p_NC[:, c] for c, name in enumerate(spec.classes)}
        return pd.DataFrame(columns, index=rows.index if isinstance(rows, pd.DataFrame) else None)

    def build_split(
        self,
        name: str,
        x_NF: NDArray[Any],
        labels: Sequence[str],
        context_N: NDArray[Any],
        groups: Sequence[str] | None = None,
    ) -> Split:
        """Return labeled rows as a split that ``certify`` takes, features standardized.

        Args:
            name: Of the split.
            x_NF: Features as they stand in a table.
            labels: Names of classes, one a row.
            context_N: Numbers of contexts, (N,), as ``spec.context_rule`` reads them from a file.
            groups: Names of groups, one a row, of which certificates count each once; None where rows are independent.

        Raises:
            InvalidInput: A label is no class of the student's.
        """
        spec = self.require_spec()
        known = {label: number for number, label in enumerate(spec.classes)}
        if unknown := [label for label in labels if label not in known]:
            raise InvalidInput(f"'{unknown[0]}' is no class of the student; there are: {', '.join(spec.classes[:20])}.")
        return Split(
            name,
            torch.from_numpy(spec.scaling.scale(x_NF)),
            torch.tensor([known[label] for label in labels]),
            context=torch.from_numpy(context_N.astype(np.int64)),
            context_names=spec.contexts,
            class_names=spec.classes,
            cluster=None if groups is None else torch.from_numpy(np.unique(list(groups), return_inverse=True)[1]),
        )

    def _scale(self, rows: Rows) -> NDArray[np.float32]:
        spec = self.require_spec()
        if isinstance(rows, Mapping):
            try:
                rows = pd.DataFrame(rows)
            except ValueError as error:
                raise InvalidInput(f"The rows are no table: {error}. Wanted a list of numbers a feature.") from error
        if isinstance(rows, pd.DataFrame):
            if missing := [name for name in spec.features if name not in rows.columns]:
                raise InvalidInput(
                    f"The rows lack {len(missing)} of {len(spec.features)} features: {', '.join(missing[:5])}"
                    f"{', ...' * (len(missing) > 5)}; they have: {', '.join(map(str, rows.columns[:10]))}."
                )
            rows = rows[spec.features].to_numpy()
        try:
            x_NF = np.asarray(rows.detach().cpu() if isinstance(rows, Tensor) else rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"The rows hold something that is no number: {error}.") from error
        if x_NF.ndim != 2 or x_NF.shape[1] != len(spec.features):
            raise InvalidInput(
                f"The rows have shape {x_NF.shape}; wanted (N, {len(spec.features)}): one column a feature, in this "
                f"order: {', '.join(spec.features[:10])}{', ...' * (len(spec.features) > 10)}."
            )
        bad = np.argwhere(~np.isfinite(x_NF))
        if len(bad):
            row, column = bad[0]
            raise InvalidInput(
                f"Row {row}, feature '{spec.features[column]}': found {x_NF[row, column]}, wanted a finite number."
            )
        return spec.scaling.scale(x_NF)

    def require_spec(self) -> StudentSpec:
        """Return what names its features and classes.

        Raises:
            InvalidInput: The run was one of a module of the caller's own.
        """
        if self.spec is None:
            raise InvalidInput(
                f"{self.folder} was written by a run of your own module, which names no features and no classes; call "
                "the student with what that module takes."
            )
        return self.spec


def _read_tensor(rows: Any) -> Tensor:
    try:
        return torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"The rows are a {type(rows).__name__}, which is no tensor: {error}. The run was one of your own module; "
            "give what it takes."
        ) from error


def load(run: str | os.PathLike[str], *, student: nn.Module | None = None, which: Which = "final") -> SavedStudent:
    """Return the student of a run folder as a callable: rows of a table in, probabilities out.

    Args:
        run: The folder that ``safekd train``, ``fit(run_dir=)`` or ``FitResult.save`` wrote.
        student: A module built as for the run, where the run was not that of an experiment file.
        which: The student handed back, "final"; or the "best_feasible", "most_feasible" or "best_validated" one.

    Raises:
        InvalidInput: The folder holds no finished run, a file in it was changed, ``student`` is needed or does not fit,
            or the run kept no such student.
    """
    folder = Path(run)
    if which not in get_args(Which):
        raise InvalidInput(f"`which` is {which!r}; wanted {', '.join(get_args(Which))}.")
    manifest = read_manifest(folder, "run")
    spec = StudentSpec.load(folder) if STUDENT_SPEC in manifest.files else None
    module = spec.build_student() if student is None and spec is not None else student
    if module is None:
        raise InvalidInput(
            f"{folder} was written by a run of a module of its own, and does not say how to build it; give one that is "
            "built the same: kd.load(run, student=module)."
        )
    result = FitResult.load(folder, module)
    chosen = result.student if which == "final" else getattr(result, which)
    if chosen is None:
        kept = [name for name in get_args(Which) if name == "final" or getattr(result, name) is not None]
        raise InvalidInput(f"{folder} holds no student '{which}'; its run kept: {', '.join(kept)}.")
    return SavedStudent(folder, result, spec, chosen)
