"""Encoders as teachers: masked language models, and classifiers of sequences or tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import InvalidInput
from ..loss import Logits, TeacherOutput
from ._model_body import select_arguments
from ._model_teacher import ModelTeacher, count_outputs


class EncoderTeacher(ModelTeacher):
    """A model of transformers that reads a text whole: it gives the logits of every position, or of the sequence.

    It answers about the token at a position and not the next one, so labels are not to be shifted.
    """

    kind = "encoder"

    def _count_outputs(self) -> int:
        return count_outputs(self._inner, "num_labels")

    def _answer(self, inputs: Any) -> TeacherOutput:
        given: Mapping[str, Tensor] = inputs if isinstance(inputs, Mapping) else {"input_ids": inputs}
        if "input_ids" not in given:
            raise InvalidInput(
                f"{self.who} was given {', '.join(map(repr, given))}; wanted inputs that have 'input_ids', (B, T)."
            )
        self._require_known_tokens(given)
        logits = getattr(self._inner(**select_arguments(self._inner, given)), "logits", None)
        if not isinstance(logits, Tensor):
            raise InvalidInput(
                f"{self.who} is a {type(self._inner).__name__}, which gives no logits; wanted a model with a head, "
                "such as AutoModelForMaskedLM or AutoModelForTokenClassification."
            )
        return Logits(logits)
