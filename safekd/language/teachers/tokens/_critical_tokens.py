"""Which tokens are critical, by number, by what they write, or by a function of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

from ...._number_checks import is_whole
from ....errors import InvalidInput

Several = Literal["refuse", "first", "all"]


def critical_tokens(
    tokenizer: Any,
    wanted: int | str | Callable[[str], Any] | Collection[int | str | Callable[[str], Any]],
    *,
    several: Several = "refuse",
) -> list[int]:
    """Return token numbers for ``SafetyMeasure(critical=...)``.

    A text means every token that writes it, with a space before it or without; capitals are other texts.  A function
    is given what each token of the vocabulary writes and says whether it is critical: ``re.compile("kill").search``.

    Args:
        tokenizer: That of the student.
        wanted: Numbers, texts, or functions, one or several of them.
        several: What a text means that no single token writes: "refuse" names the tokens it consists of; "first" takes
            the one it begins with, with a space before it and without; "all" takes each of them, which marks them
            wherever else they stand too.

    Returns:
        Numbers in order, each once.

    Raises:
        InvalidInput: A number is beyond the vocabulary, a text consists of several tokens, or a function picks none.
    """
    if several not in ("refuse", "first", "all"):
        raise InvalidInput(f"`several` is {several!r}; wanted 'refuse', 'first' or 'all'.")
    given: Any = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    listed: list[Any] = list(given) if isinstance(given, Collection) and not isinstance(given, str) else [given]
    if not listed:
        raise InvalidInput("No critical token is named; give at least one number, text or function.")
    if not hasattr(tokenizer, "get_vocab"):
        raise InvalidInput(f"`tokenizer` is a {type(tokenizer).__name__}; wanted that of the student.")
    size = max(tokenizer.get_vocab().values()) + 1
    written = _write_tokens(tokenizer, size) if not all(is_whole(one) for one in listed) else []
    numbers: set[int] = set()
    for one in listed:
        if isinstance(one, str):
            numbers |= _find_written(tokenizer, one, written, several)
        elif callable(one):
            numbers |= _find_by_function(one, written)
        elif is_whole(one) and 0 <= int(one) < size:
            numbers.add(int(one))
        else:
            raise InvalidInput(
                f"A critical token is {one!r}; wanted a number from 0 to {size - 1}, a text, or a function of the text."
            )
    return sorted(numbers)


def _write_tokens(tokenizer: Any, size: int) -> list[str]:
    """Return what each token writes, by number."""
    rows = [[number] for number in range(size)]
    texts: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return texts


def _find_written(tokenizer: Any, text: str, written: list[str], several: Several) -> set[int]:
    if not text:
        raise InvalidInput("A critical text is empty; wanted what a token writes.")
    found = {number for number, what in enumerate(written) if what in (text, f" {text}")}
    if found:
        return found
    spelled = [_spell(tokenizer, variant, written) for variant in (text, f" {text}")]
    if several == "all":
        return {number for numbers in spelled for number in numbers}
    if several == "first":
        return {numbers[0] for numbers in spelled if numbers}
    ways = dict.fromkeys(" + ".join(f"'{written[n]}' ({n})" for n in numbers) for numbers in spelled)
    parts = " or ".join(ways)
    raise InvalidInput(
        f"No single token writes '{text}'; it consists of {parts}. Choose: several='first' marks the token it begins "
        "with, several='all' each of them, or name the numbers that you mean."
    )


def _spell(tokenizer: Any, text: str, written: list[str]) -> list[int]:
    """Return the tokens that write a text, without those that write but space before it."""
    numbers: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    while len(numbers) > 1 and not written[numbers[0]].strip():
        numbers = numbers[1:]
    return numbers


def _find_by_function(choose: Callable[[str], Any], written: list[str]) -> set[int]:
    found = {number for number, text in enumerate(written) if choose(text)}
    if not found:
        raise InvalidInput(
            f"{getattr(choose, '__name__', repr(choose))} finds no token critical, of {len(written)}; it is given what "
            "each token writes, ' kill' say, with the space before it."
        )
    return found
