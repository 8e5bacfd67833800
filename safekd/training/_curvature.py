"""Does a student with small residuals sit at a minimum?  Second derivatives of its Lagrangian say so.

Zero slope is necessary, not sufficient: a network of zeros has it, and is a saddle.  Lanczos' method looks for the
direction along the active constraints in which the Lagrangian curves down the most, from a few products of its Hessian
with a vector; a step along it must then truly lower the augmented Lagrangian before anything is said.
Axes: n parameters, M constraints, A active ones, k steps of Lanczos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.second_order import SETTINGS as SECOND_ORDER
from solvers.second_order import estimate_curvature, orthonormal_rows, project_on_tangent

from .._torch_state import evaluating
from ._merit import Merit, parted

_CHUNK = 4096
_LENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of trial steps, as shares of the student's own size


@dataclass(frozen=True)
class Curvature:
    """least, most: of the Lagrangian along the active constraints, as far as it was looked at.

    drop: how much lower the augmented Lagrangian was found along the direction of ``least``, 0 if nowhere.
    unseen: why nothing could be looked at; empty where it was.
    """

    least: float
    most: float
    drop: float
    unseen: str = ""


def curvature(merit: Merit, jacobian_Mn: Tensor, tolerance: float, passes: int) -> Curvature:
    """Look at the Lagrangian's curvature where the student is, along the active constraints.

    passes: about how many products with the Hessian it may cost; at most those of ``solvers.second_order``.  A
    student that cannot be differentiated twice is read by differences.
    """
    objective, point, parameters = merit.objective, merit.point, merit.parameters
    active = [
        m
        for m, (price, reading) in enumerate(zip(point.multipliers, point.readings, strict=True))
        if price > tolerance or reading.required - reading.measured > -tolerance
    ]
    normals_An = orthonormal_rows(jacobian_Mn[active].to(parameters[0].device))

    def along(v_n: Tensor) -> Tensor:
        return project_on_tangent(v_n, normals_An)

    believed: list[bool] = []

    def exact(v_n: Tensor) -> Tensor:
        found_n = along(_hessian_product(merit, along(v_n)))
        if objective.fixed and not believed:
            gap, size = (found_n - by_differences(v_n)).norm(), found_n.norm()
            if bool(gap > 0.05 * size) and bool(gap > 1e-4):  # where only first derivatives are known, terms go missing
                raise RuntimeError("products with its Hessian are not those that differences of gradients show")
            believed.append(True)
        return found_n

    def by_differences(v_n: Tensor) -> Tensor:
        return along(_difference_product(merit, along(v_n)))

    steps, n = min(SECOND_ORDER.products, max(passes, 2)), sum(p.numel() for p in parameters)
    # targets of a rule that looks at the student would move with it
    ways = [exact, by_differences] if objective.fixed else [exact]
    with evaluating(objective.student):
        for product in ways:
            try:
                seen = estimate_curvature(product, normals_An, n, steps, parameters[0].device)
                break
            except RuntimeError as error:
                unseen = str(error).splitlines()[0]
        else:
            return Curvature(float("nan"), float("nan"), 0.0, unseen)
        if not seen.finite:
            return Curvature(seen.least, seen.largest, 0.0, "second derivatives are not finite")
        direction_n = seen.negative_direction_n
        return Curvature(seen.least, seen.largest, 0.0 if direction_n is None else _drop(merit, direction_n))


def _hessian_product(merit: Merit, v_n: Tensor) -> Tensor:
    """Return the Hessian of the Lagrangian times ``v_n``, summed over chunks; targets and multipliers stand still."""
    parameters = merit.parameters
    parts = parted(v_n, parameters)
    total_n = torch.zeros_like(v_n)
    for value in _shares(merit):
        if not value.requires_grad:
            continue
        slopes = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
        pairs = [(slope * part).sum() for slope, part in zip(slopes, parts, strict=True) if slope is not None]
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


def _difference_product(merit: Merit, v_n: Tensor) -> Tensor:
    """Return nearly the same from the difference of two gradients, multipliers standing still."""
    start_n, price_M = merit.vector(), merit.point.multipliers
    length = torch.finfo(merit.parameters[0].dtype).eps ** (1 / 3) * max(1.0, float(np.abs(start_n).max()))
    ends = []
    with merit.staying():
        for sign in (1.0, -1.0):
            full = merit.read(start_n + sign * length * v_n.cpu().numpy(), with_gradients=True)
            ends.append(full.gradient_n + full.jacobian_Mn.T @ full.jacobian_Mn.new_tensor(price_M))
    apart_n: Tensor = (ends[0] - ends[1]) / (2 * length)
    return apart_n


def _shares(merit: Merit) -> Iterator[Tensor]:
    """Yield the Lagrangian in shares that add up to it, one a chunk of a split."""
    objective, splits, rules, price_M = merit.objective, merit.splits, merit.rules, merit.point.multipliers
    slopes = objective.slopes(splits, rules)
    for name, split in splits.items():
        here = [m for m, rule in enumerate(rules) if rule.split == name and price_M[m] != 0]
        if name != "train" and not here:
            continue
        for index in split.chunks(_CHUNK):
            batch = split.batch(index)
            logits_V = objective.logits(batch)
            log_p_V = torch.log_softmax(logits_V, -1)
            share = logits_V.new_zeros(())
            if name == "train":
                log_q_V = objective.target(split, index, logits_V.detach())
                share = share + objective.loss(log_q_V, logits_V).sum() / split.labels.numel()
            for m in here:
                share = share - price_M[m] * (slopes[m] * rules[m].sums(log_p_V, batch).surrogate_G).sum()
            yield share


def _drop(merit: Merit, direction_n: Tensor) -> float:
    """Return how far the augmented Lagrangian falls along a direction, on average of both its ends.

    The average leaves the second-order part alone: small residuals let one of the ends fall anywhere.
    """
    start_n, step_n = merit.vector(), direction_n.cpu().numpy()
    size = max(1.0, 0.1 * float(np.linalg.norm(start_n)))
    with merit.staying():
        here = merit.value(start_n)
        both = [merit.value(start_n + size * x * step_n) + merit.value(start_n - size * x * step_n) for x in _LENGTHS]
    drops = [here - pair / 2 for pair in both]
    return max(0.0, *(drop for drop in drops if drop == drop))
