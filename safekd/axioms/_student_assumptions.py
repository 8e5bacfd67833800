"""What data tell of the student: (A3), realizable, and (A4), smooth.  Axes: B rows, K teachers, V classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._torch_state import call_module, evaluation_mode, extract_logits
from ..data import Inputs, list_inputs, map_inputs
from ..errors import InvalidInput
from ..pooling import arithmetic_pool
from ._audit_report import Finding
from .continuity import JumpSearchSettings, Line, search_line


@dataclass(frozen=True)
class StudentCheckSettings:
    """How the student is looked at; ``tests/safekd/axioms/test_pareto_axiom.py`` notices.

    Attributes:
        realized: KL from the mixture that counts as equal to it, nats.
        step: Length of a line through the parameters, as a share of each parameter's own norm.
        lines: How many lines are searched for kinks.
    """

    realized: float = 1e-6
    step: float = 0.1
    lines: int = 4


_CHECKS = StudentCheckSettings()


def judge_realizable(w_BK: Tensor, log_p_BKV: Tensor | None, student_BV: Tensor | None) -> Finding:
    """Judge (A3) by the student as it is: its KL from the mixture of the teachers, on average and at worst.

    Args:
        w_BK: Weights, (B, K).
        log_p_BKV: Teachers' log-probabilities, (B, K, V).
        student_BV: The student's log-probabilities, (B, V).
    """
    if not len(w_BK):
        return Finding("A3", "student", "not_applicable", "There are no rows.")
    if log_p_BKV is None or student_BV is None:
        text = "The signals do not hold both the teachers' log-probabilities and the student's."
        return Finding("A3", "student", "not_applicable", text)
    try:
        q_BV = arithmetic_pool(log_p_BKV, w_BK)
    except InvalidInput as refusal:
        return Finding("A3", "student", "not_applicable", f"There is no mixture to compare with. {refusal}")
    p_BV = q_BV.exp()
    kl_B = torch.where(p_BV == 0, 0.0, p_BV * (q_BV - student_BV)).sum(-1)
    worst, judged = int(kl_B.argmax()), len(kl_B)
    amount = float(kl_B[worst])
    if amount <= _CHECKS.realized:
        return Finding("A3", "student", "holds", "The student equals the mixture everywhere.", amount, None, 0, judged)
    text = (
        f"The student as it is misses the mixture by {float(kl_B.mean()):.3g} nats on average, {amount:.3g} at worst "
        "(KL); what is left after training cannot be realized."
    )
    return Finding("A3", "student", "estimated", text, amount, (worst,), 0, judged)


def judge_smooth(student: nn.Module, inputs: Inputs, seed: int) -> Finding:
    """Judge (A4) by looking for jumps of the derivative of log-probabilities along lines through the parameters.

    Args:
        student: Module from inputs to logits.
        inputs: (B, ...), or a dictionary of them.
        seed: Which lines.
    """
    start = {name: p.detach().double() if p.is_floating_point() else p for name, p in student.state_dict().items()}
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    wide = map_inputs(inputs, lambda value: value.double() if value.is_floating_point() else value)
    generator = torch.Generator().manual_seed(seed)
    worst, where, steepest = 0.0, 0, 0.0
    with evaluation_mode(student):
        for _ in range(_CHECKS.lines):
            line = _draw_parameter_line(student, wide, start, trained, generator)
            seen = search_line(line, True, JumpSearchSettings.for_dtype(torch.float64))
            row = int(seen.jump_B.argmax())
            amount = float(seen.jump_B[row])
            if math.isnan(amount) or amount > worst:
                worst, where = amount, row
            steepest = max(steepest, float(seen.slope_B.max()))
    judged = len(line.speed_B)
    if worst != 0:
        text = f"The derivative of a log-probability by the parameters jumps by {worst:.3g} along a line through them."
        remedy = "Use activations without kinks (softplus, GELU, tanh), average instead of max pooling."
        return Finding("A4", "student", "violated", text, worst, (where,), 1, judged, remedy)
    text = (
        f"No jump of the derivative by the parameters along {_CHECKS.lines} lines; its slope is at most "
        f"{steepest:.3g} there."
    )
    return Finding("A4", "student", "estimated", text, steepest, None, 0, judged)


def _draw_parameter_line(
    student: nn.Module, inputs: Inputs, start: dict[str, Tensor], trained: set[str], generator: torch.Generator
) -> Line:
    direction = {}
    for name in sorted(trained):
        step = torch.randn(start[name].shape, generator=generator, dtype=torch.float64).to(start[name].device)
        length = float(start[name].norm()) or 1.0
        direction[name] = step * (_CHECKS.step * length / float(step.norm().clamp_min(1e-30)))
    fixed = {name: value for name, value in start.items() if name not in trained}
    size = float(torch.stack([step.square().sum() for step in direction.values()]).sum().sqrt()) if direction else 0.0

    def log_p(place: Tensor) -> Tensor:
        parameters = {name: start[name] + place * step for name, step in direction.items()}

        def run(*given: Tensor, **named: Tensor) -> Any:
            return torch.func.functional_call(student, {**fixed, **parameters}, given, named)

        return extract_logits(call_module(run, inputs), "The student").log_softmax(-1)

    def evaluate_derivative(place_B: Tensor) -> Tensor:
        place = place_B[0]
        derivative: Tensor = torch.func.jvp(log_p, (place,), (torch.ones_like(place),))[1]
        return derivative.detach().reshape(-1, derivative.shape[-1])

    device = list_inputs(inputs)[0].device
    rows = log_p(torch.zeros((), dtype=torch.float64, device=device)).numel()
    classes = evaluate_derivative(torch.zeros(1, dtype=torch.float64, device=device)).shape[-1]
    return Line(
        "parameters",
        evaluate_derivative,
        torch.full((rows // classes,), size, dtype=torch.float64, device=device),
    )
