"""One contender through all steps of a cell, looked at now and then."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..primal_dual._cells import missing
from ..primal_dual._steps import Contender, Scale
from ._judge import Judge, Look
from ._problem import Setup


@dataclass(frozen=True)
class Course:
    """What was seen of a run.

    Args:
        looks: In order, up to the last step, or to where something was not a number.
        seconds: Of the processor, without the judge.
        best: One more student that the contender hands over as its best feasible one, if it does.
        says: Its own verdict, empty if it gives none.
        note: Why it did not run, or stopped.
    """

    looks: tuple[Look, ...]
    seconds: float
    best: Look | None = None
    says: str = ""
    note: str = ""


def run_contender(setup: Setup, who: Contender, scale: Scale) -> Course:
    """Let a contender take all its steps.

    Args:
        setup: Cell and seed.
        who: The contender.
        scale: Its setting.

    Returns:
        What was seen; a missing package gives no looks and a note.
    """
    problem, judge = setup.problem(), Judge(setup)
    x = problem.start()
    try:
        walker = who.build(problem, x, scale)
    except ImportError as cause:
        return Course((), 0.0, note=missing(who.package, cause))
    looks: list[Look] = []
    spent = 0.0
    for step in range(problem.every, problem.steps + 1, problem.every):
        start = time.process_time()
        for _ in range(problem.every):
            walker.step()
        spent += time.process_time() - start
        lambda_M, _ = walker.multipliers()
        looks.append(judge.look(step, x, lambda_M, last=step == problem.steps))
        if not looks[-1].finite:
            return Course(tuple(looks), spent, note=f"not finite after {step} steps")
    return Course(tuple(looks), spent)
