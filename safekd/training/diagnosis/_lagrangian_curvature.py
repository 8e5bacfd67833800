"""Second-order check of a stationary student: does it sit at a minimum of its Lagrangian, or at a saddle?

A gradient of zero is necessary, not sufficient: a network of zeros has it, and is a saddle.  Lanczos' method looks for
the direction along the active constraints in which the Lagrangian curves down the most, from a few products of its
Hessian with a vector; a step along it must then truly lower the augmented Lagrangian before anything is said.
Axes: n parameters, M constraints, A active ones, k steps of Lanczos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..._modes import evaluating
from .._full_pass import read_surrogate_factors
from .._objective import CHUNK
from .._parameter_vectors import split_vector
from ._merit_function import MeritFunction

_BASIS = 2**28  # numbers that the basis of Lanczos' method may hold: memory, not accuracy


@dataclass(frozen=True)
class CurvatureSettings:
    """Numbers of the check; ``tests/safekd/training/diagnosis/test_verdicts.py`` notices them.

    Attributes:
        products: Products with the Hessian at most.
        flat: Curvature above minus this share of the largest counts as none.
        trial_lengths: Of steps along the direction, as shares of the student's own size.
        agreement: Share of a product by which the two ways to compute it may differ, and its size below which it is not
            compared.
        symmetry: Share of a product that may lie along old directions, and its size below which it may.
        least_scale: Curvatures below are compared with this, a unit of parameters: rounding alone curves that much.
    """

    products: int = 16
    flat: float = 1e-3
    trial_lengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    agreement: tuple[float, float] = (0.05, 1e-4)
    symmetry: tuple[float, float] = (1e-2, 1e-9)
    least_scale: float = 1e-4


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


def measure_curvature(merit: MeritFunction, jacobian_Mn: Tensor, tolerance: float, passes: int) -> LagrangianCurvature:
    """Examine the Lagrangian's curvature where the student is, along the active constraints.

    A student that cannot be differentiated twice is read by differences.

    Args:
        merit: Holds student, multipliers and splits.
        jacobian_Mn: Gradients of g, (M, n).
        tolerance: Of the run.
        passes: About how many products with the Hessian it may cost.
    """
    objective, point, parameters = merit.objective, merit.point, merit.parameters
    active = [
        m
        for m, (multiplier, reading) in enumerate(zip(point.multipliers, point.readings, strict=True))
        if multiplier > tolerance or reading.required - reading.measured > -tolerance
    ]
    normals_An = _orthonormal(jacobian_Mn[active].to(parameters[0].device))

    def project_onto_tangent(v_n: Tensor) -> Tensor:
        flat_n: Tensor = v_n - normals_An.T @ (normals_An @ v_n)
        return flat_n

    compared: list[bool] = []

    def differentiate_twice(v_n: Tensor) -> Tensor:
        product_n = project_onto_tangent(_hessian_product(merit, project_onto_tangent(v_n)))
        if objective.fixed and not compared:
            gap, size = (product_n - take_differences(v_n)).norm(), product_n.norm()
            share, least_gap = SETTINGS.agreement
            if bool(gap > share * size) and bool(
                gap > least_gap
            ):  # where only first derivatives are known, terms go missing
                raise RuntimeError("products with its Hessian are not those that differences of gradients show")
            compared.append(True)
        return product_n

    def take_differences(v_n: Tensor) -> Tensor:
        return project_onto_tangent(_difference_product(merit, project_onto_tangent(v_n)))

    steps = min(SETTINGS.products, max(passes, 2))
    # targets of a rule that looks at the student would move with it
    methods = [differentiate_twice, take_differences] if objective.fixed else [differentiate_twice]
    with evaluating(objective.student):
        for product in methods:
            try:
                least, largest, direction_n = _lanczos(product, project_onto_tangent, parameters, steps)
                break
            except RuntimeError as error:
                not_examined = str(error).splitlines()[0]
        else:
            return LagrangianCurvature(float("nan"), float("nan"), 0.0, not_examined)
        if not (math.isfinite(least) and math.isfinite(largest)):
            return LagrangianCurvature(least, largest, 0.0, "second derivatives are not finite")
        if direction_n is None or not least < -SETTINGS.flat * max(abs(least), abs(largest), SETTINGS.least_scale):
            return LagrangianCurvature(least, largest, 0.0)
        return LagrangianCurvature(least, largest, _merit_decrease(merit, direction_n))


def _orthonormal(rows_An: Tensor) -> Tensor:
    """Return an orthonormal basis of what the rows span; rows that vanish beside the largest span nothing."""
    if not len(rows_An):
        return rows_An
    _, size_A, basis_An = torch.linalg.svd(rows_An, full_matrices=False)
    spanning_An: Tensor = basis_An[size_A > 1e-8 * size_A[0].clamp_min(1e-300)]
    return spanning_An


def _lanczos(
    product: Callable[[Tensor], Tensor], project: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], steps: int
) -> tuple[float, float, Tensor | None]:
    """Return least and largest curvature seen, and a unit direction of the least; every step is made orthogonal."""
    n, device = sum(p.numel() for p in parameters), parameters[0].device
    steps = max(1, min(steps, n, _BASIS // n))
    start = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    v_n, basis, diagonal, beside = project(start), [], [], []
    scale = float(v_n.norm())
    if not scale > 1e-9 * n**0.5:
        return 0.0, 0.0, None  # the active constraints leave no direction
    v_n = v_n / scale
    for _ in range(steps):
        basis.append(v_n)
        w_n = product(v_n)
        diagonal.append(float(w_n @ v_n))
        held_kn = torch.stack(basis)
        _require_symmetric(held_kn, w_n)
        for _ in range(2):  # once more for what rounding left
            w_n = w_n - held_kn.T @ (held_kn @ w_n)
        length = float(w_n.norm())
        if not length > 1e-10 * max(map(abs, diagonal)):
            break
        beside.append(length)
        v_n = w_n / length
    k = len(diagonal)
    small_kk = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, length in enumerate(beside[: k - 1]):
        small_kk[i, i + 1] = small_kk[i + 1, i] = length
    if not bool(torch.isfinite(small_kk).all()):
        return float("nan"), float("nan"), None
    values_k, vectors_kk = torch.linalg.eigh(small_kk)
    direction_n = torch.stack(basis).T @ vectors_kk[:, 0].to(device)
    return float(values_k[0]), float(values_k[-1]), direction_n / direction_n.norm()


def _require_symmetric(held_kn: Tensor, w_n: Tensor) -> None:
    """Raise RuntimeError if a product has a part along old directions, which that of a symmetric matrix has not.

    Functions of which only the first derivative is known can lose part of the second without a word.
    """
    lost = (held_kn[:-2] @ w_n).norm()
    share, least_lost = SETTINGS.symmetry
    if bool(lost > share * w_n.norm()) and bool(lost > least_lost):
        raise RuntimeError("products with its Hessian are not those of a symmetric matrix")


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


def _difference_product(merit: MeritFunction, v_n: Tensor) -> Tensor:
    """Return nearly the same from the difference of two gradients, multipliers standing still."""
    start_n, lambda_M = merit.vector(), merit.point.multipliers
    length = torch.finfo(merit.parameters[0].dtype).eps ** (1 / 3) * max(1.0, float(np.abs(start_n).max()))
    ends = []
    with merit.restore_afterwards():
        for sign in (1.0, -1.0):
            full = merit.read(start_n + sign * length * v_n.cpu().numpy(), with_gradients=True)
            ends.append(full.gradient_n + full.jacobian_Mn.T @ full.jacobian_Mn.new_tensor(lambda_M))
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
        for index in split.chunks(CHUNK):
            batch = split.batch(index)
            logits_V = objective.logits(batch)
            log_p_V = torch.log_softmax(logits_V, -1)
            share = logits_V.new_zeros(())
            if name == "train":
                log_q_V = objective.target(split, index, logits_V.detach())
                share = share + objective.loss(log_q_V, logits_V).sum() / split.labels.numel()
            for m in here:
                share = share - lambda_M[m] * (factors[m] * rules[m].sums(log_p_V, batch).smooth_G).sum()
            yield share


def _merit_decrease(merit: MeritFunction, direction_n: Tensor) -> float:
    """Return how far the augmented Lagrangian falls along a direction, on average of both its ends.

    The average leaves the second-order part alone: small residuals let one of the ends fall anywhere.
    """
    start_n, step_n = merit.vector(), direction_n.cpu().numpy()
    size = max(1.0, 0.1 * float(np.linalg.norm(start_n)))
    with merit.restore_afterwards():
        here = merit.value(start_n)
        both = [
            merit.value(start_n + size * x * step_n) + merit.value(start_n - size * x * step_n)
            for x in SETTINGS.trial_lengths
        ]
    decreases = [here - pair / 2 for pair in both]
    return max(0.0, *(decrease for decrease in decreases if decrease == decrease))
