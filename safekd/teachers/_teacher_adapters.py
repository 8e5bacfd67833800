"""Teachers from what people have: a torch module, a fitted scikit-learn classifier, a function, stored rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._torch_state import ask_module, evaluation_mode
from ..data import Batch, find_name
from ..errors import InvalidInput, NotFinite
from ._teacher import require_floor, take_log


class TorchTeacher:
    """A torch module that maps inputs to logits; run in eval mode, without gradients.

    Args:
        name: What tables and messages call it.
        module: From inputs (B, ...) to logits (B, ..., V).
        columns: Which input columns it sees, for a teacher that knows only some features; None for all.
    """

    def __init__(self, name: str, module: nn.Module, columns: Sequence[int] | None = None) -> None:
        self.name, self.module, self.columns = name, module, columns

    @torch.no_grad()
    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V).

        Raises:
            NotFinite: A logit is not finite; the message names the example.
        """
        with evaluation_mode(self.module):
            logits_V = ask_module(self.module, _select_columns(batch.inputs, self.columns), f"Teacher '{self.name}'")
        if not bool((finite := torch.isfinite(logits_V)).all()):
            example = int(batch.index[(~finite).nonzero()[0, 0]])
            source = f"Teacher '{self.name}' gave logits that are not finite on '{split}', example {example}"
            raise NotFinite(source, "finite logits")
        return torch.log_softmax(logits_V.float() if logits_V.dtype.itemsize < 4 else logits_V, dim=-1)


class SklearnTeacher:
    """A fitted classifier with ``predict_proba``; it sees inputs as a float64 array.

    Args:
        name: What tables and messages call it.
        classifier: Fitted on labels numbered like the task's, or on their names.
        classes: How many classes the task has, or their names in the order of their numbers; a class that the
            classifier never saw gets probability 0.
        columns: Which input columns it was fitted on; None for all.
        floor: Smallest probability, above 0; None for 1e-6, less with very many classes.

    Raises:
        InvalidInput: It is not fitted, gives no probabilities, or was fitted on other classes.
    """

    def __init__(
        self,
        name: str,
        classifier: Any,
        classes: int | Sequence[str],
        columns: Sequence[int] | None = None,
        floor: float | None = None,
    ) -> None:
        seen = getattr(classifier, "classes_", None)
        if not hasattr(classifier, "predict_proba") or seen is None:
            raise InvalidInput(
                f"Teacher '{name}' is a {type(classifier).__name__} without predict_proba or not fitted; "
                "fit a classifier that gives probabilities first."
            )
        self._seen = np.asarray(seen)
        if not isinstance(classes, int):
            where = f"the classes of teacher '{name}'"
            self._seen = np.array([find_name(str(one), classes, "class", where) for one in self._seen])
            classes = len(classes)
        if not np.issubdtype(self._seen.dtype, np.integer) or self._seen.min() < 0 or self._seen.max() >= classes:
            raise InvalidInput(
                f"Teacher '{name}' was fitted on classes {self._seen.tolist()}, "
                f"the task has {classes}: 0 to {classes - 1}. "
                "Fit it on labels numbered like the task's, or give `classes` as the list of their names."
            )
        self.name, self.classifier, self.classes, self.columns = name, classifier, classes, columns
        self.floor = require_floor(floor, name)

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, V), float64.
        """
        p = self.classifier.predict_proba(_select_columns(batch.inputs, self.columns).cpu().double().numpy())
        p_BV = torch.zeros(len(batch), self.classes, dtype=torch.float64)
        p_BV[:, torch.as_tensor(self._seen)] = torch.as_tensor(p, dtype=torch.float64)
        return take_log(p_BV, self.name, self.floor).to(batch.inputs.device)


class CallableTeacher:
    """A function of the inputs.

    Args:
        name: What tables and messages call it.
        function: From inputs (B, ...) to rows (B, ..., V).
        gives: What the rows are, "probabilities" or "logits".
        floor: Smallest probability, above 0; None for 1e-6, less with very many classes.

    Raises:
        InvalidInput: ``gives`` is neither of the two.
    """

    def __init__(
        self, name: str, function: Callable[[Tensor], Any], gives: str = "probabilities", floor: float | None = None
    ) -> None:
        if gives not in ("probabilities", "logits"):
            raise InvalidInput(f"Teacher '{name}': gives is {gives!r}; wanted 'probabilities' or 'logits'.")
        self.name, self.function, self.gives, self.floor = name, function, gives, require_floor(floor, name)

    @torch.no_grad()
    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V).
        """
        rows_V = torch.as_tensor(self.function(batch.inputs), device=batch.inputs.device)
        if self.gives == "logits":
            rows_V = torch.softmax(rows_V, dim=-1)
        return take_log(rows_V, self.name, self.floor)


