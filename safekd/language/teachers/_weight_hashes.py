"""What a model and a tokenizer are, as SHA-256: equal where every number, name and type is equal.

Manifests hold them, by which caches and checkpoints know the teacher that they were made with.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._fingerprint import Fingerprint, fingerprint_tensors

_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[str, tuple[list[Fingerprint], str]]] = weakref.WeakKeyDictionary()


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes; the order of the names does not matter.

    Args:
        weights: By name.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_weights_once(model: nn.Module, part: str, weights: Mapping[str, Tensor]) -> str:
    """Return the same, from memory while no number has changed.

    Args:
        model: What the weights belong to.
        part: Which part of it they are.
        weights: By name, tensors of the model.
    """
    now = fingerprint_tensors(weights.values())
    known = _KNOWN.setdefault(model, {})
    if part not in known or known[part][0] != now:
        known[part] = (now, hash_weights(weights))
    return known[part][1]


def hash_numbers(numbers: Sequence[int]) -> str:
    """Return the SHA-256 of some token numbers, in their order; an empty text where there are none.

    Args:
        numbers: Whole numbers.
    """
    return hashlib.sha256(json.dumps(list(numbers)).encode()).hexdigest() if numbers else ""


def hash_tokenizer(tokenizer: Any) -> str:
    """Return the SHA-256 of a tokenizer's vocabulary, merges and special tokens; an empty text where there is none.

    Args:
        tokenizer: Of transformers, or None.
    """
    if tokenizer is None:
        return ""
    special = {str(name): str(token) for name, token in getattr(tokenizer, "special_tokens_map", {}).items()}
    return _hash_json([*_list_token_map(tokenizer), special])


def hash_token_map(tokenizer: Any) -> str:
    """Return the SHA-256 of a tokenizer's vocabulary and merges, which decide what a token number means.

    Args:
        tokenizer: Of transformers, or None.
    """
    return "" if tokenizer is None else _hash_json(_list_token_map(tokenizer))


def list_merges(tokenizer: Any) -> list[Any]:
    """Return the merges of a byte pair tokenizer, in their order; none for any other.

    Args:
        tokenizer: Of transformers.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str()).get("model", {}) if hasattr(backend, "to_str") else {}
    return list(model.get("merges") or [])


def _list_token_map(tokenizer: Any) -> list[Any]:
    vocabulary = tokenizer.get_vocab()
    return [sorted((int(number), token) for token, number in vocabulary.items()), list_merges(tokenizer)]


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
