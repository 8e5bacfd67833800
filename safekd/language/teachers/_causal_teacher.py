"""A causal language model as a teacher.  Axes: B batch, T positions, P tokens of a prompt, H width, V vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...errors import InvalidInput, SafekdWarning
from ..loss import Head, Hidden, Logits, TeacherOutput
from ._load_model import load_causal_model
from ._model_body import find_head_gap, read_hidden, read_token_inputs, require_causal, select_arguments
from ._model_teacher import ModelTeacher, count_outputs
from ._system_prompt import put_in_front, read_hidden_after, read_prompt
from ._weight_hashes import hash_numbers

_GIVES = ("hidden", "logits")


class CausalTeacher(ModelTeacher):
    """A causal language model of transformers as a teacher: it gives hidden states and the head that reads them.

    It is asked in eval mode, without gradients, in its own type on its own device, and computes no logits.  One model
    makes several teachers: by prompts, and by peft adapters, which share the base.

        teacher = CausalTeacher(model, tokenizer)
        careful = CausalTeacher(model, tokenizer, name="careful", prompt="Answer with care.")
        legal = CausalTeacher(peft_model, tokenizer, adapter="legal")

    Args:
        model: The model, or a ``peft.PeftModel`` of it.
        tokenizer: Its tokenizer, for prompts in words and to tell whether teachers share a vocabulary.
        name: What tables and messages call it; by default after adapter and model.
        prompt: Text or token numbers that stand before every sequence, which are read and not answered for.  Text comes
            after the token with which the tokenizer begins a text, if it has one.
        system: What the system says, in the tokenizer's chat template, in place of ``prompt``.
        template: A chat template in place of the tokenizer's.
        adapter: Name of the peft adapter it answers with; None for the base without adapters.
        device: Where it is asked; where it is, if None.
        park: Where its weights go between questions, "cpu" or "disk"; None lets them stay on the device.
        dtype: Type to which the model is cast, in place; None leaves it.
        gives: "hidden" for ``Hidden``, which is refused where the head alone does not give the model's logits; "logits"
            for ``Logits``, V numbers a position; None for hidden states where that is right, else for logits, with a
            warning.  It is found out on the first batch.
        revision: What the manifest says of where the weights are from.

    Attributes:
        vocabulary: How many tokens it scores, V.
        prompt: Tokens that stand before every sequence.
        gives: "hidden" or "logits"; None before the first batch, where nobody said which.

    Raises:
        InvalidInput: The model has no such adapter, a prompt cannot be read, or the device is not there.
    """

    kind = "causal"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        name: str | None = None,
        prompt: str | Sequence[int] | None = None,
        system: str | None = None,
        template: str | None = None,
        adapter: str | None = None,
        device: torch.device | str | None = None,
        park: str | None = None,
        dtype: torch.dtype | None = None,
        gives: str | None = None,
        revision: str = "",
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            name=name,
            adapter=adapter,
            device=device,
            park=park,
            dtype=dtype,
            revision=revision,
        )
        if gives is not None and gives not in _GIVES:
            raise InvalidInput(f"{self.who}: `gives` is {gives!r}; wanted 'hidden', 'logits', or None to find out.")
        require_causal(self._inner, self.who)
        self.gives, self._checked = gives, gives == "logits"
        self.prompt = read_prompt(prompt, system, template, tokenizer, self.who)
        self._require_known_tokens({"input_ids": torch.tensor(self.prompt, dtype=torch.long)})

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        revision: str | None = None,
        gguf_file: str | None = None,
        dtype: torch.dtype | str = "auto",
        adapter: str | None = None,
        name: str | None = None,
        prompt: str | Sequence[int] | None = None,
        system: str | None = None,
        template: str | None = None,
        device: torch.device | str | None = None,
        park: str | None = None,
        gives: str | None = None,
        **options: Any,
    ) -> Self:
        """Return a teacher from a folder or a name on the Hugging Face hub, its tokenizer with it.

        Args:
            name_or_path: The folder, or the name.
            revision: Branch, tag or commit on the hub; the manifest says the commit.
            gguf_file: A GGUF file in that folder, whose weights are written out as floats.
            dtype: Of the weights; "auto" for that in which they are stored.
            adapter: Folder or name of a peft adapter that is put on the model.
            name: As for the class.
            prompt: As for the class.
            system: As for the class.
            template: As for the class.
            device: As for the class.
            park: As for the class.
            gives: As for the class.
            **options: What else ``from_pretrained`` is to be told, such as ``attn_implementation``.

        Raises:
            InvalidInput: It cannot be loaded; the message says why.  Code that comes with a model is not run.
        """
        loaded = load_causal_model(str(name_or_path), revision, gguf_file, dtype, adapter, options)
        return cls(
            loaded.model,
            loaded.tokenizer,
            name=name,
            prompt=prompt,
            system=system,
            template=template,
            adapter=None if adapter is None else "default",
            device=device,
            park=park,
            gives=gives,
            revision=loaded.revision,
        )

    def manifest(self) -> dict[str, str | int]:
        """Return what the teacher is, as caches and checkpoints compare it.

        Returns:
            What every ``ModelTeacher`` says, and ``prompt`` (SHA-256 of its tokens), ``tied`` (1 where head and
            embeddings are one), ``softcap`` and ``scale`` of the head.
        """
        with self._place.awake(self._inner, None, self.park, self.who):
            head, read = Head.of(self._inner), self._inner.get_input_embeddings()  # type: ignore[operator]
            facts: dict[str, str | int] = {
                "prompt": hash_numbers(self.prompt),
                "tied": int(getattr(read, "weight", None) is head.weight),
                "softcap": "" if head.softcap is None else repr(head.softcap),
                "scale": repr(head.scale),
            }
            return {**super().manifest(), **facts}

    def _count_outputs(self) -> int:
        return count_outputs(self._inner, "vocab_size")

    def _answer(self, inputs: Any) -> TeacherOutput:
        tokens = read_token_inputs(inputs, self.who)
        self._require_known_tokens(tokens)
        if not self._checked:
            self._check_head(tokens)
        if self.gives == "logits":
            return Logits(self._read_after_prompt(tokens, self._read_logits))
        head = Head.of(self._inner)
        bias = None if head.bias is None else head.bias.detach()  # no parameters: those move when the model is parked
        head = replace(head, weight=head.weight.detach(), bias=bias)
        hidden = read_hidden_after(self._inner, tokens, self.prompt, self.who) if self.prompt else None
        return Hidden(self._read_after_prompt(tokens, self._read_hidden) if hidden is None else hidden, head)

    def _describe_prompt(self) -> str:
        return f" after a prompt of {len(self.prompt)}" if self.prompt else ""

    def _read_hidden(self, tokens: Mapping[str, Tensor]) -> Tensor:
        return read_hidden(self._inner, tokens, self.who)

    def _read_logits(self, tokens: Mapping[str, Tensor]) -> Tensor:
        logits = self._inner(**select_arguments(self._inner, {**tokens, "use_cache": False})).logits
        assert isinstance(logits, Tensor)
        return logits

    def _read_after_prompt(self, tokens: Mapping[str, Tensor], read: Any) -> Tensor:
        """Return what the model says at the tokens' own positions, (B, T, ...)."""
        if not self.prompt:
            return read(tokens)  # type: ignore[no-any-return]
        longer, place_BT = put_in_front(tokens, self.prompt, self.who)
        value = read(longer)
        return value.gather(1, place_BT.unsqueeze(-1).expand(*place_BT.shape, value.shape[-1]))  # type: ignore[no-any-return]

    def _check_head(self, tokens: Mapping[str, Tensor]) -> None:
        """Find out on a few tokens whether hidden states and head say what the model says."""
        gap = find_head_gap(self._inner, Head.of(self._inner), tokens, self.who)
        if gap and self.gives == "hidden":
            raise InvalidInput(
                f"{self.who}: {gap}. Its hidden states alone do not say what the model says; use gives='logits'."
            )
        if gap:
            warnings.warn(
                SafekdWarning(
                    f"{self.who} gives logits, {self.vocabulary} numbers a position, and no hidden states: {gap}."
                ),
                stacklevel=5,
            )
        require_causal(self._inner, self.who)
        self.gives, self._checked = "logits" if gap else "hidden", True
