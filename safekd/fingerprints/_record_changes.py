"""What differs between two records of fingerprints, key by key, in words."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._content_hash import fingerprint

_SHOWN = 60  # characters of a value in a message
_SUMS = 9  # numbers in a digest: the size, and sums with random signs
_ROUNDING = 1e-6  # of its size, by which what a GPU computes may differ from one time to the next


def digest_numbers(parts: Sequence[Tensor]) -> Any:
    """Return a fingerprint of numbers, or of those on a GPU, whose last digits may differ, some weighted sums.

    Args:
        parts: Tensors, in order.
    """
    if all(part.device.type == "cpu" for part in parts):
        return fingerprint([fingerprint(part.detach()) for part in parts])
    draw = torch.Generator().manual_seed(0)
    sums = torch.zeros(_SUMS, dtype=torch.float64)
    for part in parts:
        numbers = torch.nan_to_num(part.detach().double().flatten().cpu())
        sums[0] += numbers.abs().sum()
        for number in range(1, _SUMS):
            sums[number] += numbers @ (2.0 * torch.randint(0, 2, numbers.shape, generator=draw) - 1).double()
    return sums.tolist()


def compare_records(kept: Mapping[str, Any], now: Mapping[str, Any], grouped: Collection[str] = ()) -> dict[str, str]:
    """Return a phrase for each key that differs, by the key, ``optimizer.lr`` say.

    Args:
        kept: Plain JSON, dictionaries in any depth.
        now: The same, later.
        grouped: Keys whose entries are told together, in one phrase.
    """
    return dict(_compare(dict(kept), dict(now), "", grouped))


def select_refused(changes: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """Return the changes that nobody has allowed.

    Args:
        changes: Phrases by key, as ``compare_records`` gives them.
        allowed: Keys, each with all that is below it.
    """
    return {key: said for key, said in changes.items() if not any(key == a or key.startswith(f"{a}.") for a in allowed)}


def require_key_list(allow_change: object) -> list[str]:
    """Return keys of what may differ as a list.

    Args:
        allow_change: What was given.

    Raises:
        InvalidInput: It is no list of texts.
    """
    keys = [] if isinstance(allow_change, str) or not isinstance(allow_change, Sequence) else list(allow_change)
    if isinstance(allow_change, str) or not all(isinstance(key, str) for key in keys):
        raise InvalidInput(f"`allow_change` is {allow_change!r}; wanted a list of keys, such as ['optimizer.lr'].")
    return keys


def _compare(kept: Any, now: Any, place: str, grouped: Collection[str]) -> list[tuple[str, str]]:
    if isinstance(kept, dict) and isinstance(now, dict):
        if place in grouped:
            names = [name for name in [*kept, *now] if _compare(kept.get(name), now.get(name), "", ())]
            kept, now = ({name: side[name] for name in side if name in names} for side in (kept, now))
            return [] if not names else [(place, _phrase_change(place, kept, now))]
        names = [*kept, *(name for name in now if name not in kept)]
        pairs = [(f"{place}.{name}".lstrip("."), kept.get(name), now.get(name)) for name in names]
        return [change for name, old, new in pairs for change in _compare(old, new, name, grouped)]
    if kept == now or _differ_by_rounding(kept, now):
        return []
    return [(place, _phrase_change(place, kept, now))]


def _phrase_change(place: str, kept: Any, now: Any) -> str:
    old, new = _shorten_pair(json.dumps(kept), json.dumps(now))
    return f"`{place}` was {old} and is now {new}"


def _differ_by_rounding(one: Any, other: Any) -> bool:
    """Say whether two lists of ``digest_numbers`` differ by no more than rounding."""
    if not all(isinstance(side, list) and len(side) == _SUMS and isinstance(side[0], float) for side in (one, other)):
        return False
    allowed = _ROUNDING * max(abs(one[0]), abs(other[0]))
    return all(abs(a - b) <= allowed for a, b in zip(one, other, strict=True))


def _shorten_pair(old: str, new: str) -> tuple[str, str]:
    """Return two texts, cut to where they differ first."""
    if max(len(old), len(new)) <= _SHOWN:
        return old, new
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - _SHOWN // 2)
    return _cut_text(old, start), _cut_text(new, start)


def _cut_text(text: str, start: int) -> str:
    shown = text[start : start + _SHOWN]
    return f"{'...' if start else ''}{shown}{'...' if start + _SHOWN < len(text) else ''}"
