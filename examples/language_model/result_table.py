"""What the variants' students show on held-out text, as a table, a CSV file and a picture."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from real_texts import CONTEXTS
from student_runs import RunSettings, make_constraints, make_step, read_truth
from torch import Tensor

import safekd as kd
from safekd.distributed import Ranks

LOSS_WINDOWS = 16  # of each context: divergences need the teachers


def describe_student(
    variant: str,
    student: kd.language.CausalStudent,
    step: kd.language.LanguageStep,
    teachers: Sequence[Any],
    held_out: kd.Split,
    critical: Sequence[int],
    settings: RunSettings,
) -> dict[str, Any]:
    """Return one row of the table.

    Args:
        variant: Its name.
        student: Trained.
        step: Loss and multipliers at the end.
        teachers: K of them, who know the first windows of each context.
        held_out: Windows that nothing else saw.
        critical: Token numbers.
        settings: Numbers of the example.
    """
    student.eval()
    truth_NT = read_truth(lambda b: kd.language.Hidden(student.hidden(b.inputs), student.head), held_out)
    row: dict[str, Any] = {"variant": variant}
    row["loss"], row["weights moved"] = read_loss(student, step, teachers, held_out)
    nats = -float(truth_NT.mean())
    row |= {"cross-entropy": nats, "perplexity": math.exp(nats)}
    for constraint, certificate in zip(CONTEXTS, certify_truth(truth_NT, held_out, critical, settings), strict=True):
        row[f"safety, {constraint}"] = certificate.estimate
        row[f"lower bound, {constraint}"] = certificate.lower_bound
        row[f"certificate, {constraint}"] = certificate.decision_text
    for constraint, multiplier in zip(step.constraints, step.multipliers.tolist(), strict=True):
        row[f"multiplier, {constraint.name}"] = multiplier
    return row


def pick_first(held_out: kd.Split, windows: int = LOSS_WINDOWS) -> Tensor:
    """Return the places of the first windows of each context.

    Args:
        held_out: Windows.
        windows: Of each context.
    """
    return torch.cat([(held_out.context == c).nonzero()[:windows, 0] for c in range(len(CONTEXTS))])


def read_loss(
    student: kd.language.CausalStudent, step: kd.language.LanguageStep, teachers: Sequence[Any], held_out: kd.Split
) -> tuple[float, float]:
    """Return the divergence from the variant's own pool, and how far its weights are from equal ones.

    Args:
        student: Trained.
        step: Its loss.
        teachers: K of them.
        held_out: Windows.

    Returns:
        Nats a position; half the sum of ``|w - 1/K|`` on average over positions.
    """
    loss, moved, positions = 0.0, 0.0, 0
    for index in pick_first(held_out).split(8):
        batch = held_out.batch(index)
        with torch.no_grad():
            hidden = student.hidden(batch.inputs)
        read = step.measure(hidden, student.head, [teacher(batch) for teacher in teachers], batch)
        loss += float(read.distillation) * read.positions
        moved += float((read.weights - 1 / len(teachers)).abs().sum()) / 2
        positions += read.positions
    return loss / positions, moved / positions


def certify_truth(
    truth_NT: Tensor, held_out: kd.Split, critical: Sequence[int], settings: RunSettings
) -> list[kd.safety.Certificate]:
    """Return what held-out text shows of each context; windows are independent, their positions are not.

    Args:
        truth_NT: log p(y).
        held_out: Windows.
        critical: Token numbers.
        settings: Has the promised thresholds.
    """
    window_NT = torch.arange(len(held_out))[:, None].expand(truth_NT.shape)
    batch = held_out.batch()
    found = []
    for constraint in make_constraints(critical, settings.promised):
        inside_NT = constraint.covers(batch)
        values = kd.safety.ClusteredValues(truth_NT[inside_NT].exp(), window_NT[inside_NT])
        found.append(kd.safety.certify_values(constraint, [values]))
    return found


def time_parts(
    student: kd.language.CausalStudent,
    teachers: Sequence[Any],
    evidence: Any,
    critical: Sequence[int],
    split: kd.Split,
    settings: RunSettings,
    repeats: int = 9,
) -> float:
    """Return which share of a step weights, projection and measures take: least times on one thread, in turns.

    Args:
        student: Any.
        teachers: K of them.
        evidence: What was measured of them.
        critical: Token numbers.
        split: Has the batch that is timed.
        settings: Numbers of the example.
        repeats: Of each.
    """
    batch = split.batch(torch.arange(settings.batch) * (len(split) // settings.batch))
    steps = {v: make_step(v, teachers, evidence, critical, settings, Ranks()) for v in ("uniform", "constrained")}
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other count as busy
    for _ in range(repeats):
        for name, step in steps.items():
            step.steps = settings.steps  # in the midst of a run: at first scales of multipliers are read besides
            start = time.process_time()
            step.begin([batch])
            outputs = [teacher(batch) for teacher in teachers]
            step.loss(student.hidden(batch.inputs), student.head, outputs, batch).backward()
            optimizer.step()
            step.finish()
            seconds[name].append(time.process_time() - start)
            optimizer.zero_grad()
    torch.set_num_threads(threads)
    plain, whole = (min(times) for times in seconds.values())  # what else the machine does only adds
    return max(whole - plain, 0.0) / whole


def write_results(rows: Sequence[dict[str, Any]], share: float | None, out: Path, say: Callable[[str], None]) -> str:
    """Write CSV, table and picture, and return the table.

    Args:
        rows: One a variant.
        share: Of a step that weights, projection and measures take; None where nobody timed it.
        out: Folder.
        say: Prints the table.
    """
    pd.DataFrame(rows).to_csv(out / "table.csv", index=False)
    text = format_table(rows)
    if share is not None:
        text += f"\n\nWeights, projection and measures together take {share:.1%} of a step's processor time."
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    draw_safety(rows, out / "safety.png")
    say("\n" + text)
    return text


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a markdown table.

    Args:
        rows: One a variant.
    """
    heads = ["variant", "loss", "perplexity", *(f"safety, {c} (95 % bound)" for c in CONTEXTS), "weights moved"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        safety = [
            f"{row[f'safety, {c}']:.3f} ({row[f'lower bound, {c}']:.3f}, {row[f'certificate, {c}']})" for c in CONTEXTS
        ]
        cells = [
            row["variant"],
            f"{row['loss']:.3f}",
            f"{row['perplexity']:.1f}",
            *safety,
            f"{row['weights moved']:.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_safety(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw safety and its bound beside what was promised.

    Args:
        rows: One a variant.
        file: A PNG file.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(CONTEXTS), figsize=(8, 3), sharey=True)
    for axis, context in zip(axes, CONTEXTS, strict=True):
        values = [row[f"safety, {context}"] for row in rows]
        below = [row[f"safety, {context}"] - row[f"lower bound, {context}"] for row in rows]
        axis.bar([row["variant"] for row in rows], values, color="#7aa6c2")
        axis.errorbar(range(len(rows)), values, yerr=[below, [0.0] * len(rows)], fmt="none", color="black", capsize=4)
        axis.set_title(f"{context}: p(critical word), held out")
        axis.tick_params(axis="x", rotation=20)
    axes[0].set_ylabel("mean probability, 95 % bound")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
