"""The second-order check: is a point with small KKT residuals a minimum, or a saddle?

A gradient of zero is necessary, not sufficient: the maximizer of a linear function on a circle has one, and so has a
network of zeros.  With H the Hessian of the Lagrangian and A the gradients of the active constraints, a minimum has

    d . H d  >=  0    for every d of the tangent space,  A d = 0

and negative curvature there is a direction of descent.  Problems of few variables hold H in full
(``reduced_curvature``, ``is_convex_along``); for large ones Lanczos' method looks for the least curvature by a few
products of H with a vector (``estimate_curvature``).  Whether a step along the direction truly lowers the problem is
for the caller to try.

Source: Nocedal and Wright, Numerical Optimization, theorem 12.5; Lanczos 1950; Debreu 1952.
Axes: n variables, A active constraints, t dimensions of the tangent space, k steps of Lanczos.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import LinAlgError, cho_factor, null_space
from torch import Tensor

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SecondOrderSettings:
    """When curvature counts as negative, and what looking for it may cost.

    ``tests/solvers/minimization/test_minimize_verdicts.py`` (false minima) and
    ``tests/safekd/training/diagnosis/test_verdicts.py`` (saddles of students) notice them.

    Attributes:
        dense_rounding: Share of the largest entry of H below which curvature of a Hessian in full is rounding.
        estimate_noise: Share of the largest curvature below which an estimate by Lanczos' method is noise.
        least_size: Largest curvature that is taken for a flat function, in units of objective a squared unit of
            length: below it, nothing is called negative by its share alone.
        rank: Share of the largest singular value below which gradients of constraints span nothing.
        products: Products of H with a vector, at most; each costs two passes over the data.
        held_numbers: Numbers held in all basis vectors of Lanczos' method: 2 GiB in float64.
        asymmetry: Share of a product along old directions beyond which H is not symmetric: some function lost part of
            its second derivative.
        breakdown: Share of the largest product below which what is left of one is nothing: no direction is new.
        rounding: Errors of a product, in units of the one that is expected of it, up to which a part of it is rounding.
            Measured: at most 1 where it is differentiated, 4 where it is a difference of gradients.
        least_diagonal: Share of the largest entry of H below which a diagonal entry sets no scale for others.
        least_scale: Share of the largest scale of a variable that each has at least.
        difference_rounding: As ``dense_rounding``, of second derivatives that are differences of gradients.
        error_factor: Curvature counts as negative beyond this multiple of the error that is expected of it.
        lifts: Weights, in units of the size of H, tried on the rows in Debreu's test of convexity along them.
    """

    dense_rounding: float = 1e-7
    estimate_noise: float = 1e-3
    least_size: float = 1e-4
    rank: float = 1e-8
    products: int = 16
    held_numbers: int = 2**28
    asymmetry: float = 1e-2
    breakdown: float = 1e-10
    rounding: float = 10.0
    least_diagonal: float = 1e-8
    least_scale: float = 1e-10
    difference_rounding: float = 1e-5
    error_factor: float = 10.0
    lifts: tuple[float, ...] = (1e2, 1e6)


SETTINGS = SecondOrderSettings()


@dataclass(frozen=True)
class CurvatureEstimate:
    """Curvatures of the Lagrangian along the tangent space, as far as they were looked at.

    Attributes:
        least: Least curvature seen, in units of objective a squared unit of length; NaN where it is not finite.
        largest: Largest curvature seen, in the same units.
        direction_n: Unit direction of the least, shape (n,); None where there is none.
        noise: Curvature that may be rounding, in the same units.
    """

    least: float
    largest: float
    direction_n: Tensor | None
    noise: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether both curvatures are finite."""
        return math.isfinite(self.least) and math.isfinite(self.largest)

    @property
    def negative_direction_n(self) -> Tensor | None:
        """The direction of least curvature where that is below zero by more than noise: a saddle, or a maximum."""
        size = max(abs(self.least), abs(self.largest), SETTINGS.least_size)
        return self.direction_n if self.least < -max(SETTINGS.estimate_noise * size, self.noise) else None


