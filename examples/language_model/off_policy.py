"""Distil three teachers into a student of 17 million parameters, from a cache, four ways; see README.md.

    python examples/language_model/off_policy.py --out runs/lm
    torchrun --nproc-per-node 2 examples/language_model/off_policy.py --out runs/lm2

A second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from real_texts import Splits, make_splits, read_licences, read_reference
from result_table import describe_student, pick_first, time_parts, write_results
from smollm_family import load_base, make_student, make_teachers, train_adapters
from student_runs import VARIANTS, RunSettings, make_step, measure_evidence, train_student

import safekd as kd
from safekd.distributed import Ranks, join_ranks

Say = Callable[[str], None]


def prepare(out: Path, settings: RunSettings, say: Say) -> tuple[Any, Any, Splits, list[Any]]:
    """Return base, tokenizer, texts and teachers; what was made before is read from ``out``.

    Args:
        out: Folder.
        settings: Numbers of the example.
        say: Prints progress.
    """
    base, tokenizer = load_base(out / "base", say)
    texts = [read_reference(), read_licences()]
    sizes = {name: getattr(settings, name) for name in ("length", "train", "validation", "held_out")}
    splits = make_splits(texts, tokenizer, **sizes)
    student = make_student(base, width=settings.width, layers=settings.layers)
    model = train_adapters(base, splits.adapter, out / "adapters", settings.adapter_steps, say)
    return student, tokenizer, splits, make_teachers(model, tokenizer)


def cache_teachers(teachers: Sequence[Any], splits: Splits, folder: Path, say: Say) -> list[Any]:
    """Ask every teacher once about all windows that are to be distilled, and return what answers from disk.

    Args:
        teachers: K of them.
        splits: The texts.
        folder: Of the cache.
        say: Prints progress.
    """
    held_out = splits.held_out.part(pick_first(splits.held_out))
    batches = [b for split in (splits.train, splits.validation, held_out) for b in split.batches(8)]
    cached = []
    for teacher in teachers:
        start = time.perf_counter()
        cached += kd.language.write_cache(folder, teacher, batches, kind="hidden")
        say(
            f"teacher '{teacher.name}' answered {sum(map(len, batches))} windows in {time.perf_counter() - start:.0f} s"
        )
    return cached


def run_variants(
    student: torch.nn.Module,
    teachers: Sequence[Any],
    splits: Splits,
    settings: RunSettings,
    out: Path,
    ranks: Ranks,
    say: Say,
    *,
    timed: bool = True,
) -> list[dict[str, Any]]:
    """Train and describe one student a variant, all from the same first student.

    Args:
        student: The first student.
        teachers: K of them.
        splits: The texts.
        settings: Numbers of the example.
        out: Folder.
        ranks: Who takes part.
        say: Prints progress.
        timed: Whether the parts of a step are timed.
    """
    evidence = measure_evidence(teachers, splits.validation, splits.critical)
    rows = []
    for variant in VARIANTS:
        torch.manual_seed(0)
        own = kd.language.CausalStudent(copy.deepcopy(student))
        step = make_step(variant, teachers, evidence, splits.critical, settings, ranks)
        own.train()
        train_student(
            own,
            step,
            teachers,
            splits.train,
            settings,
            out / f"{variant}.safetensors",
            lambda text, variant=variant: say(f"{variant}: {text}"),
        )
        rows.append(describe_student(variant, own, step, teachers, splits.held_out, splits.critical, settings))
    if ranks.is_first:
        first = kd.language.CausalStudent(copy.deepcopy(student))
        share = time_parts(first, teachers, evidence, splits.critical, splits.train, settings) if timed else None
        write_results(rows, share, out, say)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example.

    Args:
        arguments: Those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lm"), help="folder of all that is kept")
    parser.add_argument("--steps", type=int, default=RunSettings.steps, help="optimizer steps of each student")
    given = parser.parse_args(arguments)
    settings = dataclasses.replace(RunSettings(), steps=given.steps)
    begun = time.perf_counter()

    with join_ranks() as ranks:

        def say(text: str) -> None:
            if ranks.is_first:
                print(f"[{time.perf_counter() - begun:6.0f} s] {text}", flush=True)

        if ranks.is_first:  # the others find everything ready
            given.out.mkdir(parents=True, exist_ok=True)
            student, _, splits, live = prepare(given.out, settings, say)
            teachers = cache_teachers(live, splits, given.out / "cache", say)
            del live
        ranks.agree(None)
        if not ranks.is_first:
            student, _, splits, live = prepare(given.out, settings, say)
            teachers = [kd.language.CachedTeacher(given.out / "cache", teacher.name) for teacher in live]
        run_variants(student, teachers, splits, settings, given.out, ranks, say)
        say(f"done; processor time {time.process_time():.0f} s")


if __name__ == "__main__":
    main()
