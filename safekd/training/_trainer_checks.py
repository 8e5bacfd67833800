"""What ConstrainedTrainer refuses before anything is trained, and what it reads its arguments as."""

from __future__ import annotations

import inspect
import math

import torch

from solvers.polytope import WeightPolytope

from .._number_checks import is_number, is_whole
from .._registry import find_operator
from ..divergences import DIVERGENCES
from ..errors import InvalidInput
from ..weights import walk_rule
from ._objective import Loss, Objective


def require_batch_sizes(batch_size: int | None, microbatch_size: int | None) -> int | None:
    """Return how many examples may go through the student at once, None where nobody said."""
    for name, size, none in (
        ("batch_size", batch_size, "the whole split"),
        ("microbatch_size", microbatch_size, "all of a step at once"),
    ):
        if size is not None and (not is_whole(size) or size < 1):
            kind = "at least 1" if is_whole(size) else "a whole number of at least 1"
            raise InvalidInput(f"`{name}` is {size!r}; wanted {kind}, or None for {none}.")
    return batch_size if microbatch_size is None else min(microbatch_size, batch_size or microbatch_size)


def require_step_numbers(clip_norm: float | None, ema: float | None) -> None:
    """Refuse a gradient's length, or a share of the past, that is none."""
    if clip_norm is not None and not (is_number(clip_norm) and clip_norm > 0):
        raise InvalidInput(f"`clip_norm` is {clip_norm!r}; wanted a length above 0, such as 1.0, or None.")
    if ema is not None and not (is_number(ema) and 0 < ema < 1):
        raise InvalidInput(f"`ema` is {ema!r}; wanted a share above 0 and below 1, such as 0.999, or None.")


def read_autocast(given: str | torch.dtype | None) -> torch.dtype | None:
    """Return the half type of autocast."""
    known = {"bfloat16": torch.bfloat16, "bf16": torch.bfloat16, "float16": torch.float16, "fp16": torch.float16}
    half = known.get(given, given) if isinstance(given, str) else given
    if half not in (None, torch.bfloat16, torch.float16):
        raise InvalidInput(f"`autocast` is {given!r}; wanted 'bfloat16', 'float16', or None to compute as it is.")
    return half if isinstance(half, torch.dtype) else None


def require_fit_numbers(
    epochs: int,
    tolerance: float,
    trace_every: int | None,
    snapshots: int | None,
    patience: int | None,
    constraints: int,
) -> None:
    """Refuse numbers of a fit under so many constraints that are out of range."""
    if not is_whole(epochs) or epochs < 1:
        raise InvalidInput(f"`epochs` is {epochs!r}; wanted at least 1, a whole number.")
    if not is_number(tolerance) or not 0 < tolerance < math.inf:
        raise InvalidInput(f"`tolerance` is {tolerance!r}; it must be above 0 and finite, for example 1e-3.")
    if trace_every is not None and (not is_whole(trace_every) or trace_every < 1):
        raise InvalidInput(f"`trace_every` is {trace_every!r}; wanted at least 1 step between full passes, or None.")
    if patience is not None and (not is_whole(patience) or patience < 1):
        raise InvalidInput(
            f"`patience` is {patience!r}; wanted at least 1 evaluation without a better student, or None."
        )
    needed = constraints + 2
    if snapshots is not None and (not is_whole(snapshots) or snapshots < needed):
        raise InvalidInput(
            f"`snapshots` is {snapshots!r}; wanted at least {needed}, since the best mixture under "
            f"{constraints} constraints may need {needed - 1} of them, or None."
        )


def require_patience_split(patience: int | None, validation: object, tighten: object) -> None:
    """Refuse patience where no split, or one that is kept for judging, could be looked at."""
    if patience is None:
        return
    if validation is None:
        raise InvalidInput("`patience` looks at the validation split, and none was given: fit(train, validation, ...).")
    if tighten is not None:
        raise InvalidInput("`patience` looks at the validation split, which `tighten` keeps for judging; give one.")


def require_plain_step(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that evaluates the loss itself: multipliers move once a step, not once an evaluation."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InvalidInput(
            f"{type(optimizer).__name__}.step needs a closure to evaluate the loss several times a step, between which "
            "multipliers would have to stand still; take torch.optim.Adam or SGD. For a problem of few parameters "
            "solvers.minimize uses L-BFGS under constraints."
        )


def require_polytope_names(objective: Objective) -> None:
    """Refuse a polytope that calls the teachers by other names than theirs, or in another order."""
    for _, part in walk_rule(objective.rule, lambda _: True):
        if isinstance(part, WeightPolytope) and part.names and list(part.names) != objective.ensemble.names:
            raise InvalidInput(
                f"A polytope of the weighting rule is about the teachers {', '.join(part.names)}, the ensemble is "
                f"{', '.join(objective.ensemble.names)}; wanted the same names in the same order."
            )


def find_divergence(given: Loss | str | None) -> Loss:
    """Return a divergence; a name or a class of the library stands for one at its defaults."""
    found: Loss = find_operator("forward_kl" if given is None else given, DIVERGENCES, "divergence")
    return found


def require_evaluation_examples(examples: int | None) -> None:
    """Refuse a number of examples that evaluations cannot read."""
    if examples is not None and (not is_whole(examples) or examples < 1):
        raise InvalidInput(
            f"`evaluation_examples` is {examples!r}; wanted a whole number of at least 1, or None for as many as cost "
            "little of the training."
        )