def span_tangent(rows_An: Floats) -> Floats:
    """Return an orthonormal basis of the tangent space ``A d = 0``.

    Args:
        rows_An: Gradients of the active constraints, shape (A, n); A may be 0.

    Returns:
        Basis vectors as columns, shape (n, t).
    """
    return null_space(rows_An, rcond=SETTINGS.rank) if len(rows_An) else np.eye(rows_An.shape[1])


def reduced_curvature(hessian_nn: Floats, tangent_nt: Floats) -> tuple[Floats, Floats]:
    """Return the curvatures along a tangent space, least first, and their directions in its coordinates.

    Args:
        hessian_nn: Hessian of the Lagrangian, shape (n, n), symmetric.
        tangent_nt: Orthonormal basis of the tangent space, shape (n, t), t >= 1.

    Returns:
        Eigenvalues of the reduced Hessian, shape (t,), and its eigenvectors as columns, shape (t, t).
    """
    curvature_t, vectors_tt = np.linalg.eigh(tangent_nt.T @ hessian_nn @ tangent_nt)
    return curvature_t, vectors_tt


def scale_by_curvature(hessian_nn: Floats) -> Floats:
    """Return a size of each variable's curvature, by whose roots H is divided to even out units.

    That is the root of the diagonal where H is convex.  Beside it counts what a saddle needs, ``H_ij^2 / |H_jj|``.

    Args:
        hessian_nn: Second derivatives, shape (n, n), symmetric.

    Returns:
        Scales d, shape (n,), above 0, 1 where H is 0: ``H_ij / (d_i d_j)`` is at most of the order of 1.
    """
    diagonal_n = np.abs(np.diag(hessian_nn))
    size = float(np.abs(hessian_nn).max(initial=0.0))
    if size == 0:
        return np.ones(len(hessian_nn))
    crossed_n = ((hessian_nn / size) ** 2 / np.maximum(diagonal_n / size, SETTINGS.least_diagonal)).max(axis=1) * size
    scale_n = np.sqrt(np.maximum(diagonal_n, crossed_n))
    scales_n: Floats = np.maximum(scale_n, SETTINGS.least_scale * float(scale_n.max()))
    return scales_n


def normalize_rows(rows_An: Floats) -> Floats:
    """Return rows of length 1; those of length 0 as they are.

    Args:
        rows_An: Rows, shape (A, n).
    """
    length_A = np.linalg.norm(rows_An, axis=1)
    unit_An: Floats = rows_An / np.where(length_A > 0, length_A, 1.0)[:, None]
    return unit_An


def is_convex_along(hessian_nn: Floats, rows_An: Floats, least: float) -> bool:
    """Say whether curvature exceeds ``least`` along rows: H + weight A'A is positive definite for some weight.

    Args:
        hessian_nn: Hessian of the Lagrangian, shape (n, n), symmetric.
        rows_An: Gradients of the active constraints, shape (A, n); A may be 0.
        least: Curvature to exceed, above 0, in units of H.

    Returns:
        True if it was shown; False may be a matter of rounding.

    Source: Debreu 1952.
    """
    size = max(float(np.abs(hessian_nn).max()), least)
    for weight in (0.0, *SETTINGS.lifts) if len(rows_An) else (0.0,):
        lifted_nn = hessian_nn + weight * size * (rows_An.T @ rows_An) - least * np.eye(len(hessian_nn))
        try:
            cho_factor(lifted_nn)
        except LinAlgError:
            continue
        return True
    return False


def orthonormal_rows(rows_An: Tensor, error: float = torch.finfo(torch.float64).eps) -> Tensor:
    """Return an orthonormal basis of what rows span; rows that vanish beside the largest span nothing.

    Args:
        rows_An: Gradients of constraints, shape (A, n).
        error: Error that is expected of an entry, as a share of the largest one.

    Returns:
        Basis vectors as rows, at most A of them.
    """
    if not len(rows_An):
        return rows_An
    _, size_A, basis_An = torch.linalg.svd(rows_An, full_matrices=False)
    kept_An: Tensor = basis_An[size_A > max(SETTINGS.rank, error) * size_A[0].clamp_min(1e-300)]
    return kept_An


