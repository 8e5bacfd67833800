"""How much of the data an evaluation reads: all of them, or a sample where that would cost too much of the training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...errors import InvalidInput
from .._fit_result import Verdict
from .._training_problem import TrainingProblem
from ._fit_inputs import FitData, FitOptions
from ._gradient_sampling import SETTINGS as TRACING
from ._gradient_sampling import count_work
from ._state_facts import count_reads

SAMPLE_SEED = 0  # that of the sample which a stream holds from its first pass


@dataclass(frozen=True)
class EvaluationSampleSettings:
    """When an evaluation reads a sample; ``tests/safekd/training/loop/test_evaluation_sample.py`` notices.

    Attributes:
        large: Examples of a source up to which all are read, whatever that costs.
        least: Examples of a sample at least: a mean of numbers between 0 and 1 is then known to 0.008 or better.
        least_covered: Examples of the smallest group of a constraint that a sample holds on average; with 64 it holds
            none once in 10^27 samples.
        passes: Evaluations that the shortest run makes: one at the start, one after each quarter of the steps, two of
            them at the end, and a correction.
    """

    large: int = 2**16
    least: int = 2**12
    least_covered: int = 64
    passes: int = 7


SETTINGS = EvaluationSampleSettings()


def sample_evaluations(
    problem: TrainingProblem, data: FitData, options: FitOptions, steps: int, batch_size: int
) -> FitData:
    """Return the data that evaluations read: a sample of each source that is larger.

    Args:
        problem: What is trained.
        data: Of the fit.
        options: Of the fit; how many examples are read, or None for as many as ``choose_evaluation_examples`` says.
        steps: Of the whole run.
        batch_size: Examples a step.

    Raises:
        InvalidInput: A group of a constraint has no example among as many as were asked for.
    """
    examples = options.evaluation_examples
    if examples is None:
        examples = choose_evaluation_examples(problem, data, options, steps, batch_size)
    if examples is None or all(len(source) <= examples for source in data.by_name.values()):
        return data
    read = data.sample(examples, SAMPLE_SEED)
    try:
        read.require_covered(problem.constraints, problem.objective)
    except InvalidInput as error:
        raise InvalidInput(
            f"Evaluations read {examples:,} examples, drawn at random, which is too few: {error} "
            "Raise `evaluation_examples`, or leave it out."
        ) from error
    return read


def choose_evaluation_examples(
    problem: TrainingProblem, data: FitData, options: FitOptions, steps: int, batch_size: int
) -> int | None:
    """Return how many examples of each source an evaluation reads; None for all.

    All, unless a source is large and reading all at the first and the last step alone would cost more than the share of
    the training's work that evaluations may; then as many as keep that share.

    Args:
        problem: What is trained.
        data: Of the fit.
        options: Of the fit.
        steps: Of the whole run.
        batch_size: Examples a step.
    """
    largest = max(len(source) for source in data.by_name.values())
    if largest <= SETTINGS.large:
        return None
    sizes, constrained = count_reads(problem, data)
    step, evaluation = count_work(sizes, constrained, batch_size, options.stationarity)
    allowed = TRACING.cost_share * steps * step
    if 2 * evaluation <= allowed:
        return None
    _, one = count_work(dict.fromkeys(sizes, 1), constrained, batch_size, None)
    examples = max(SETTINGS.least, int(allowed / (SETTINGS.passes * one)))
    for name, source in data.by_name.items():
        rules = [rule for rule in problem.constraints if rule.split == name]
        for count_G in problem.objective.count_groups(rules, source):
            examples = max(examples, math.ceil(SETTINGS.least_covered * len(source) / float(count_G.min())))
    return examples if examples < largest else None


def note_sample(verdict: Verdict, data: FitData, read: FitData) -> Verdict:
    """Say in a verdict how much of the data it rests on, where that is not all.

    Args:
        verdict: Of the run.
        data: Of the fit.
        read: What evaluations read.
    """
    parts = {
        name: (len(read.by_name[name]), len(source))
        for name, source in data.by_name.items()
        if read.by_name[name] is not source
    }
    if not parts:
        return verdict
    told = " and ".join(f"{some:,} of {every:,} examples of '{name}'" for name, (some, every) in parts.items())
    return replace(
        verdict,
        message=f"{verdict.message} Evaluations read {told}, drawn at random, so every number is that of the sample, "
        "with the standard errors of the trace.",
        evidence={**verdict.evidence, "examples_read": [float(some) for some, _ in parts.values()]},
    )
