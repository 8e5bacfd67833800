"""The student writes, all three teachers score every position, four ways; a short run; see README.md.

    python examples/language_model/off_policy.py --out runs/lm       # first: it begins with the uniform student of that
    python examples/language_model/on_policy.py --out runs/lm

Half of the batches are the student's own text, the others the fixed windows of the off-policy example.  Constraints are
the two of that example, read on the fixed windows, and two on what the student writes: little probability for the
tokens of web addresses, which a small model makes up, and no address in the text.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from off_policy import prepare
from real_texts import Splits
from result_table import describe_student, format_table
from safetensors.torch import load_file
from student_runs import VARIANTS, RunSettings, RunState, make_constraints, make_rule, measure_evidence

import safekd as kd

ADDRESS = ("http", "https", "www", "://", ".com", ".org")
OWN_TASK, PROMPT = 1, 16  # task of what the student writes; tokens of a prompt


@dataclasses.dataclass(frozen=True)
class WritingSettings:
    """Numbers of the on-policy run.

    Attributes:
        steps: Optimizer steps of each variant.
        batch: Examples of a batch.
        length: Tokens that the student writes after a prompt.
        share: Of its own batches.
        every: Steps between rounds of writing.
        rate: Learning rate.
        unsafe_mass: Least probability to be kept off the tokens of addresses, at each position on average.
        without_address: Least share of texts without an address.
    """

    steps: int = 24
    batch: int = 6
    length: int = 32
    share: float = 0.5
    every: int = 4
    rate: float = 5e-4
    unsafe_mass: float = 0.99
    without_address: float = 0.9


def make_written_constraints(tokens: Sequence[int], writing: WritingSettings) -> list[Any]:
    """Return the constraints on what the student writes.

    Args:
        tokens: Of addresses.
        writing: Numbers of the run.
    """
    return [
        kd.SafetyConstraint(
            "address tokens", kd.safety.UnsafeMass(tokens), at_least=writing.unsafe_mass, tasks=[OWN_TASK]
        ),
        kd.language.WrittenConstraint("no address", "no address", writing.without_address, tasks=[OWN_TASK]),
    ]


def write_and_learn(
    variant: str,
    student: kd.language.CausalStudent,
    teachers: Sequence[Any],
    evidence: Any,
    splits: Splits,
    tokenizer: Any,
    settings: RunSettings,
    writing: WritingSettings,
    file: Path,
    say: Callable[[str], None],
) -> tuple[kd.language.LanguageStep, kd.language.RolloutCounts]:
    """Train a student on its own text and on fixed windows; it goes on from ``file`` where that is there.

    Args:
        variant: One of VARIANTS.
        student: Learns.
        teachers: K of them, asked as the student writes.
        evidence: What was measured of them.
        splits: The texts.
        tokenizer: Of all of them.
        settings: Numbers of the off-policy example.
        writing: Numbers of this run.
        file: Checkpoint.
        say: Prints progress.
    """
    constraints = []
    if variant == "constrained":
        addresses = kd.language.critical_tokens(tokenizer, ADDRESS, several="first")
        of_text = make_constraints(splits.critical, settings.asked)
        of_text = [dataclasses.replace(constraint, tasks=[0]) for constraint in of_text]
        constraints = [*of_text, *make_written_constraints(addresses, writing)]
    step = kd.language.LanguageStep(
        [teacher.name for teacher in teachers],
        weights=make_rule(variant, len(teachers), settings.lower),
        constraints=constraints,
        divergence=kd.language.ReverseKL(),
        evidence=evidence,
        dual=kd.PIGain(ema=settings.smoothing),
        budget=settings.budget,
        horizon=writing.steps,
    )
    windows = splits.train.inputs["input_ids"]
    rollouts = kd.language.Rollouts(
        windows[:, :PROMPT],
        student.model,
        share=writing.share,
        every=writing.every,
        length=writing.length,
        batch_size=writing.batch,
        fixed=splits.train,
        context=splits.train.context,
        task=torch.full((len(windows),), OWN_TASK),
        scores={"no address": kd.language.WithoutStrings(ADDRESS[:4], tokenizer.decode)},
    )
    learned = list(student.parameters())
    optimizer = torch.optim.AdamW(learned, lr=writing.rate, weight_decay=0.0)
    state = RunState(student, optimizer, step, {"rollouts": rollouts})
    ask = kd.language.TeacherSet(teachers)
    for batch in itertools.islice(rollouts, writing.steps - state.load(file)):
        step.begin([batch])
        loss = step.loss(student.hidden(batch.inputs), student.head, ask(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        record = step.finish()
        if record.step % writing.every == 0 or record.step == writing.steps:
            state.save(file, record.step)
            say(f"step {record.step} of {writing.steps}, loss {record.loss:.3f}")
    return step, rollouts.counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the example.

    Args:
        arguments: Those of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lm"), help="folder of the off-policy example")
    parser.add_argument("--steps", type=int, default=WritingSettings.steps, help="optimizer steps of each student")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - begun:6.0f} s] {text}", flush=True)

    settings, writing = RunSettings(), dataclasses.replace(WritingSettings(), steps=given.steps)
    given.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer, splits, teachers = prepare(given.out, settings, say)
    first = given.out / "uniform.safetensors"
    if first.exists():
        state = load_file(first)
        model.load_state_dict(
            {n.removeprefix("student.model."): x for n, x in state.items() if n.startswith("student.")}, strict=False
        )
    else:
        say(f"{first} is not there: students begin untrained")
    write_variants(model, tokenizer, splits, teachers, settings, writing, given.out, say)


def write_variants(
    model: torch.nn.Module,
    tokenizer: Any,
    splits: Splits,
    teachers: Sequence[Any],
    settings: RunSettings,
    writing: WritingSettings,
    out: Path,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train and describe one student a variant, all from the same first student.

    Args:
        model: The first student.
        tokenizer: Of all.
        splits: The texts.
        teachers: K of them.
        settings: Numbers of the off-policy example.
        writing: Numbers of this run.
        out: Folder.
        say: Prints progress.
    """
    evidence = measure_evidence(teachers, splits.validation, splits.critical)
    rows = []
    for variant in VARIANTS:
        torch.manual_seed(0)
        student = kd.language.CausalStudent(copy.deepcopy(model).train())
        file = out / f"written-{variant}.safetensors"
        step, counts = write_and_learn(
            variant,
            student,
            teachers,
            evidence,
            splits,
            tokenizer,
            settings,
            writing,
            file,
            lambda text, variant=variant: say(f"{variant}: {text}"),
        )
        row = describe_student(variant, student, step, teachers, splits.held_out, splits.critical, settings)
        say(f"{variant}: {counts.written} texts written, {counts.dropped} dropped, at most {counts.oldest} steps old")
        rows.append({**row, "written": counts.written, "dropped": counts.dropped, "oldest": counts.oldest})
    pd.DataFrame(rows).to_csv(out / "written-table.csv", index=False)
    text = format_table(rows)
    (out / "written-table.md").write_text(text + "\n", encoding="utf-8")
    say("\n" + text)
    return rows


if __name__ == "__main__":
    main()
