"""How a student writes: one call of ``generate``, seeded, in eval mode, and what of its answer is text.

Axes: R texts, P tokens of the longest prompt, N of the longest text.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..._torch_state import evaluation_mode
from ...errors import InvalidInput
from ..teachers import CausalStudent, unwrap_adapters

Generate = Callable[..., Any]


class TextWriter:
    """Writes texts after prompts.

    Args:
        generate: A model with a method ``generate``, that method, or a function with the same keywords.
        options: Further keywords of the call.
        end: Tokens that end a text; None for those of the model's generation config.
        padding: The token in front of shorter prompts.

    Attributes:
        module: The model that writes; None where a function does.
        options: Further keywords of the call.

    Raises:
        InvalidInput: It cannot be called, or an option is none of the model's.
    """

    def __init__(
        self, generate: Any, options: Mapping[str, Any], end: int | Collection[int] | None, padding: int
    ) -> None:
        if isinstance(generate, CausalStudent):
            generate = generate.model
        call = generate.generate if hasattr(generate, "generate") else generate
        if not callable(call) or isinstance(call, type):
            raise InvalidInput(
                f"`generate` is {type(generate).__name__}, which cannot be called; wanted a model with generate(), or "
                "a function of input_ids and attention_mask."
            )
        self._call, self.options, self._padding = call, dict(options), padding
        self.module = next((m for m in (generate, getattr(call, "__self__", None)) if isinstance(m, nn.Module)), None)
        if end is None:
            end = getattr(getattr(self.module, "generation_config", None), "eos_token_id", None)
        self._require_known_options()
        self._end = frozenset() if end is None else frozenset([end] if isinstance(end, int) else end)

    def require_known_tokens(self, tokens: Collection[int], what: str) -> None:
        """Refuse tokens that the student does not know, where it says which it knows.

        Args:
            tokens: At least one.
            what: What messages call them.

        Raises:
            InvalidInput: One is beyond its embeddings.
        """
        embeddings = getattr(self.module, "get_input_embeddings", lambda: None)()
        known, most = len(getattr(embeddings, "weight", ())), max(tokens)
        if known and most >= known:
            raise InvalidInput(
                f"{what} is token {most}, and the student knows tokens 0 to {known - 1}; wanted token numbers of its "
                "own tokenizer."
            )

    def _require_known_options(self) -> None:
        """Refuse options that no part of the student's ``generate`` reads."""
        config = getattr(self.module, "generation_config", None)
        if config is None or self._call is None:
            return
        base = unwrap_adapters(self.module)  # type: ignore[arg-type]
        named = [inspect.signature(call).parameters for call in (self._call, base.forward)]
        known = sorted({*config.to_dict(), *(name for parameters in named for name in parameters)})
        for name in self.options:
            if name in known or hasattr(config, name):
                continue
            near = difflib.get_close_matches(str(name), known, n=1)
            raise InvalidInput(
                f"`options` has '{name}', which generate() of {type(base).__name__} does not read; wanted keywords of "
                f"generate(), such as the fields of transformers.GenerationConfig."
                + (f" Did you mean '{near[0]}'?" if near else "")
            )

    @property
    def device(self) -> torch.device:
        """Where the student is."""
        parameters = () if self.module is None else self.module.parameters()
        return next((p.device for p in parameters), torch.device("cpu"))

    def write(self, ids_RP: Tensor, attention_RP: Tensor, seed: int) -> list[list[int]]:
        """Return what the student writes after each prompt, up to the end of the text, that token included.

        Args:
            ids_RP: Prompts, padded on the left.
            attention_RP: Which tokens are a prompt's.
            seed: Of torch's randomness inside; outside it goes on as if nothing had been drawn.

        Raises:
            InvalidInput: It failed, or the answer does not begin with the prompts, or has nothing after them.
        """
        device = self.device
        mode = nullcontext() if self.module is None else evaluation_mode(self.module)
        with mode, torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            ends: dict[str, Any] = {"eos_token_id": sorted(self._end)} if self._end else {}
            named = {"pad_token_id": self._padding, **ends, **self.options}
            try:
                answer = self._call(input_ids=ids_RP.to(device), attention_mask=attention_RP.to(device), **named)
            except (TypeError, ValueError, LookupError, ArithmeticError) as error:
                raise InvalidInput(
                    f"`generate` failed on {len(ids_RP)} prompts of up to {ids_RP.shape[1]} tokens, called with "
                    f"{named}: {type(error).__name__}: {' '.join(str(error).split())[:300]}. Change `options`, or "
                    "write a function that takes these keywords: def generate(input_ids, attention_mask, **options)."
                ) from error
        sequences = getattr(answer, "sequences", answer)
        P = ids_RP.shape[1]
        if not isinstance(sequences, Tensor) or sequences.ndim != 2 or len(sequences) != len(ids_RP):
            shape = tuple(sequences.shape) if isinstance(sequences, Tensor) else type(sequences).__name__
            raise InvalidInput(
                f"`generate` gives {shape} for {len(ids_RP)} prompts; wanted token numbers, one row each."
            )
        sequences = sequences.cpu().long()
        if sequences.shape[1] <= P or not bool((sequences[:, :P] == ids_RP).all()):
            raise InvalidInput(
                f"`generate` gives rows of {sequences.shape[1]} tokens for prompts of {P}; wanted rows that begin with "
                "the prompt and go on, as the generate() of a causal Hugging Face model gives."
            )
        return [self._cut(row) for row in sequences[:, P:].tolist()]

    def _cut(self, text: list[int]) -> list[int]:
        first = next((n for n, token in enumerate(text) if token in self._end), len(text) - 1)
        return text[: first + 1]
