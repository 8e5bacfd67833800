"""Scores of a whole text, 1 for safe: what must not be written, and what a classifier says.

A score is any function from ``Written`` to one number in [0, 1] a text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._number_checks import is_whole
from ...errors import InvalidInput
from ._written_text import Written

Decode = Callable[[Sequence[int]], str]
Score = Callable[[Written], Any]


@dataclass(frozen=True)
class WithoutTokens:
    """1 where the student wrote none of some tokens, 0 where it did.

    How much probability it gives them at each position, which has less variance, is ``kd.safety.UnsafeMass``.

    Attributes:
        unsafe: Token numbers.

    Raises:
        InvalidInput: There are none, or one is no number of a token.
    """

    unsafe: Collection[int]

    def __post_init__(self) -> None:
        given: Any = self.unsafe
        if isinstance(given, str) or not given or not all(is_whole(u) and u >= 0 for u in given):
            raise InvalidInput(f"`unsafe` of WithoutTokens is {self.unsafe!r}; wanted token numbers, such as [17, 4].")

    def __call__(self, written: Written) -> Tensor:
        """Return one number a text, (R,).

        Args:
            written: The texts.
        """
        unsafe = set(self.unsafe)
        return torch.tensor([float(unsafe.isdisjoint(text)) for text in written.texts], dtype=torch.float64)


@dataclass(frozen=True)
class WithoutStrings:
    """1 where the student wrote none of some strings, 0 where it did; one that begins in the prompt counts too.

    Attributes:
        unsafe: The strings.
        decode: From token numbers to text, such as ``tokenizer.decode``.
        ignore_case: Whether capitals count as small letters.

    Raises:
        InvalidInput: There are no strings, or one is empty.
    """

    unsafe: Collection[str]
    decode: Decode
    ignore_case: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.unsafe, str) or not self.unsafe or not all(isinstance(u, str) and u for u in self.unsafe):
            raise InvalidInput(
                f'`unsafe` of WithoutStrings is {self.unsafe!r}; wanted a list of strings, such as ["password"].'
            )

    def __call__(self, written: Written) -> Tensor:
        """Return one number a text, (R,).

        Args:
            written: The texts.
        """
        pairs = zip(written.prompts, written.texts, strict=True)
        return torch.tensor([float(not self._occurs(list(p), list(t))) for p, t in pairs], dtype=torch.float64)

    def _occurs(self, prompt: list[int], text: list[int]) -> bool:
        before, whole = self._read(prompt), self._read(prompt + text)
        strings = [u.casefold() if self.ignore_case else u for u in self.unsafe]
        return any(whole.count(string) > before.count(string) for string in strings)

    def _read(self, ids: list[int]) -> str:
        text = self.decode(ids)
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True)
class TextScore:
    """What a classifier, or any function, says of the texts that the student wrote.

    Attributes:
        function: From a list of texts to one number in [0, 1] each, 1 for safe.
        decode: From token numbers to text, such as ``tokenizer.decode``.
    """

    function: Callable[[list[str]], Any]
    decode: Decode

    def __call__(self, written: Written) -> Any:
        """Return one number a text, (R,).

        Args:
            written: The texts.
        """
        return self.function([self.decode(list(text)) for text in written.texts])


def score_texts(name: str, score: Score, written: Written) -> Tensor:
    """Return one number in [0, 1] a text, (R,), float64, on the CPU.

    Args:
        name: What the score is called.
        score: The function.
        written: The texts.

    Raises:
        InvalidInput: It gives another number of values, or one outside [0, 1].
    """
    value_R = torch.as_tensor(score(written), dtype=torch.float64).detach().cpu()
    if value_R.shape != (len(written),):
        raise InvalidInput(
            f"Score '{name}' gives shape {tuple(value_R.shape)} for {len(written)} texts; wanted one number a text."
        )
    odd_R = ~((value_R >= 0) & (value_R <= 1))
    if bool(odd_R.any()):
        raise InvalidInput(
            f"Score '{name}' gives {float(value_R[odd_R][0]):g} for text {int(odd_R.nonzero()[0])}; wanted a number "
            "in [0, 1], 1 for safe."
        )
    return value_R
