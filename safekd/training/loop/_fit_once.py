"""One training from its beginning, or from its checkpoint, to its result; and a result from the state that it left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._fit_result import FitResult
from .._training_problem import TrainingProblem
from .._warm_start import WarmStart
from ._fit_inputs import FitData, FitOptions
from ._fit_loop import FitLoop


def fit_once(
    problem: TrainingProblem, data: FitData, options: FitOptions, warm_start: WarmStart | None = None
) -> FitResult:
    """Train once under the problem's constraints, and judge.

    Args:
        problem: Its student, optimizer and weighting rule are trained in place.
        data: Splits on the problem's device.
        options: How long, and what is read on the way.
        warm_start: Where to begin; None for where the student is.

    Raises:
        InvalidInput: A split is missing, a constraint covers no example, or the warm start is of another problem.
    """
    with problem.ranks.watch():
        loop = FitLoop(problem, data.share(problem.ranks), options, warm_start)
        verdict = loop.run()
        result = loop.result(verdict)
    if options.checkpoints is not None:
        options.checkpoints.finish_training(loop.step, lambda: loop.read_ending(verdict))
    loop.callbacks.end(result)
    return result


def restore_result(
    problem: TrainingProblem, data: FitData, options: FitOptions, ending: Mapping[str, Any]
) -> FitResult:
    """Return the result of a training that has ended, from the state that it left.

    Args:
        problem: As it was posed; its student and weighting rule are put where they ended.
        data: Splits on the problem's device.
        options: As they were.
        ending: Of ``FitLoop.read_ending``.

    Raises:
        InvalidInput: It is of another problem.
    """
    loop = FitLoop(problem, data.share(problem.ranks), options, None)
    return loop.result(loop.load_ending(ending))
