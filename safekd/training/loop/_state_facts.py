"""What a run was given: for advice at its end, and for how often it is evaluated."""

from __future__ import annotations

import math

import torch

from .._training_problem import TrainingProblem
from ..diagnosis import STATUS_SETTINGS, RunFacts
from ._fit_inputs import FitData, FitOptions
from ._gradient_sampling import choose_trace_interval


def state_facts(problem: TrainingProblem, data: FitData, options: FitOptions) -> RunFacts:
    """Return the facts of a run as it stands.

    Args:
        problem: What was trained.
        data: On what.
        options: How long, and what was read on the way.
    """
    groups = problem.optimizer.param_groups
    rate = max(float(group.get("lr", 0.0)) for group in groups)
    dtypes = {p.dtype for p in problem.student.parameters() if p.requires_grad}
    coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
    return RunFacts(
        examples=len(data.train),
        batch_size=problem.batch_rows(data.train),
        rate=rate,
        first_rate=max(float(group.get("initial_lr", rate)) for group in groups),
        weight_decay=max(float(group.get("weight_decay", 0.0)) for group in groups),
        cap=problem.dual.cap,
        validation="validation" in data.splits,
        certifiable=[rule.name for rule in problem.constraints if not rule.is_equality],
        sampled=None if options.stationarity is None else options.stationarity.examples,
        dtype=str(coarsest).removeprefix("torch."),
        eps=torch.finfo(coarsest).eps,
    )


def choose_default_interval(
    problem: TrainingProblem, data: FitData, options: FitOptions, steps: int, batch_size: int
) -> int:
    """Return how many steps apart evaluations are where nobody says.

    Args:
        problem: What is trained.
        data: Of the fit.
        options: Of the fit.
        steps: Of the whole run.
        batch_size: Examples a step.
    """
    constraints = problem.constraints
    sizes, constrained = count_reads(problem, data)
    parts = batch_size > (problem.microbatch_size or batch_size) or data.streams_beside(constraints)
    few = math.ceil(steps / STATUS_SETTINGS.least_points)  # a verdict needs so many, in short runs too
    interval = choose_trace_interval(
        sizes,
        constrained,
        batch_size,
        options.stationarity,
        reads_twice=bool(constraints) and parts,
        weighs_rows=not problem.holds_jacobian,
    )
    return min(few, interval)


def count_reads(problem: TrainingProblem, data: FitData) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many examples an evaluation reads, by what it reads, and how many constraints each of these has.

    Args:
        problem: What is trained.
        data: What evaluations read.
    """
    constraints, sizes = problem.constraints, {"train": len(data.train)}
    sizes |= {name: len(data.splits[name]) for name in data.splits if name in {rule.split for rule in constraints}}
    constrained = {name: sum(rule.split == name for rule in constraints) for name in sizes}
    if "validation" in data.splits:  # read a second time, without gradients
        sizes["validation, all constraints"] = len(data.splits["validation"])
    return sizes, constrained
