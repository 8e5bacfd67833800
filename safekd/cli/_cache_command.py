"""``safekd cache build | verify | info``: models and texts in, a cache out, and what stands in one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..data import Batch, StreamSource
from ..errors import InvalidInput, escape_controls
from ..io import Text, read_texts
from ..language import CausalTeacher, as_text_source, describe_cache, verify_cache, write_cache
from ..language.cache import CacheProgress
from .terminal import print_plain, show_rows, show_written

_BLOCK = 64  # texts that are tokenized at a time
_ONE = {"name": "--name", "revision": "--revision", "gguf_file": "--gguf", "adapter": "--adapter", "prompt": "--prompt"}


@dataclass(frozen=True)
class BuildOptions:
    """What the command line says of a cache to be built.

    Attributes:
        models: Folders or names of models.
        files: Files of texts.
        texts: Of ``read_texts``.
        examples: Of ``as_text_source``.
        stored: Of ``write_cache``.
        loaded: Of ``CausalTeacher.load``.
    """

    models: Sequence[str]
    files: Sequence[Path]
    texts: Mapping[str, Any]
    examples: Mapping[str, Any]
    stored: Mapping[str, Any]
    loaded: Mapping[str, Any]


class TokenizedTexts:
    """Batches of the texts of files, tokenized as they are read.

    Args:
        options: Which files, and how they are cut.
        tokenizer: Of the teacher.

    Attributes:
        total: How many texts there are.
        done: How many have been answered for, parts of a text included.
    """

    def __init__(self, options: BuildOptions, tokenizer: Any) -> None:
        self._options, self._tokenizer = options, tokenizer
        self.total, self.done = sum(1 for _ in self._read()), 0.0
        if not self.total:
            raise InvalidInput(f"{', '.join(map(str, options.files))} holds no text; wanted at least one.")

    def __call__(self) -> Iterator[Batch]:
        """Open the stream: batches numbered from 0, ``done`` moves along."""
        texts, before, number = self._read(), 0, 0
        while block := list(islice(texts, _BLOCK)):
            if usable := [text for text in block if isinstance(text, str) or len(text) > 1]:
                for batch, share in self._cut(usable):
                    yield replace(batch, index=batch.index + number, split_size=None)
                    self.done = before + share * len(block)
                number += 1 + int(batch.index[-1])
            before += len(block)

    def _read(self) -> Iterator[Text]:
        for file in self._options.files:
            yield from read_texts(file, **self._options.texts)

    def _cut(self, texts: Sequence[Text]) -> Iterator[tuple[Batch, float]]:
        split = as_text_source(texts, self._tokenizer, name="texts", **self._options.examples)
        done = 0
        for batch in split.batches(self._options.stored["batch_size"]):
            done += len(batch)
            yield batch, done / len(split)


def show_build(out: Console, err: Console, folder: Path, options: BuildOptions, *, as_json: bool) -> int:
    """Build a cache with a progress bar, and print what it holds; return the exit code.

    Args:
        out: Where results are printed.
        err: Where the progress bar is drawn.
        folder: Of the cache.
        options: What is built.
        as_json: Whether the result is JSON.
    """
    if given := [option for key, option in _ONE.items() if key in options.loaded and len(options.models) > 1]:
        raise InvalidInput(
            f"{given[0]} is of one model, and {len(options.models)} are given; build them one after the other: a cache "
            "keeps the teachers that it has."
        )
    for path in options.models:  # one after the other: the last one is gone before the next is loaded
        _build_teacher(err, folder, CausalTeacher.load(path, **options.loaded), options)
    if as_json:
        return show_cache(out, folder, as_json=True)
    show_cache(out, folder, as_json=False)
    show_written(out, [folder])
    return 0


def _build_teacher(err: Console, folder: Path, teacher: CausalTeacher, options: BuildOptions) -> None:
    if teacher.tokenizer is None:
        raise InvalidInput(f"{teacher.path} holds no tokenizer; save it there: tokenizer.save_pretrained(...).")
    texts = TokenizedTexts(options, teacher.tokenizer)
    with show_rows(err) as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print_plain(err, f"safekd: {message}", style="yellow")
        task = progress.add_task(escape_controls(teacher.name), total=texts.total, rows="")

        def report(now: CacheProgress) -> None:
            elapsed = progress.tasks[0].elapsed or 0.0
            rate = f", {now.asked / elapsed:,.0f} a second" if elapsed and now.asked else ""
            progress.update(task, completed=texts.done, rows=f"{now.positions:,} tokens{rate}")

        write_cache(folder, teacher, StreamSource("texts", texts), on_progress=report, **options.stored)


def show_cache_verification(out: Console, path: Path, *, as_json: bool) -> int:
    """Print whether every file of a cache is as it was written; return the exit code.

    Args:
        out: Where it is printed.
        path: Folder of the cache, or of a teacher in it.
        as_json: Whether it is printed as JSON.
    """
    report = verify_cache(path)
    if as_json:
        facts = {
            "holds": report.holds(),
            "checked": report.checked,
            "wrong": dict(report.wrong),
            "notes": [*report.notes],
        }
        print_plain(out, json.dumps(facts, indent=2))
    else:
        print_plain(out, str(report))
    return 0 if report.holds() else 1


def show_cache(out: Console, path: Path, *, as_json: bool) -> int:
    """Print which teachers a cache holds; return the exit code.

    Args:
        out: Where it is printed.
        path: Folder of the cache, or of a teacher in it.
        as_json: Whether it is printed as JSON.
    """
    held = describe_cache(path)
    if as_json:
        print_plain(out, json.dumps([asdict(one) for one in held], indent=2))
        return 0
    table = Table("teacher", "kind", "dtype", "examples", "tokens", "bytes a token", "revision")
    for one in held:
        kind = f"{one.kind} {one.width:,}" + ("" if one.finished else ", not finished")
        sizes = (f"{one.examples:,}", f"{one.tokens:,}", f"{one.bytes_per_token:,.0f}")
        table.add_row(escape_controls(one.teacher), kind, one.dtype, *sizes, escape_controls(one.revision[:12]))
    out.print(table)
    return 0
