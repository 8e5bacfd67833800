"""Teachers from what people have: a torch module, a fitted scikit-learn classifier, a function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from .._torch_state import ask_module, evaluation_mode
from ..data import Batch, Inputs, find_name
from ..errors import InvalidInput
from ._teacher import (
    name_failures,
    read_answer,
    read_distributions,
    require_floor,
    require_gives,
    require_request,
)


class TorchTeacher:
    """A torch module that maps inputs to logits; run in eval mode, without gradients.

    Logits of half types are widened before their softmax; a logit of minus infinity leaves a class out.  There is no
    floor under probabilities.

    Args:
        name: What tables and messages call it.
        module: From inputs (B, ...) to logits (B, ..., V); a dictionary of inputs it gets as keywords.
        columns: Which input columns it sees, for a teacher that knows only some features, or the names of those inputs
            that it gets of a dictionary; None for all.
        moving: Whether it changes while a student learns, as a moving average of the student does: it is then asked
            anew each batch, and nothing is kept.  A teacher that changes without this is noticed, and refused.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        columns: Sequence[int] | Sequence[str] | None = None,
        *,
        moving: bool = False,
    ) -> None:
        self.name, self.module, self.columns, self.moving = name, module, columns, moving

    @torch.no_grad()
    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V).

        Raises:
            InvalidInput: The module fails, or gives no row of logits a label.
            NotFinite: A row of logits is no distribution; the message names the example.
        """
        require_request(self.name, batch, split)
        with name_failures(self.name, batch, split), evaluation_mode(self.module):
            inputs = _select_columns(batch.inputs, self.columns, self.name)
            answer = ask_module(self.module, inputs, f"Teacher '{self.name}'")
        return read_distributions(read_answer(answer, self.name, batch), "logits", self.name, None, batch, split, None)


class SklearnTeacher:
    """A fitted classifier with ``predict_proba``; it sees inputs as a float64 array.

    Args:
        name: What tables and messages call it.
        classifier: Fitted on labels numbered like the task's, or on their names.
        classes: How many classes the task has, or their names in the order of their numbers; a class that the
            classifier never saw gets probability 0.
        columns: Which input columns it was fitted on; None for all.
        floor: Smallest probability, under which none is let fall: a class that it holds impossible would make one
            mistake infinitely expensive.  None for 1e-6, or 1e-3 / V with more than a thousand classes; 0 keeps zeros.

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

    def fingerprint(self) -> Hashable:
        """Return what changes with the classifier: a hash of all that was fitted."""
        return str(joblib.hash(self.classifier))

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, V), float64.

        Raises:
            InvalidInput: The classifier fails, or gives no distributions.
        """
        require_request(self.name, batch, split)
        inputs = _select_columns(batch.inputs, self.columns, self.name)
        if not isinstance(inputs, Tensor):
            raise InvalidInput(
                f"Teacher '{self.name}' is a {type(self.classifier).__name__}, which reads one table of numbers, and "
                f"the inputs of '{split}' are a dictionary of {', '.join(map(repr, inputs))}; wrap it in a function "
                "that makes a table of them, CallableTeacher(name, lambda inputs: ...)."
            )
        with name_failures(self.name, batch, split):
            p = self.classifier.predict_proba(inputs.cpu().double().numpy())
        p_BV = torch.zeros(len(batch), self.classes, dtype=torch.float64)
        p_BV[:, torch.as_tensor(self._seen)] = torch.as_tensor(p, dtype=torch.float64)
        p_BV = p_BV.to(batch.labels.device)
        return read_distributions(p_BV, "probabilities", self.name, self.floor, batch, split, None)


class CallableTeacher:
    """A function of the inputs.

    What it gives is widened before anything else is done with it.  Logits and log-probabilities may be minus infinity,
    which leaves a class out, and get a floor only where one is asked for; probabilities get one by default.

    Args:
        name: What tables and messages call it.
        function: From inputs (B, ...), or the dictionary of them, to rows (B, ..., V).
        gives: What the rows are, "probabilities", "logits" or "log_probabilities".
        floor: Smallest probability, under which none is let fall: a hard rule that answers exactly 0 would make one
            mistake infinitely expensive.  None for 1e-6 under probabilities, or 1e-3 / V with more than a thousand
            classes, and for none under logits; 0 keeps zeros.
        moving: Whether it changes while a student learns, as a moving average of the student does: it is then asked
            anew each batch, and nothing is kept.  A module or tensor that the function refers to and that changes
            without this is noticed, and refused.

    Raises:
        InvalidInput: ``gives`` is none of the three.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Any], Any],
        gives: str = "probabilities",
        floor: float | None = None,
        *,
        moving: bool = False,
    ) -> None:
        require_gives(gives, name)
        if not callable(function):
            raise InvalidInput(
                f"Teacher '{name}': function is a {type(function).__name__}; wanted a function from inputs to rows."
            )
        self.name, self.function, self.gives, self.floor = name, function, gives, require_floor(floor, name)
        self.moving = moving

    @torch.no_grad()
    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V), float32 or wider.

        Raises:
            InvalidInput: The function fails, or gives no distributions.
            NotFinite: A row is not finite.
        """
        require_request(self.name, batch, split)
        with name_failures(self.name, batch, split):
            answer = self.function(batch.inputs)
        rows_V = read_answer(answer, self.name, batch)
        given = answer.dtype if isinstance(answer, Tensor) else None
        return read_distributions(rows_V, self.gives, self.name, self.floor, batch, split, given)


def _select_columns(inputs: Inputs, columns: Sequence[int] | Sequence[str] | None, name: str) -> Inputs:
    """Return some columns of a tensor, or some inputs of a dictionary."""
    if columns is None:
        return inputs
    by_name = all(isinstance(column, str) for column in columns)
    if isinstance(inputs, Mapping) != by_name:
        kind = f"a dictionary of {', '.join(map(repr, inputs))}" if isinstance(inputs, Mapping) else "one tensor"
        wanted = "their names" if isinstance(inputs, Mapping) else "numbers of its columns"
        raise InvalidInput(
            f"Teacher '{name}': columns is {list(columns)!r}, and the inputs are {kind}; wanted {wanted}."
        )
    if isinstance(inputs, Mapping):
        names = list(inputs)
        chosen = [names[find_name(str(column), names, "input", "the data")] for column in columns]
        return {key: inputs[key] for key in chosen}
    return inputs[:, [int(column) for column in columns]]