class StoredTeacher:
    """Probabilities computed elsewhere: a table with a row an example.

    A table belongs to a split by the numbers of its examples: ``kd.Split(..., numbers=rows)`` says which row is whose,
    and a ``Split.part`` keeps them.  A split without numbers is read in its order, from a table of its own size that no
    other split reads; content cannot tell whether that order is the table's.

    Args:
        name: What tables and messages call it.
        probabilities: A table (N, ..., V), or one a split by its name.
        floor: Smallest probability, above 0; None for 1e-6, less with very many classes.

    Raises:
        InvalidInput: They are no tensors.
    """

    def __init__(self, name: str, probabilities: Tensor | Mapping[str, Tensor], floor: float | None = None) -> None:
        self.name, self.floor = name, require_floor(floor, name)
        self._rows = probabilities if isinstance(probabilities, Mapping) else None
        self._only = probabilities if isinstance(probabilities, Tensor) else None
        self._read_in_order_by = ""  # the split without numbers that reads the only table
        parts = list(probabilities.values()) if isinstance(probabilities, Mapping) else [probabilities]
        wrong = [type(part).__name__ for part in parts if not isinstance(part, Tensor)]
        if wrong:
            raise InvalidInput(
                f"Teacher '{name}': stored probabilities are a {wrong[0]}; "
                "wanted a tensor (N, V), or a dictionary from split name to such a tensor."
            )

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return the stored rows of the batch's examples as log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V).

        Raises:
            InvalidInput: There are no rows for the split, or too few, or it is not known which are whose.
        """
        rows = self._only if self._rows is None else self._rows.get(split)
        if rows is None:
            raise InvalidInput(
                f"Teacher '{self.name}' has no stored rows for split '{split}'; it has {sorted(self._rows or {})}."
            )
        self._require_bound_rows(rows, batch, split)
        return take_log(rows.to(batch.inputs.device)[batch.index], self.name, self.floor)

    def _require_bound_rows(self, rows: Tensor, batch: Batch, split: str) -> None:
        """Refuse to read rows of which nobody said whose they are."""
        who = f"Teacher '{self.name}' has {len(rows)} stored rows"
        how = f"say which row is whose: kd.Split('{split}', ..., numbers=rows), with the row of each example"
        last, size, first = int(batch.index.max()), batch.split_size, self._read_in_order_by
        if last >= len(rows):
            raise InvalidInput(
                f"{who} for split '{split}', but example {last} was asked for; store one row an example, in the "
                f"split's order, or {how}."
            )
        if size is None:
            return
        if size != len(rows):
            raise InvalidInput(
                f"{who}, split '{split}' has {size} examples without numbers, so it is not known which rows are "
                f"theirs; {how}, or store one row an example, in the split's order."
            )
        if self._rows is None and first not in ("", split):
            raise InvalidInput(
                f"{who}, which split '{first}' reads in its order, and now split '{split}', both without numbers; give "
                f"a table for each, {{'{first}': ..., '{split}': ...}}, or {how}."
            )
        self._read_in_order_by = split


def _select_columns(inputs: Tensor, columns: Sequence[int] | None) -> Tensor:
    return inputs if columns is None else inputs[:, list(columns)]
