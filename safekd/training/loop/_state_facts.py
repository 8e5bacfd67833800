"""What a run was given, read off its problem for advice at its end."""

from __future__ import annotations

import torch

from .._training_problem import TrainingProblem
from ..diagnosis import RunFacts
from ._fit_inputs import FitData, FitOptions


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
