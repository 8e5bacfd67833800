"""What a cache says of itself, and what is compared with a teacher before any number of it is used.

    CACHE/cache.json                          the teachers, each with the name of its folder
    CACHE/TEACHER/manifest.json               ``CacheRecord``, with size and SHA-256 of each file
    CACHE/TEACHER/head.safetensors            of hidden states: the output matrix, once
    CACHE/TEACHER/shard-00000.safetensors     examples (N, 6), and a row a position

A manifest is written anew after each shard, so that what it lists is whole; it holds no time and no random number, so
that a build that was stopped and went on ends with the same bytes as one that was not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ..._number_checks import is_whole
from ...errors import InvalidInput
from ...io.folders import MANIFEST, read_manifest, write_checked_json
from ._answer_formats import AnswerFormat

HEAD, SHARD = "head.safetensors", "shard-{:05d}.safetensors"
_CACHED_TEACHER = "cached teacher"
_PLACES = ("name_or_path",)  # where a model lay says nothing of what it is
_OWN = "cache_"  # begins the names of facts about the cache itself
_SHARD = re.compile(r"shard-\d{5,9}\.safetensors")
_Count = Annotated[int, Field(ge=0, lt=2**48)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Fact = str | int | float | bool | None


@dataclass(frozen=True)
class HeadFacts:
    """What is told of a head beside its matrix.

    Attributes:
        sha256: Of its numbers.
        dtype: Of the matrix.
        scale: Factor of the logits.
        softcap: Soft cap of the logits, or None.
    """

    sha256: str
    dtype: str
    scale: _Finite
    softcap: _Finite | None


@dataclass(frozen=True)
class ShardEntry:
    """One shard.

    Attributes:
        file: Its name.
        examples: How many it holds.
        positions: How many positions.
        index_sha256: Of its table of examples, which is read when a cache is opened.
    """

    file: str
    examples: _Count
    positions: _Count
    index_sha256: str


@dataclass(frozen=True)
class CacheRecord:
    """What one teacher's folder holds.

    Attributes:
        name: Of the teacher.
        teacher: What the teacher said of itself.
        format: How answers are stored.
        inputs: Names of the inputs that it was asked about; empty where they were one tensor.
        head: Of hidden states; None of top-k tables.
        shards: In order.
        data: Hash of the examples, in whatever order they came; empty until all are there.
        files: Size and SHA-256 of each file, by name.
    """

    name: str
    teacher: dict[str, _Fact]
    format: AnswerFormat
    inputs: tuple[str, ...] = ()
    head: HeadFacts | None = None
    shards: tuple[ShardEntry, ...] = ()
    data: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all examples are there."""
        return bool(self.data)

    @property
    def examples(self) -> int:
        """How many examples are stored."""
        return sum(shard.examples for shard in self.shards)

    @property
    def positions(self) -> int:
        """How many positions are stored."""
        return sum(shard.positions for shard in self.shards)

    def list_facts(self) -> dict[str, _Fact]:
        """Return what tells this cache from another one: what its teacher said of itself, and ``cache_`` fields."""
        facts: dict[str, _Fact] = {
            "cache_kind": self.format.kind,
            "cache_dtype": self.format.dtype,
            "cache_vocabulary": self.format.vocabulary,
            "cache_width": self.format.width,
            "cache_data": self.data,
        }
        return {**self.teacher, **facts, **({"cache_head": self.head.sha256} if self.head else {})}


_RECORD = TypeAdapter(CacheRecord)


def write_record(folder: Path, record: CacheRecord) -> None:
    """Write the manifest of a teacher's folder; it appears whole or not at all.

    Args:
        folder: Holds the files that the record lists.
        record: What is written.
    """
    write_checked_json({"kind": _CACHED_TEACHER, **asdict(record)}, folder / MANIFEST)


def read_record(folder: Path) -> CacheRecord:
    """Return the manifest of a teacher's folder; its files are not looked at.

    Args:
        folder: The folder.

    Raises:
        InvalidInput: There is none, it was changed, or it is that of something else.
    """
    manifest = read_manifest(folder, _CACHED_TEACHER)
    try:
        record = _RECORD.validate_json(json.dumps({**manifest.about, "files": manifest.files}), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{folder / MANIFEST} is not that of a cached teacher: {where}: {first['msg']}.") from error
    listed = {shard.file for shard in record.shards} | ({HEAD} if record.head else set())
    named = all(_SHARD.fullmatch(shard.file) for shard in record.shards)
    for name, stated in record.files.items():
        size = stated.get("bytes")
        if not is_whole(size) or size < 0:  # type: ignore[operator]
            raise InvalidInput(
                f"{folder / MANIFEST} is not that of a cached teacher: the size of {name} is {size!r:.40}, no number."
            )
    hidden = record.format.kind == "hidden"
    if not named or listed != set(record.files) or len(record.shards) + hidden != len(listed):
        raise InvalidInput(f"{folder / MANIFEST} is not that of a cached teacher: its files are not its shards.")
    return record


def find_differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Return in which fields two teachers differ, in words.

    Args:
        found: What the cache says.
        wanted: What is asked for.  Where it says nothing of the cache itself, that is not compared.
    """
    if not any(name.startswith(_OWN) for name in wanted):
        found = {name: value for name, value in found.items() if not name.startswith(_OWN)}
    names = [name for name in {**wanted, **found} if name not in _PLACES]
    return [
        f"{name.removeprefix(_OWN)} is {_show_fact(found, name)}, wanted {_show_fact(wanted, name)}"
        for name in names
        if name not in found or name not in wanted or found[name] != wanted[name]
    ]


def _show_fact(facts: Mapping[str, object], name: str) -> str:
    return repr(facts[name])[:120] if name in facts else "not told"
