"""One teacher's folder while it is written: shards as they fill, the manifest after each.  Axes: B batch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data import Batch
from ...errors import InvalidInput, SafekdWarning
from ...io.folders import MANIFEST, hash_file
from ..loss import Hidden, TeacherOutput
from ..teachers import LanguageTeacher
from ._answer_formats import Kind, Precision, plan_format
from ._cache_folder import find_misfit
from ._cache_record import HEAD, SHARD, CacheRecord, ShardEntry, find_differences, read_record, write_record
from ._example_index import COLUMNS, INPUTS, KEY, LENGTH, NUMBER, ExampleIndex, Table
from ._example_keys import ExampleKeys, key_examples, name_cached_inputs, trim_padding
from ._shard_files import PART, ShardReader, write_shard
from ._stored_head import describe_head, open_head, write_head


@dataclass(frozen=True)
class CachePlan:
    """What is to be stored.

    Attributes:
        kind: "hidden" or "topk".
        k: Tokens kept, of "topk".
        dtype: Of hidden states or log-probabilities.
        shard_bytes: Size at which a shard is written.
    """

    kind: Kind
    k: int
    dtype: Precision
    shard_bytes: int


class CacheWriter:
    """Writes one teacher's answers, and goes on where an earlier writer of the same cache stopped.

    Args:
        folder: Of the teacher; its cache is locked.
        teacher: Is asked.
        plan: What is stored.
        resume: Whether what lies there may be gone on with.

    Raises:
        InvalidInput: What lies there is of another teacher or another plan; each difference is named.
    """

    def __init__(self, folder: Path, teacher: LanguageTeacher, plan: CachePlan, *, resume: bool) -> None:
        self._folder, self._teacher, self._plan = folder, teacher, plan
        self._who = f"Teacher '{teacher.name}'"
        self._facts = read_facts(teacher, self._who)
        self._record: CacheRecord | None = None
        self._tables: dict[str, Table] = {}
        if (folder / MANIFEST).exists():
            if not resume:
                raise InvalidInput(f"{folder} holds a cache already; go on with it, resume=True, or remove it.")
            self._record = self._take_over(read_record(folder))
        self._remove_others()
        self._index = self._build_index()
        self._pending: set[bytes] = set()
        self._waiting: list[tuple[Table, dict[str, Tensor]]] = []
        self._head_at: tuple[Any, ...] | None = None

    @property
    def examples(self) -> int:
        """How many examples are stored or wait to be."""
        return len(self._index) + len(self._pending)

    @property
    def positions(self) -> int:
        """How many positions are stored or wait to be."""
        stored = self._record.positions if self._record else 0
        return stored + sum(int(table_NX[:, LENGTH].sum()) for table_NX, _ in self._waiting)

    def add(self, batch: Batch) -> None:
        """Ask the teacher about those examples of a batch that are not there yet, and store what it says.

        Args:
            batch: Any.

        Raises:
            InvalidInput: The teacher says what cannot be stored.
        """
        batch = trim_padding(batch)
        keys = key_examples(batch)
        fresh = self._list_fresh(keys)
        if not fresh:
            return
        if len(fresh) < len(batch):
            batch = batch.select(torch.tensor(fresh, device=batch.labels.device))
            keys = key_examples(batch)
        with torch.no_grad():
            output = self._teacher(batch)
        record = self._prepare(output, batch)
        rows = record.format.encode(output, batch, keys, self._who)
        table_BX = np.zeros((len(batch), len(COLUMNS)), np.int64)
        table_BX[:, KEY], table_BX[:, INPUTS], table_BX[:, LENGTH] = keys.key_B2, keys.inputs_B, keys.lengths
        table_BX[:, NUMBER] = batch.index.cpu().numpy() if batch.numbered else -1
        self._waiting.append((table_BX, rows))
        self._pending |= {key.tobytes() for key in keys.key_B2}
        waiting = sum(value.numel() * value.element_size() for _, held in self._waiting for value in held.values())
        if waiting >= self._plan.shard_bytes:
            self._flush()

    def finish(self) -> CacheRecord:
        """Write what waits, and say that all examples are there.

        Raises:
            InvalidInput: Nothing was stored: no position counts.
        """
        self._flush()
        if self._record is None or not len(self._index):
            raise InvalidInput("No position of the data counts: every label is -100 or masked. Nothing was cached.")
        data = self._index.fingerprint()
        if self._record.data != data:
            self._write(replace(self._record, data=data))
        return self._record

    def _list_fresh(self, keys: ExampleKeys) -> list[int]:
        """Return which examples of a batch are not there yet, each once, and have positions that count."""
        known_B = self._index.find(keys.key_B2) >= 0
        fresh: dict[bytes, int] = {}
        for row in np.flatnonzero(~known_B & (keys.lengths > 0)).tolist():
            key = keys.key_B2[row].tobytes()
            if key not in self._pending:
                fresh.setdefault(key, row)
        return list(fresh.values())

    def _prepare(self, output: TeacherOutput, batch: Batch) -> CacheRecord:
        """Return the record, made at the first answer; the head of a later one must be the same."""
        inputs = tuple(name_cached_inputs(batch.inputs))
        if self._record is None:
            plan = self._plan
            form = plan_format(output, plan.kind, plan.k, plan.dtype, self._teacher.vocabulary, self._who)
            self._record = CacheRecord(self._teacher.name, self._facts, form, inputs)
        if inputs != self._record.inputs:
            raise InvalidInput(
                f"{self._folder} was begun with inputs {list(self._record.inputs)}, and is asked to go on with "
                f"{list(inputs)}; wanted equal."
            )
        if self._record.format.kind == "hidden" and isinstance(output, Hidden):
            self._keep_head(output, self._record)
        return self._record

    def _keep_head(self, output: Hidden, record: CacheRecord) -> None:
        weight, bias = output.head.weight, output.head.bias
        where = (weight.data_ptr(), weight._version, None if bias is None else bias._version, weight.shape)
        if where == self._head_at:
            return
        head = output.head.cut(record.format.vocabulary)
        facts = describe_head(head)
        if record.head is None:
            files = {**record.files, HEAD: write_head(head, self._folder, self._who)}
            self._write(replace(record, head=facts, files=files))
        elif facts != record.head:
            raise InvalidInput(
                f"{self._folder} holds another head than that of {self._who}: its hash is {record.head.sha256[:12]} "
                f"({record.head.dtype}), found {facts.sha256[:12]} ({facts.dtype}); wanted one head for all examples."
            )
        self._head_at = where

    def _flush(self) -> None:
        """Write a shard of what waits; it takes the first free number."""
        if not self._waiting:
            return
        assert self._record is not None
        tables, held = zip(*self._waiting, strict=True)
        table_NX = np.concatenate(tables)
        rows = {name: torch.cat([rows[name] for rows in held]) for name in held[0]}
        number = next(n for n in range(len(self._record.shards) + 1) if SHARD.format(n) not in self._record.files)
        entry, written = write_shard(self._folder, SHARD.format(number), table_NX, rows)
        shards = sorted((*self._record.shards, entry), key=lambda shard: (len(shard.file), shard.file))
        files = {**self._record.files, entry.file: written}
        self._write(replace(self._record, shards=tuple(shards), data="", files=dict(sorted(files.items()))))
        self._tables[entry.file] = table_NX
        self._waiting, self._pending = [], set()
        self._index = self._build_index()

    def _write(self, record: CacheRecord) -> None:
        write_record(self._folder, record)
        self._record = record

    def _build_index(self) -> ExampleIndex:
        tables = list(self._tables.values())
        return ExampleIndex(np.concatenate(tables) if tables else np.zeros((0, len(COLUMNS)), np.int64))

    def _take_over(self, record: CacheRecord) -> CacheRecord | None:
        """Return what an earlier writer stored, without shards that were damaged since."""
        form, plan = record.format, self._plan
        found = {**record.teacher, "kind of cache": form.kind, "dtype of cache": form.dtype}
        wanted = {**self._facts, "kind of cache": plan.kind, "dtype of cache": plan.dtype}
        if form.kind == plan.kind == "topk":
            found["k"], wanted["k"] = form.width, min(plan.k, form.vocabulary)
        found["vocabulary of cache"], wanted["vocabulary of cache"] = form.vocabulary, self._teacher.vocabulary
        if wrong := find_differences(found, wanted):
            raise InvalidInput(
                f"{self._folder} is a cache of another teacher, or of another kind: {'; '.join(wrong)}. Choose another "
                "folder, or remove it."
            )
        damaged = find_damage(self._folder, record)
        if HEAD in damaged:
            raise InvalidInput(f"{self._folder} is damaged: {damaged[HEAD]}. Remove the folder, and build it anew.")
        if damaged:
            warnings.warn(
                f"{self._folder} is damaged: {'; '.join(damaged.values())}. What it held is asked anew.",
                SafekdWarning,
                stacklevel=4,
            )
        kept: list[ShardEntry] = [shard for shard in record.shards if shard.file not in damaged]
        files = {name: stated for name, stated in record.files.items() if name not in damaged}
        reader = ShardReader(self._folder, record)
        for place, shard in enumerate(record.shards):
            if shard.file not in damaged:
                self._tables[shard.file] = reader.read_table(place)
        return replace(record, shards=tuple(kept), files=files, data="" if damaged else record.data)

    def _remove_others(self) -> None:
        """Take away what a killed writer left, and shards that are listed no more."""
        listed = self._record.files if self._record else {}
        for pattern in (f".*{PART}", "shard-*.safetensors", HEAD):
            for path in self._folder.glob(pattern):
                if path.name not in listed:
                    path.unlink()


def read_facts(teacher: LanguageTeacher, who: str) -> dict[str, Any]:
    """Return what a teacher says of itself, as JSON can hold it.

    Args:
        teacher: The teacher.
        who: The same, for messages.

    Raises:
        InvalidInput: It says something that JSON cannot hold, or that is about a cache.
    """
    facts = dict(teacher.manifest())
    for name, value in facts.items():
        if not isinstance(name, str) or not isinstance(value, (str, int, float, bool, type(None))):
            raise InvalidInput(f"{who} says of itself {name!r}: {value!r:.80}; wanted text and numbers by name.")
        if name.startswith("cache_"):
            raise InvalidInput(f"{who} answers out of a cache already; copy its folder instead.")
    return facts


def find_damage(folder: Path, record: CacheRecord) -> dict[str, str]:
    """Return what is wrong with each file that is not as it was written, in words, by name.

    Args:
        folder: Of the teacher.
        record: What its manifest says.
    """
    wrong = {}
    reader, places = ShardReader(folder, record), {shard.file: place for place, shard in enumerate(record.shards)}
    for name, stated in record.files.items():
        try:
            misfit = find_misfit(folder, name, stated)
            if misfit is None and hash_file(folder / name) != dict(stated):
                misfit = f"{name} is not what was written: it has another hash"
            if misfit is None and name in places:
                reader.read_table(places[name])
            elif misfit is None:
                open_head(folder, record)
        except InvalidInput as error:
            misfit = str(error)
        if misfit is not None:
            wrong[name] = misfit
    return wrong
