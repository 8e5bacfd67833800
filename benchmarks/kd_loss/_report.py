"""The results as Markdown, and the goals that are met or missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..projection._report import table
from ._cells import Cost
from ._contenders import BUDGETS, RULE, STACKED, STRAIGHT, Size, name_ours

PLACE = (1024, 49_152)  # N and V of the goals
MOST_MIB, TIMES_BELOW = 80, 20  # at a budget of 64 MiB; straightforward over ours
MOST_TIME = {64: 1.0, 128: 0.85}  # of straightforward
MOST_SHARE = 0.05  # of the loss, for weights, projection and measures


@dataclass(frozen=True)
class Summary:
    """A contender at a size: least seconds, least processor seconds, largest peak in MiB, value of the loss."""

    seconds: float
    busy: float
    mib: float
    loss: float
    note: str


Summaries = dict[tuple[Size, str], Summary]


def summarize(costs: Sequence[Cost]) -> Summaries:
    """Return what counts of each contender's rounds."""
    rounds: dict[tuple[Size, str], list[Cost]] = {}
    for cost in costs:
        rounds.setdefault((cost.size, cost.way), []).append(cost)
    return {
        key: Summary(
            min(c.seconds for c in several),
            min(c.busy for c in several),
            max(math.nan if c.bytes is None else c.bytes / 2**20 for c in several),
            several[-1].loss,
            several[-1].note,
        )
        for key, several in rounds.items()
    }


def write_report(
    costs: Sequence[Cost], distances: Sequence[tuple[float, float, float]], facts: str, *, by_processor: bool
) -> tuple[str, list[str]]:
    """Return the report, and the goals that are missed.

    by_processor: whether times are compared by processor seconds: with one thread they are those of an idle machine.
    """
    summaries = summarize(costs)
    goals = judge(summaries, by_processor) + judge_distances(distances)
    lines = [[what, wanted, measured, "met" if met else "**missed**"] for what, wanted, measured, met in goals]
    parts = [
        "# Distillation over a vocabulary: ours beside plain torch, TRL and Liger",
        f"Written by `python -m benchmarks.kd_loss`, {facts}",
        "Forward and backward of one call, float32. MiB are the resident peak beyond the gradients, which all hand "
        "over. "
        "Contenders take turns; the least seconds and the largest peak of each count. CPU s are processor seconds of "
        "all threads: less moved by what else the machine does. TRL and Liger know one teacher: for K > 1 the mean of "
        "K calls, which is another loss.",
        f"Goals compare {'processor seconds, since there is one thread' if by_processor else 'wall seconds'}.",
        "## Goals",
        table(["what", "goal", "measured", ""], lines),
        *_tables(summaries),
        "## A model's distance from itself",
        "1,000 tokens; the teacher's head is padded by 64 rows, to which it gives nothing; all logits are shifted.",
        table(
            ["shift", "Liger", "ours"],
            [[f"{shift:g}", f"{theirs:.4g}", f"{ours:g}"] for shift, theirs, ours in distances],
        ),
    ]
    return "\n\n".join(parts) + "\n", [what for what, _, _, met in goals if not met]


def _tables(summaries: Summaries) -> list[str]:
    parts = []
    for size in dict.fromkeys(size for size, _ in summaries):
        learned = ", weights learn" if size.learned else ""
        parts.append(f"## K = {size.K}, V = {size.V:,}, N = {size.N:,}, H = {size.H}{learned}")
        straight = summaries.get((size, STRAIGHT))
        rows = []
        for (other, way), s in summaries.items():
            if other != size:
                continue
            if s.note:
                rows.append([way, s.note, "", "", "", "", ""])
                continue
            ratios = ["-"] * 3 if straight is None else [
                _ratio(s.seconds, straight.seconds), _ratio(s.busy, straight.busy), _ratio(straight.mib, s.mib)
            ]  # fmt: skip
            rows.append([way, f"{s.seconds:.2f}", ratios[0], f"{s.busy:.2f}", ratios[1], f"{s.mib:.0f}", ratios[2]])
        head = ["", "s", "of straightforward", "CPU s", "of straightforward", "MiB", "times below"]
        parts.append(table(head, rows))
    return parts


def _ratio(over: float, under: float) -> str:
    return f"{over / under:.2f}" if under > 0 and not math.isnan(over / under) else "-"


Goal = tuple[str, str, str, bool]


def judge(summaries: Summaries, by_processor: bool) -> list[Goal]:
    """Return what was wanted at the place of the goals, what was measured, and whether it is met."""
    goals: list[Goal] = []
    for size in dict.fromkeys(size for size, _ in summaries):
        here = {way: s for (other, way), s in summaries.items() if other == size and not s.note}
        if (size.N, size.V, size.learned) != (*PLACE, False) or name_ours(64) not in here:
            continue
        seconds = {way: s.busy if by_processor else s.seconds for way, s in here.items()}
        if size.K == 3:
            goals += _judge_three(here, seconds)
            goals += [_judge_rule(seconds, budget) for budget in BUDGETS if f"{name_ours(budget)}, {RULE}" in here]
        if size.K == 1:
            for way in [way for way in here if way.startswith(("TRL", "Liger"))]:
                time = seconds[name_ours(64)] / seconds[way]
                memory = here[name_ours(64)].mib / here[way].mib
                what = f"K = 1, 64 MiB: time and memory over those of {way}"
                goals.append((what, "< 1, < 1", f"{time:.2f}, {memory:.2f}", time < 1 and memory < 1))
    return goals


def _judge_three(here: dict[str, Summary], seconds: dict[str, float]) -> list[Goal]:
    mib = here[name_ours(64)].mib
    goals = [("K = 3, 64 MiB: memory", f"<= {MOST_MIB} MiB", f"{mib:.0f} MiB", mib <= MOST_MIB)]
    for way in (STRAIGHT, STACKED):
        if way in here:
            times = here[way].mib / max(mib, 1e-9)
            what = f"K = 3, 64 MiB: memory of {way} over it"
            goals.append((what, f">= {TIMES_BELOW}", f"{times:.1f}", times >= TIMES_BELOW))
    if STRAIGHT in here:
        for budget, most in MOST_TIME.items():
            share = seconds[name_ours(budget)] / seconds[STRAIGHT]
            goals.append(
                (f"K = 3, {budget} MiB: time over that of {STRAIGHT}", f"<= {most:g}", f"{share:.2f}", share <= most)
            )
    return goals


def _judge_rule(seconds: dict[str, float], budget: int) -> Goal:
    share = 1 - seconds[name_ours(budget)] / seconds[f"{name_ours(budget)}, {RULE}"]
    what = f"K = 3, {budget} MiB: share of rule, projection and measures in the time of the loss alone"
    return what, f"< {MOST_SHARE:.0%}", f"{share:.1%}", share < MOST_SHARE


def judge_distances(distances: Sequence[tuple[float, float, float]]) -> list[Goal]:
    """Return whether a model is at distance zero from itself."""
    worst = max((abs(ours) for _, _, ours in distances), default=math.nan)
    return [("distance of a model from itself, padded and shifted", "0", f"{worst:g}", worst == 0)]
