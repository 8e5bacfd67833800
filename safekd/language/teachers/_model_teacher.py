"""What all teachers out of transformers share: a model with its place, adapter and tokenizer, and what it is.

Axes: B batch, T positions, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch_state import evaluation_mode, require_device
from ...data import Batch, map_inputs
from ...errors import InvalidInput
from ...teachers import CallableTeacher
from ..loss import Head, Hidden, Logits, TeacherOutput
from ._model_body import require_batch, unwrap_adapters
from ._parked_model import ModelPlace, find_device, require_park
from ._peft_adapters import list_adapter_weights, list_base_weights, require_adapter, switch_adapter
from ._weight_hashes import hash_token_map, hash_tokenizer, hash_weights_once


class ModelTeacher(ABC):
    """A model of transformers as a teacher: asked in eval mode, without gradients, in its own type, where it stands.

    Args:
        model: The model, or a ``peft.PeftModel`` of it.
        tokenizer: Its tokenizer, for prompts in words and to tell whether teachers share a vocabulary.
        name: What tables and messages call it; by default after adapter and model.
        adapter: Name of the peft adapter it answers with; None for the base without adapters.
        device: Where it is asked; where it is, if None.
        park: Where its weights go between questions, "cpu" or "disk"; None lets them stay on the device.
        dtype: Type to which the model is cast, in place; None leaves it.
        revision: What the manifest says of where the weights are from.

    Attributes:
        vocabulary: How many tokens or classes it scores, V.

    Raises:
        InvalidInput: The model has no such adapter, or the device is not there.
    """

    kind: str

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        name: str | None = None,
        adapter: str | None = None,
        device: torch.device | str | None = None,
        park: str | None = None,
        dtype: torch.dtype | None = None,
        revision: str = "",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidInput(
                f"A teacher's model is a {type(model).__name__}; wanted a model of transformers, or "
                "CausalTeacher.load('folder or name')."
            )
        self.model, self.tokenizer, self.adapter, self.revision = model, tokenizer, adapter, revision
        path = str(getattr(getattr(model, "config", None), "name_or_path", "") or "").rstrip("/")
        last = Path(path).name
        self.path = last if Path(path).is_dir() or Path(path).is_absolute() else path  # a folder may be moved
        parts = (last or type(unwrap_adapters(model)).__name__, adapter or "")
        self.name = name or ":".join(filter(None, parts))
        self.park = require_park(park, self.who)
        require_adapter(model, adapter, self.who)
        self._inner = unwrap_adapters(model)
        self._place = ModelPlace.of(self._inner)
        self._asked_on = None if device is None else torch.zeros(0, device=require_device(device)).device
        with self._place.awake(self._inner, None, None, self.who):
            if self._asked_on is None and self.park is not None:
                self._asked_on = find_device(self._inner)
            if dtype is not None:
                model.to(dtype)
            self.dtype = next((v.dtype for v in self._inner.parameters() if v.is_floating_point()), torch.float32)
            self.vocabulary = self._count_outputs()
            find_inputs: Any = getattr(self._inner, "get_input_embeddings", None)
            inputs = None if find_inputs is None else find_inputs()
            self._known_tokens = len(inputs.weight) if isinstance(inputs, nn.Embedding) else None
        if self._asked_on is not None and self.park is None:
            with self._place.awake(self._inner, self._asked_on, None, self.who):
                pass
        self._place.park(self._inner, self.park, self.who)

    @property
    def who(self) -> str:
        """What messages call it."""
        return f"Teacher '{self.name}'"

    @property
    def device(self) -> torch.device:
        """Where it is asked."""
        return self._asked_on or find_device(self._inner)

    def __repr__(self) -> str:
        adapter = "" if self.adapter is None else f", adapter={self.adapter!r}"
        return f"{type(self).__name__}({self.name!r}, vocabulary={self.vocabulary}{adapter})"

    @contextmanager
    def awake(self) -> Iterator[nn.Module]:
        """Have the model on its device inside the block, with the teacher's adapter, in eval mode.

        Yields:
            The model.
        """
        with (
            self._place.awake(self._inner, self._asked_on, self.park, self.who),
            torch.no_grad(),
            switch_adapter(self.model, self.adapter, self.who),
            evaluation_mode(self._inner),
        ):
            yield self._inner

    def __call__(self, batch: Batch) -> TeacherOutput:
        """Return what the teacher says of a batch, on its own device.

        Args:
            batch: Its inputs are a dictionary that has ``input_ids``, (B, T).

        Raises:
            InvalidInput: It is no batch, or its inputs are none that the model reads.
        """
        return self._ask(require_batch(batch, self.who).inputs)

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities: so ``ConstrainedTrainer`` and ``measure_teachers`` take it, vocabulary and all.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, T, V), float32 or wider, on the batch's device.

        Raises:
            InvalidInput: The model fails, or gives no distribution.
        """
        return CallableTeacher(self.name, self._answer_logits, gives="logits").log_probabilities(batch, split)

    def fingerprint(self) -> str:
        """Return what changes with the answers: the manifest."""
        return repr(sorted(self.manifest().items()))

    def manifest(self) -> dict[str, str | int]:
        """Return what the teacher is, as caches and checkpoints compare it.

        Returns:
            ``kind``, ``name_or_path`` (of a folder the last part, since it may be moved), ``revision``, ``weights``
            (SHA-256 of the base), ``adapter`` and ``adapter_weights``, ``tokenizer`` and ``token_map`` (SHA-256, with
            and without the special tokens' roles), ``dtype``, ``vocabulary``; empty texts where there is none.
        """
        with self._place.awake(self._inner, None, self.park, self.who):
            base = hash_weights_once(self._inner, "base", list_base_weights(self.model))
            own = ""
            if self.adapter is not None:
                weights = list_adapter_weights(self.model, self.adapter)
                own = hash_weights_once(self._inner, f"adapter {self.adapter}", weights)
        return {
            "kind": self.kind,
            "name_or_path": self.path,
            "revision": self.revision,
            "weights": base,
            "adapter": self.adapter or "",
            "adapter_weights": own,
            "tokenizer": hash_tokenizer(self.tokenizer),
            "token_map": hash_token_map(self.tokenizer),
            "dtype": str(self.dtype).removeprefix("torch."),
            "vocabulary": self.vocabulary,
        }

    @abstractmethod
    def _answer(self, inputs: Any) -> TeacherOutput:
        """Return what the model says of inputs on its device; it is awake."""

    @abstractmethod
    def _count_outputs(self) -> int:
        """Return how many tokens or classes the model scores."""

    def _answer_logits(self, inputs: Any) -> Tensor:
        output = self._ask(inputs)
        if isinstance(output, Hidden):
            return output.head.logits(output.hidden)
        assert isinstance(output, Logits)
        return output.logits

    def _ask(self, inputs: Any) -> TeacherOutput:
        with self.awake() as model:
            try:
                return self._answer(map_inputs(inputs, lambda value: value.to(self.device)))
            except IndexError as error:  # places that a model has learned end somewhere
                most = getattr(getattr(model, "config", None), "max_position_embeddings", "?")
                raise InvalidInput(
                    f"{self.who} failed on sequences of {_sequence_length(inputs)} tokens{self._describe_prompt()}, "
                    f"and its configuration says {most} at most ({error}); cut them: as_text_source(..., length=...)."
                ) from error

    def _describe_prompt(self) -> str:
        """Return what stands before each sequence, in words."""
        return ""

    def _require_known_tokens(self, inputs: Mapping[str, Tensor]) -> None:
        ids = inputs["input_ids"]
        if self._known_tokens is None or not ids.numel():
            return
        least, most = (int(x) for x in torch.aminmax(ids))
        if least < 0 or most >= self._known_tokens:
            raise InvalidInput(
                f"{self.who} knows tokens 0 to {self._known_tokens - 1}, and a batch holds "
                f"{least if least < 0 else most}; wanted token numbers of its own tokenizer."
            )


def _sequence_length(inputs: Any) -> int:
    ids = inputs["input_ids"] if isinstance(inputs, Mapping) else inputs
    return int(ids.shape[-1])


def count_outputs(model: nn.Module, otherwise: str) -> int:
    """Return how many tokens a model's head scores, or what its configuration says.

    Args:
        model: Of transformers.
        otherwise: Name of the number in the configuration of a model without an output matrix.

    Raises:
        InvalidInput: Neither is there.
    """
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    if layer is not None:
        return Head.of(model).vocabulary
    config: Any = getattr(model, "config", None)
    number = getattr(config, otherwise, None)
    if number is None:
        raise InvalidInput(
            f"{type(model).__name__} has no output matrix, and its configuration no `{otherwise}`; wanted a model of "
            "transformers with a head."
        )
    return int(number)
