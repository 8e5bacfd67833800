"""Two real English texts that ship inside packages, cut into windows of tokens.

    reference   Python's own language reference, ``pydoc_data.topics`` of the standard library (PSF License)
    licence     the texts of 2,000 software licences, package licensedcode-data of ScanCode (CC-BY-4.0)

Licences copy from each other: a paragraph of which a fifth stands in an earlier one is left out.  Windows are drawn at
random, so what a certificate says is about windows of these texts that hold a critical word.
"""

from __future__ import annotations

import importlib.util
import pydoc_data.topics
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safekd as kd

CONTEXTS = ("reference", "licence")
# a student that loses one of these turns a prohibition into a permission
CRITICAL_WORDS = ("not", "Not", "NOT", "no", "No", "NO", "never", "cannot", "without", "nor", "neither", "unless")
SHINGLE, MOST_COPIED, SHORTEST = 6, 0.2, 15  # words
ENOUGH = 1_500_000  # letters of licences, copies included


@dataclass(frozen=True)
class Splits:
    """Windows of both texts, no window in two of them.

    Attributes:
        train: What students learn from.
        validation: What teachers' safety is measured on.
        held_out: What the table and its certificates are about.
        adapter: Windows that adapters are trained on, a list of token lists for each text.
        critical: Token numbers of the critical words.
    """

    train: kd.Split
    validation: kd.Split
    held_out: kd.Split
    adapter: Sequence[Sequence[list[int]]]
    critical: Sequence[int]


def read_reference() -> list[str]:
    """Return the paragraphs of Python's language reference that are prose."""
    topics = pydoc_data.topics.topics
    return [p for name in sorted(topics) for p in split_paragraphs(topics[name]) if is_prose(p)]


def read_licences() -> list[str]:
    """Return paragraphs of English software licences, those left out that copy earlier ones.

    Raises:
        SystemExit: The package is not installed.
    """
    spec = importlib.util.find_spec("licensedcode")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The texts of licences are missing: pip install --no-deps licensedcode-data")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "licenses"
    paragraphs: list[str] = []
    paths = sorted(folder.glob("*.LICENSE"))
    for path in random.Random(0).sample(paths, len(paths)):
        if sum(map(len, paragraphs)) > ENOUGH:
            break
        text = path.read_text(encoding="utf-8", errors="replace")
        head, text = text.split("---", 2)[1:] if text.startswith("---") else ("", text)
        if "language:" not in head:
            paragraphs += [p for p in split_paragraphs(text) if is_prose(p)]
    return leave_out_copies(paragraphs)


def split_paragraphs(text: str) -> list[str]:
    """Return paragraphs, each on one line."""
    return [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text)]


def is_prose(paragraph: str) -> bool:
    """Say whether a paragraph is mostly words: no grammar, code or table."""
    letters = sum(c.isalpha() or c == " " for c in paragraph)
    return len(paragraph.split()) >= SHORTEST and letters > 0.85 * len(paragraph)


def leave_out_copies(paragraphs: Iterable[str]) -> list[str]:
    """Return paragraphs without those of which many runs of words stand in an earlier one."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for paragraph in paragraphs:
        words = re.findall(r"[a-z]+", paragraph.lower())
        runs = {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}
        if len(runs & seen) <= MOST_COPIED * len(runs):
            seen |= runs
            kept.append(paragraph)
    return kept


def cut_windows(paragraphs: Sequence[str], tokenizer: Any, length: int) -> list[list[int]]:
    """Return windows of ``length + 1`` tokens: with each position goes the next token, its label."""
    ids = tokenizer("\n".join(paragraphs), verbose=False)["input_ids"]
    return [ids[i : i + length + 1] for i in range(0, len(ids) - length, length + 1)]


def make_splits(
    texts: Sequence[Sequence[str]], tokenizer: Any, *, length: int, train: int, validation: int, held_out: int
) -> Splits:
    """Draw windows at random.

    Args:
        texts: Paragraphs of each text, in the order of CONTEXTS.
        tokenizer: Of student and teachers.
        length: Positions of a window.
        train: Windows of each text to train on.
        validation: To measure teachers on.
        held_out: For table and certificates.
    """
    critical = kd.language.critical_tokens(tokenizer, CRITICAL_WORDS)
    chosen: dict[str, list[tuple[int, list[int]]]] = {"train": [], "validation": [], "held_out": []}
    adapter = []
    for context, paragraphs in enumerate(texts):
        windows = cut_windows(paragraphs, tokenizer, length)
        random.Random(context).shuffle(windows)
        worded = [w for w in windows if not set(critical).isdisjoint(w[1:])]
        start = 0
        for name, size in (("train", train), ("validation", validation), ("held_out", held_out)):
            if start + size > len(worded):
                raise SystemExit(
                    f"'{CONTEXTS[context]}' has {len(worded)} windows with a critical word; fewer than asked."
                )
            chosen[name] += [(context, w) for w in worded[start : start + size]]
            start += size
        plain = [w for w in windows if set(critical).isdisjoint(w[1:])]
        adapter.append([*worded[start:], *plain])
    splits = {name: _make_split(name, rows, length) for name, rows in chosen.items()}
    return Splits(**splits, adapter=adapter, critical=critical)


def _make_split(name: str, rows: Sequence[tuple[int, list[int]]], length: int) -> kd.Split:
    windows, contexts = [window for _, window in rows], [context for context, _ in rows]
    return kd.language.as_text_source(windows, name=name, length=length, context=contexts, context_names=CONTEXTS)