def project_on_tangent(v_n: Tensor, normals_An: Tensor) -> Tensor:
    """Return the part of a vector that lies in the tangent space.

    Args:
        v_n: A vector, shape (n,).
        normals_An: Orthonormal basis of the constraints' gradients, of ``orthonormal_rows``.

    Returns:
        The projection, shape (n,).
    """
    tangent_n: Tensor = v_n - normals_An.T @ (normals_An @ v_n)
    return tangent_n


def estimate_curvature(
    multiply: Callable[[Tensor], Tensor],
    normals_An: Tensor,
    n: int,
    steps: int,
    device: torch.device,
    error: float = torch.finfo(torch.float64).eps,
) -> CurvatureEstimate:
    """Return least and largest curvature along the tangent space, by Lanczos' method from a fixed random start.

    Args:
        multiply: Product of H with a vector (n,).
        normals_An: Orthonormal basis of the constraints' gradients, shape (A, n).
        n: Number of variables.
        steps: Products at most; fewer are taken where their vectors do not fit into ``held_numbers``.
        device: Where vectors live.
        error: Error that is expected of a product, as a share of the largest one: the relative precision of the floats
            that it is computed in.  A direction of which H leaves no more than rounding is no new one.

    Returns:
        What was seen; curvatures of 0 and no direction where the constraints leave none.

    Raises:
        RuntimeError: A product is not that of a symmetric matrix.

    Source: Lanczos 1950, with full orthogonalization.
    """
    steps = max(1, min(steps, n, SETTINGS.held_numbers // n))
    start_n = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    v_n = project_on_tangent(start_n, normals_An)
    length = float(v_n.norm())
    if not length > 1e-9 * n**0.5:
        return CurvatureEstimate(0.0, 0.0, None)  # the active constraints leave no direction
    v_n /= length
    rounding, size = SETTINGS.rounding * error, 0.0
    held_kn, tridiagonal_kk = v_n.new_empty(steps, n), np.zeros((steps, steps))
    for k in range(steps):
        held_kn[k] = v_n
        product_n = multiply(v_n)
        size = max(size, float(product_n.norm()))  # before the projection, which may cancel most of it
        w_n = project_on_tangent(product_n, normals_An)
        tridiagonal_kk[k, k] = float(w_n @ v_n)
        _require_symmetric(held_kn[: k + 1], w_n, rounding * size)
        for _ in range(2):  # once more for what rounding left
            w_n -= held_kn[: k + 1].T @ (held_kn[: k + 1] @ w_n)
        length = float(w_n.norm())
        if k + 1 == steps or not length > max(SETTINGS.breakdown, rounding) * size:
            break
        tridiagonal_kk[k, k + 1] = tridiagonal_kk[k + 1, k] = length
        v_n = project_on_tangent(w_n / length, normals_An)  # dividing a small rest has blown up its rounding
        v_n -= held_kn[: k + 1].T @ (held_kn[: k + 1] @ v_n)
        v_n /= v_n.norm().clamp_min(1e-300)
    tridiagonal_kk = tridiagonal_kk[: k + 1, : k + 1]
    if not np.isfinite(tridiagonal_kk).all():
        return CurvatureEstimate(math.nan, math.nan, None)
    values_k, vectors_kk = np.linalg.eigh(tridiagonal_kk)
    direction_n = held_kn[: k + 1].T @ torch.from_numpy(vectors_kk[:, 0]).to(device)
    noise = rounding * size
    return CurvatureEstimate(float(values_k[0]), float(values_k[-1]), direction_n / direction_n.norm(), noise)


def _require_symmetric(held_kn: Tensor, w_n: Tensor, rounding: float) -> None:
    """Raise RuntimeError if a product has a part along old directions, which that of a symmetric matrix has not.

    Functions of which only the first derivative is known can lose part of the second without a word.
    """
    lost = (held_kn[:-2] @ w_n).norm()
    if bool(lost > SETTINGS.asymmetry * w_n.norm()) and bool(lost > max(rounding, 1e-9)):
        raise RuntimeError("products with its Hessian are not those of a symmetric matrix")
