"""Second-order check of a stationary student: does it sit at a minimum of its Lagrangian, or at a saddle?

A gradient of zero is necessary, not sufficient: a network of zeros has it, and is a saddle.  Lanczos' method
(``solvers.second_order``) looks for the direction along the active constraints in which the Lagrangian curves down the
most, from a few products of its Hessian with a vector; a step along it must then truly lower the augmented Lagrangian
before anything is said.
Axes: n parameters, M constraints, A active ones, k steps of Lanczos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from solvers.second_order import SETTINGS as SECOND_ORDER
from solvers.second_order import estimate_curvature, orthonormal_rows, project_on_tangent

from ..._precision import log_softmax
from ..._torch_state import evaluation_mode
from .._full_pass import read_surrogate_factors
from .._parameter_vectors import split_vector
from ._merit_function import MeritFunction


@dataclass(frozen=True)
class CurvatureSettings:
    """Numbers of the check; ``tests/safekd/training/diagnosis/test_verdicts.py`` notices them.

    Attributes:
        trial_lengths: Of steps along the direction, as shares of the student's own size.
        agreement: Share of a product by which the two ways to compute it may differ, and its size below which it is not
            compared.
        beside: Vectors that are held beside the basis of Lanczos' method: products, steps, and gradients on the way.
        echoes: How often the merit is read beside the point, one rounding of the parameters away, to learn how much of
            a decrease is rounding.
    """

    trial_lengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    agreement: tuple[float, float] = (0.05, 1e-4)
    beside: int = 6
    echoes: int = 3


SETTINGS = CurvatureSettings()


@dataclass(frozen=True)
class LagrangianCurvature:
    """Curvature of the Lagrangian along the active constraints, as far as it was examined.

    Attributes:
        least: Least curvature.
        largest: Largest curvature.
        decrease: How much lower the augmented Lagrangian is along the direction of ``least``, 0 if nowhere, nats.
        not_examined: Why nothing could be examined; empty where it was.
    """

    least: float
    largest: float
    decrease: float
    not_examined: str = ""


def measure_curvature(merit: MeritFunction, jacobian_Mn: Tensor, tolerance: float, steps: int) -> LagrangianCurvature:
    """Examine the Lagrangian's curvature where the student is, along the active constraints.

    A student that cannot be differentiated twice is read by differences.  What counts as rounding follows from the
    coarsest floats that the student computes in.

    Args:
        merit: Holds student, multipliers and splits.
        jacobian_Mn: Gradients of g, (M, n).
        tolerance: Of the run.
        steps: Products with the Hessian, at most, and no more than whose vectors fit into the budget.

    Raises:
        BeyondBudget: Not even two vectors fit, or the time is over.
    """
    objective, point, parameters = merit.objective, merit.point, merit.parameters
    active = [
        m
        for m, (multiplier, reading) in enumerate(zip(point.multipliers, point.readings, strict=True))
        if multiplier > tolerance or reading.required - reading.measured > -tolerance
    ]
    eps = torch.finfo(_find_coarsest_dtype(merit)).eps
    precision = eps, eps ** (2 / 3)  # of a product that is differentiated, and of a difference of gradients
    normals_An = orthonormal_rows(jacobian_Mn[active].to(parameters[0].device), precision[0])
    compared: list[bool] = []

    def differentiate_twice(v_n: Tensor) -> Tensor:
        product_n = _hessian_product(merit, v_n)
        if objective.fixed and not compared:
            gap_n, size = project_on_tangent(product_n - take_differences(v_n), normals_An), product_n.norm()
            share, least_gap = SETTINGS.agreement
            share = max(share, SECOND_ORDER.rounding * precision[1])
            # where only first derivatives are known, terms go missing
            if bool(gap_n.norm() > max(share * size, least_gap)):
                raise RuntimeError("products with its Hessian are not those that differences of gradients show")
            compared.append(True)
        return product_n

    def take_differences(v_n: Tensor) -> Tensor:
        return _difference_product(merit, v_n, eps ** (1 / 3))

    # targets of a rule that looks at the student would move with it
    methods = [differentiate_twice, take_differences] if objective.fixed else [differentiate_twice]
    n, not_examined = sum(p.numel() for p in parameters), ""
    merit.meter.require_memory((SETTINGS.beside + 2) * n)
    steps = min(steps, merit.meter.most_vectors(n) - SETTINGS.beside)
    with evaluation_mode(objective.student):
        for product, error in zip(methods, precision, strict=False):
            try:
                seen = estimate_curvature(product, normals_An, n, steps, parameters[0].device, error)
                break
            except RuntimeError as refusal:
                not_examined = not_examined or str(refusal).splitlines()[0]
        else:
            return LagrangianCurvature(float("nan"), float("nan"), 0.0, not_examined)
        if not seen.finite:
            return LagrangianCurvature(seen.least, seen.largest, 0.0, "second derivatives are not finite")
        direction_n = seen.negative_direction_n
        decrease = 0.0 if direction_n is None else _merit_decrease(merit, direction_n, eps)
        return LagrangianCurvature(seen.least, seen.largest, decrease)


def _find_coarsest_dtype(merit: MeritFunction) -> torch.dtype:
    """Return the dtype of least precision among parameters and what the parts of the student give: autocast shows."""
    student, split = merit.objective.student, merit.splits["train"]
    seen = {p.dtype for p in merit.parameters}

    def remember(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            seen.add(output.dtype)

    hooks = [part.register_forward_hook(remember) for part in student.modules()]
    try:
        with torch.no_grad():
            merit.objective.logits(next(iter(split.batches(1))))
    finally:
        for hook in hooks:
            hook.remove()
    return max(seen, key=lambda dtype: torch.finfo(dtype).eps)


def _hessian_product(merit: MeritFunction, v_n: Tensor) -> Tensor:
    """Return the Hessian of the Lagrangian times ``v_n``, summed over chunks; targets and multipliers stand still."""
    parameters = merit.parameters
    parts = split_vector(v_n, parameters)
    total_n = torch.zeros_like(v_n)
    for value in _lagrangian_shares(merit):
        if not value.requires_grad:
            continue
        gradients = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
        pairs = [(row * part).sum() for row, part in zip(gradients, parts, strict=True) if row is not None]
        inner = torch.stack([pair.double() for pair in pairs]).sum()
        if not inner.requires_grad:
            continue  # linear in the parameters
        rows = torch.autograd.grad(inner, parameters, allow_unused=True)
        total_n += torch.cat(
            [
                (torch.zeros_like(p) if row is None else row).reshape(-1).double()
                for row, p in zip(rows, parameters, strict=True)
            ]
        )
    return total_n


def _difference_product(merit: MeritFunction, v_n: Tensor, share: float) -> Tensor:
    """Return nearly the same from the difference of two gradients, multipliers standing still.

    share: length of the step, in units of the largest parameter
    """
    start_n, lambda_M = merit.vector(), merit.point.multipliers
    length = share * max(1.0, float(np.abs(start_n[np.isfinite(start_n)]).max(initial=0)))
    ends = []
    with merit.restore_afterwards():
        for sign in (1.0, -1.0):
            full = merit.read(start_n + sign * length * v_n.cpu().numpy(), with_gradients=True)
            gradient_n, jacobian_Mn = full.require_gradients()
            ends.append(gradient_n + jacobian_Mn.T @ jacobian_Mn.new_tensor(lambda_M))
    apart_n: Tensor = (ends[0] - ends[1]) / (2 * length)
    return apart_n


def _lagrangian_shares(merit: MeritFunction) -> Iterator[Tensor]:
    """Yield the Lagrangian in shares that add up to it, one a chunk of a split."""
    objective, splits, rules, lambda_M = merit.objective, merit.splits, merit.constraints, merit.point.multipliers
    factors = read_surrogate_factors(objective, splits, rules)
    for name, split in splits.items():
        here = [m for m, rule in enumerate(rules) if rule.split == name and lambda_M[m] != 0]
        if name != "train" and not here:
            continue
        for batch in split.batches(merit.meter.most_rows(objective, split)):
            merit.meter.require_time()
            logits_V = objective.logits(batch)
            log_p_V = log_softmax(logits_V)
            share = logits_V.new_zeros(())
            if name == "train":
                log_q_V = objective.target(split, batch, logits_V.detach())
                share = share + batch.sum_positions(objective.loss(log_q_V, logits_V)) / split.positions
            for m in here:
                share = share - lambda_M[m] * (factors[m] * rules[m].sums(log_p_V, batch).surrogate_G).sum()
            yield share


def _merit_decrease(merit: MeritFunction, direction_n: Tensor, eps: float) -> float:
    """Return how far the augmented Lagrangian falls along a direction, on average of both its ends, beyond rounding.

    The average leaves the second-order part alone: small residuals let one of the ends fall anywhere.
    """
    start_n, step_n = merit.vector(), direction_n.cpu().numpy()
    size = max(1.0, 0.1 * float(np.linalg.norm(start_n[np.isfinite(start_n)])))
    signs = np.random.default_rng(0)
    with merit.restore_afterwards():
        here = merit.value(start_n)
        both = [
            merit.value(start_n + size * x * step_n) + merit.value(start_n - size * x * step_n)
            for x in SETTINGS.trial_lengths
        ]
        beside = [
            merit.value(start_n * (1 + eps * signs.choice((-1.0, 1.0), len(start_n)))) for _ in range(SETTINGS.echoes)
        ]
    rounding = max(abs(value - here) for value in beside)
    decreases = [here - pair / 2 - rounding for pair in both]
    return max(0.0, *(decrease for decrease in decreases if decrease == decrease))
