"""Whether teachers and student mean the same tokens by the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....errors import InvalidInput
from .._weight_hashes import hash_token_map, list_merges


def require_same_tokenizer(teachers: Sequence[Any], student_tokenizer: Any) -> None:
    """Refuse teachers whose token numbers mean other tokens than the student's, or that cut texts into other tokens.

    Vocabularies are compared token by token, merges one by one; which tokens are special, and how long a padded output
    matrix is, does not matter.  A teacher without a tokenizer of its own, as a cache is, is compared by the hash in its
    manifest.

    Args:
        teachers: Teachers, with ``name`` and ``tokenizer`` or a manifest that has ``token_map``; or tokenizers.
        student_tokenizer: The tokenizer that made the data.

    Raises:
        InvalidInput: One differs; both are named, with the first token that does.
    """
    own = student_tokenizer.get_vocab()
    other_name = f"the student's ({_call(student_tokenizer)})"
    for teacher in teachers:
        tokenizer = teacher if hasattr(teacher, "get_vocab") else getattr(teacher, "tokenizer", None)
        who = f"The tokenizer of teacher '{getattr(teacher, 'name', _call(tokenizer))}'"
        if tokenizer is None:
            _require_same_hash(teacher, student_tokenizer, who, other_name)
            continue
        if tokenizer is student_tokenizer:
            continue
        who += f" ({_call(tokenizer)})" * (tokenizer is not teacher)
        difference = _find_differing_token(tokenizer.get_vocab(), own) or _find_merge(tokenizer, student_tokenizer)
        if difference:
            raise InvalidInput(
                f"{who} is another one than {other_name}: {difference}. Wanted one tokenizer for all: distil from "
                "teachers of the student's family, or give the student theirs."
            )


def shared_vocabulary(tokenizer: Any, heads: Sequence[Any]) -> int:
    """Return how many tokens all heads score: those of the smallest, since padded rows stand at the end.

    Args:
        tokenizer: The one that all share; its tokens are to be among them.
        heads: Heads, teachers, or anything else with ``vocabulary``; or numbers.

    Raises:
        InvalidInput: There are none, or one scores fewer tokens than the tokenizer has.
    """
    if not heads:
        raise InvalidInput("There are no heads; give at least the student's.")
    sizes = [int(getattr(head, "vocabulary", head)) for head in heads]
    tokens = max(tokenizer.get_vocab().values()) + 1
    for head, size in zip(heads, sizes, strict=True):
        if size < tokens:
            who = f"Teacher '{head.name}'" if hasattr(head, "name") else f"A {type(head).__name__}"
            raise InvalidInput(
                f"{who} scores {size} tokens, and the tokenizer ({_call(tokenizer)}) has {tokens}; "
                "model.resize_token_embeddings(len(tokenizer)) gives it the rest, untrained, or take the tokenizer "
                "that belongs to it."
            )
    return min(sizes)


def _call(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _require_same_hash(teacher: Any, student_tokenizer: Any, who: str, other_name: str) -> None:
    told = teacher.manifest().get("token_map", "") if hasattr(teacher, "manifest") else ""
    if not told:
        raise InvalidInput(
            f"{who} is not known, so nobody can tell whether it is {other_name}; give it, CausalTeacher(model, "
            "tokenizer)."
        )
    if told != hash_token_map(student_tokenizer):
        raise InvalidInput(
            f"{who} is another one than {other_name}: vocabulary and merges hash to {str(told)[:12]}, the student's to "
            f"{hash_token_map(student_tokenizer)[:12]}. Wanted one tokenizer for all."
        )


def _find_differing_token(theirs: dict[str, int], own: dict[str, int]) -> str:
    """Say which token differs first, by number; nothing where none does."""
    if theirs == own:
        return ""
    by_number = [{number: token for token, number in one.items()} for one in (theirs, own)]
    for number in range(max(map(max, (list(one) or [0] for one in by_number))) + 1):
        a, b = (one.get(number) for one in by_number)
        if a != b:
            said = ["nothing" if token is None else repr(token) for token in (a, b)]
            return f"token {number} is {said[0]} there and {said[1]} here"
    token = next(token for token in sorted({*theirs, *own}) if theirs.get(token) != own.get(token))
    return f"{token!r} has number {theirs.get(token)} there and {own.get(token)} here"


def _find_merge(theirs: Any, own: Any) -> str:
    a, b = list_merges(theirs), list_merges(own)
    if a == b:
        return ""
    rank = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    there, here = (repr(merges[rank]) if rank < len(merges) else "none" for merges in (a, b))
    return f"the tokens are the same, and merge {rank} is {there} there and {here} here"
