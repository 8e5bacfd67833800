"""Does a student with small residuals sit at a minimum?  Second derivatives of its Lagrangian say so.

Zero slope is necessary, not sufficient: a network of zeros has it, and is a saddle.  Lanczos' method looks for the
direction along the active constraints in which the Lagrangian curves down the most, from a few products of its Hessian
with a vector; a step along it must then truly lower the augmented Lagrangian before anything is said.
Axes: n parameters, M constraints, A active ones, k steps of Lanczos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._torch_state import evaluating
from ._merit import Merit, parted

STEPS = 16  # products with the Hessian
_BASIS = 2**28  # numbers held in all
_FLAT = 1e-3  # curvature above minus this share of the largest counts as none
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

    passes: about how many products with the Hessian it may cost; at most STEPS.  A student that cannot be
    differentiated twice is read by differences.
    """
    objective, point, parameters = merit.objective, merit.point, merit.parameters
    active = [
        m
        for m, (price, reading) in enumerate(zip(point.multipliers, point.readings, strict=True))
        if price > tolerance or reading.required - reading.measured > -tolerance
    ]
    normals_An = _orthonormal(jacobian_Mn[active].to(parameters[0].device))

    def along(v_n: Tensor) -> Tensor:
        flat_n: Tensor = v_n - normals_An.T @ (normals_An @ v_n)
        return flat_n

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

    steps = min(STEPS, max(passes, 2))
    # targets of a rule that looks at the student would move with it
    ways = [exact, by_differences] if objective.fixed else [exact]
    with evaluating(objective.student):
        for product in ways:
            try:
                least, most, direction_n = _lanczos(product, along, parameters, steps)
                break
            except RuntimeError as error:
                unseen = str(error).splitlines()[0]
        else:
            return Curvature(float("nan"), float("nan"), 0.0, unseen)
        if not (math.isfinite(least) and math.isfinite(most)):
            return Curvature(least, most, 0.0, "second derivatives are not finite")
        if direction_n is None or not least < -_FLAT * max(abs(least), abs(most), 1e-4):
            return Curvature(least, most, 0.0)
        return Curvature(least, most, _drop(merit, direction_n))


def _orthonormal(rows_An: Tensor) -> Tensor:
    """Return an orthonormal basis of what the rows span; rows that vanish beside the largest span nothing."""
    if not len(rows_An):
        return rows_An
    _, size_A, basis_An = torch.linalg.svd(rows_An, full_matrices=False)
    kept_An: Tensor = basis_An[size_A > 1e-8 * size_A[0].clamp_min(1e-300)]
    return kept_An


def _lanczos(
    product: Callable[[Tensor], Tensor], along: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], steps: int
) -> tuple[float, float, Tensor | None]:
    """Return least and largest curvature seen, and a unit direction of the least; every step is made orthogonal."""
    n, device = sum(p.numel() for p in parameters), parameters[0].device
    steps = max(1, min(steps, n, _BASIS // n))
    start = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    v_n, basis, diagonal, beside = along(start), [], [], []
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
    if bool(lost > 1e-2 * w_n.norm()) and bool(lost > 1e-9):
        raise RuntimeError("products with its Hessian are not those of a symmetric matrix")


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
