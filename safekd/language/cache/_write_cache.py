"""Teachers' answers about all examples of a source, on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from ..._number_checks import is_whole
from ...data import ExampleSource, Fields
from ...errors import InvalidInput
from ...io.folders import lock_folder
from ..teachers import LanguageTeacher, wrap_models
from ._answer_formats import Kind, read_precision
from ._cache_folder import TEACHER_CACHE, add_teacher
from ._cache_writer import CachePlan, CacheWriter
from ._cached_teacher import CachedTeacher
from ._token_rows import as_token_source


@dataclass(frozen=True)
class CacheProgress:
    """How far a teacher is.

    Attributes:
        teacher: Its name.
        examples: How many examples it has answered, or had before.
        positions: How many positions.
        asked: How many of these positions it has answered in this call.
        total: How many examples there are, where the source says so without reading all of them.
    """

    teacher: str
    examples: int
    positions: int
    asked: int
    total: int | None


def write_cache(
    path: str | os.PathLike[str],
    teachers: LanguageTeacher | nn.Module | Sequence[LanguageTeacher | nn.Module],
    source: Any,
    *,
    kind: Kind = "hidden",
    k: int = 256,
    dtype: torch.dtype | str | None = None,
    batch_size: int = 8,
    shard_bytes: int = 2**28,
    resume: bool = True,
    fields: Fields | None = None,
    on_progress: Callable[[CacheProgress], None] | None = None,
) -> tuple[CachedTeacher, ...]:
    """Ask teachers about all examples of a source, one teacher after the other, and store what they say.

    Examples are told by their content: the inputs, which positions count, and the labels there.  What is there already
    is not asked again, so that a call that was stopped, or killed, goes on after its last whole shard, and ends with
    the bytes that it would have had; a source that has grown adds its new examples, and a shard that was damaged is
    written anew.  Only positions that count are stored, sequences of any length one after the other.

    Args:
        path: Folder of the cache, made if absent; each teacher gets a folder in it.
        teachers: One or several, of different names; see ``LanguageTeacher``.  Models of transformers are wrapped as
            ``CausalTeacher``.
        source: What ``fit`` takes as data: a ``Split``, a source, a dataset, a DataLoader, a list of ``Batch``.  Or
            rows of token numbers, of equal lengths or not: lists, what a tokenizer gives, a data set of Hugging Face;
            their ``labels`` are those of Hugging Face, the tokens where left out, and are shifted inside.
        kind: "hidden" for hidden states and the head, once; "topk" for the k most probable tokens with entropy,
            log-probability of the label and mass of the tail.
        k: Tokens kept of "topk"; all of a smaller vocabulary.
        dtype: "bfloat16", "float16" or "float32"; None for bfloat16 hidden states and float16 log-probabilities.
        batch_size: Examples that a teacher is asked about at a time.
        shard_bytes: Size at which a shard is written; about twice as much memory is used.
        resume: Whether a cache that lies there may be gone on with; else it is refused.
        fields: What the parts of an item of the source are; see ``as_split``.
        on_progress: Called after each batch.

    Returns:
        The cached teachers, in the order given.

    Raises:
        InvalidInput: The folder holds a cache of another teacher, kind, dtype or head, which the message names; a
            teacher says what cannot be stored; or the folder cannot be written to.
        NotFinite: A teacher gave NaN; the message names the example.

    >>> import tempfile, torch, safekd as kd
    >>> class Uniform:
    ...     name, vocabulary = "uniform", 5
    ...     def __call__(self, batch): return kd.language.Logits(torch.zeros(*batch.labels.shape, 5))
    ...     def manifest(self): return {"kind": "uniform"}
    >>> data = kd.Split("train", torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, -100]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (cached,) = kd.language.write_cache(folder, Uniform(), data, kind="topk", k=2)
    ...     cached(data.batch()).log_p[0, 0].exp()
    tensor([0.2000, 0.2000])
    """
    asked = wrap_models(teachers if isinstance(teachers, Sequence) else [teachers])
    names = [getattr(teacher, "name", None) for teacher in asked]
    if not asked or not all(isinstance(name, str) and name for name in names) or len({*names}) < len(names):
        raise InvalidInput(f"The teachers are called {names!r:.200}; wanted at least one, of different names.")
    if kind not in get_args(Kind):
        raise InvalidInput(f"`kind` is {kind!r}; wanted {' or '.join(map(repr, get_args(Kind)))}.")
    for name, value in {"k": k, "batch_size": batch_size, "shard_bytes": shard_bytes}.items():
        if not is_whole(value) or value < 1:
            raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number of at least 1.")
    plan = CachePlan(kind, int(k), read_precision(dtype, kind), int(shard_bytes))
    encoders = [getattr(teacher, "kind", "") == "encoder" for teacher in asked]
    data = as_token_source(source, "source", fields, shift=not any(encoders))
    root = Path(path)
    with lock_folder(root, f"a {TEACHER_CACHE}"):
        for teacher in asked:
            folder = add_teacher(root, teacher.name)
            with teacher.awake() if hasattr(teacher, "awake") else nullcontext():  # a parked model is fetched once
                writer = CacheWriter(folder, teacher, plan, resume=resume)
                _write_teacher(writer, teacher.name, data, batch_size, on_progress)
    return tuple(CachedTeacher(root, teacher.name) for teacher in asked)


def _write_teacher(
    writer: CacheWriter,
    name: str,
    data: ExampleSource,
    batch_size: int,
    on_progress: Callable[[CacheProgress], None] | None,
) -> None:
    total, done, before = len(data) if data.random_access else None, 0, writer.positions
    for batch in data.batches(batch_size):
        writer.add(batch)
        done += len(batch)
        if on_progress is not None:
            on_progress(CacheProgress(name, done, writer.positions, writer.positions - before, total))
    writer.finish()
