"""Models and tokenizers from folders and from the hub; transformers is imported here, when something is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import InvalidInput


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer.

    Attributes:
        model: In eval mode.
        tokenizer: None where there is none beside the weights.
        revision: The commit on the hub, else what was asked for.
    """

    model: nn.Module
    tokenizer: Any
    revision: str


def import_package(name: str) -> Any:
    """Return a package that only language models need.

    Args:
        name: "transformers" or "peft".

    Raises:
        InvalidInput: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        which = "pip install 'safekd[lm]'" if name == "transformers" else f"pip install {name}"
        raise InvalidInput(
            f"Language models need the package {name}, which is not installed ({error}): {which}."
        ) from error


def load_causal_model(
    path: str,
    revision: str | None,
    gguf_file: str | None,
    dtype: torch.dtype | str,
    adapter: str | None,
    options: Mapping[str, Any],
) -> LoadedModel:
    """Return a causal language model and its tokenizer; no code that comes with them is run.

    Args:
        path: A folder, or a name on the hub.
        revision: Branch, tag or commit on the hub.
        gguf_file: A GGUF file in the folder.
        dtype: Of the weights; "auto" for that in which they are stored.
        adapter: Folder or name of a peft adapter that is put on it.
        options: What else ``from_pretrained`` is to be told.

    Raises:
        InvalidInput: Something cannot be loaded.
    """
    transformers = import_package("transformers")
    where: dict[str, Any] = {} if revision is None else {"revision": revision}
    where |= {} if gguf_file is None else {"gguf_file": gguf_file}
    where |= {name: options[name] for name in ("token", "cache_dir", "local_files_only") if name in options}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **{**where, **options})
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise InvalidInput(
            f"No causal language model can be loaded from '{path}'{'' if revision is None else f' at {revision}'}: "
            f"{_first_line(error)} Give a folder that save_pretrained() wrote, a name on the hub, or gguf_file='...'."
        ) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **where)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError):
        tokenizer = None  # weights without a tokenizer can be asked about token numbers
    if adapter is not None:
        model = _put_adapter(model, adapter)
    return LoadedModel(model.eval(), tokenizer, _find_commit(path, revision))


def _put_adapter(model: nn.Module, adapter: str) -> nn.Module:
    try:
        peft: nn.Module = import_package("peft").PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"No adapter can be loaded from '{adapter}': {_first_line(error)} Give a folder that "
            "PeftModel.save_pretrained() wrote, or a name on the hub."
        ) from error
    return peft


def _find_commit(path: str, revision: str | None) -> str:
    """Return the commit under which the hub's files are kept here; what was asked for where there is none."""
    if Path(path).is_dir():
        return revision or ""
    file = import_package("huggingface_hub").try_to_load_from_cache(path, "config.json", revision=revision)
    return Path(file).parent.name if isinstance(file, str) else revision or ""


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(". ") + "."
