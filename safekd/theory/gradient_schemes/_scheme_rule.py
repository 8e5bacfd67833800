"""A weighting rule out of a gradient scheme: the weights that the scheme implies for the teachers.

Axes: M tasks, ... positions, K teachers, V classes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from ..._number_checks import is_finite
from ...errors import InvalidInput
from ...weights import Signals

Weighting = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GradientScheme:
    """Weights by the Gramian of the teachers' gradients, as a scheme of torchjd sees it; to be made conforming.

    The gradients are those of the teachers' divergences by the student's logits, averaged over the positions of a task.
    What the scheme makes negative is 0; rows that it leaves without a weight are uniform.

    Attributes:
        weighting: From a Gramian (K, K) to weights (K,): ``MGDAWeighting()`` of torchjd and the others that
            weigh by a Gramian, or any function like it.
        temperature: Above 0; softens teachers and student.

    Raises:
        InvalidInput: ``weighting`` is no function, or the temperature not above 0.

    Source: the paper's third open question; schemes as in Quinton and Rey 2024 (arXiv 2406.16232).
    """

    weighting: Weighting
    temperature: float = 1.0
    scale: ClassVar[str] = "task"
    needs: ClassVar[frozenset[str]] = frozenset({"log_p", "student_log_p", "task"})
    continuous: ClassVar[bool] = False  # not known of a scheme; MGDA's weights jump

    def __post_init__(self) -> None:
        if not callable(self.weighting):
            raise InvalidInput(
                f"`weighting` is a {type(self.weighting).__name__}; wanted a function from a Gramian (K, K) to weights "
                "(K,), torchjd's MGDAWeighting() say."
            )
        if not is_finite(self.temperature) or self.temperature <= 0:
            raise InvalidInput(
                f"`temperature` of GradientScheme is {self.temperature!r}; it must be above 0 and finite."
            )

    def __call__(self, signals: Signals) -> Tensor:
        """Return scores, (..., K), at least 0; no gradient flows through them.

        Args:
            signals: The signals of a batch.

        Raises:
            InvalidInput: The scheme gives another shape, or what is not finite.
        """
        gradient_KV = signals.student_gradient(self.temperature).detach()
        gram_MKK, position = signals.tabulate_by_task(gradient_KV @ gradient_KV.transpose(-1, -2))
        w_MK = torch.stack([weigh_gramian(self.weighting, gram_KK.double()) for gram_KK in gram_MKK]).clamp_min(0)
        empty_M = w_MK.sum(-1, keepdim=True) == 0
        return w_MK.masked_fill(empty_M, 1 / w_MK.shape[-1])[position].to(signals.ones())


def weigh_gramian(weighting: Weighting, gram_KK: Tensor) -> Tensor:
    """Return the weights that a scheme gives a Gramian, (K,), float64.

    Args:
        weighting: The scheme.
        gram_KK: Inner products of gradients, (K, K).

    Raises:
        InvalidInput: It gives another shape, or what is not finite.
    """
    w_K = weighting(gram_KK)
    if not isinstance(w_K, Tensor) or w_K.shape != gram_KK.shape[:1] or not bool(torch.isfinite(w_K).all()):
        shape = tuple(w_K.shape) if isinstance(w_K, Tensor) else type(w_K).__name__
        raise InvalidInput(
            f"The scheme {type(weighting).__name__} gives {shape}, or what is not finite, for a Gramian of "
            f"{len(gram_KK)} gradients; wanted {len(gram_KK)} finite weights."
        )
    return w_K.detach().double()


def make_dual_cone_projector() -> Any:
    """Return what UPGrad and DualProj of torchjd project with, by scipy's non-negative least squares.

    torchjd's own one needs qpsolvers and quadprog: ``UPGradWeighting(projector=make_dual_cone_projector())`` does not.

    Returns:
        A ``torchjd.linalg.DualConeProjector``: for each u the v >= u of least ``v' G v``.

    Raises:
        ImportError: torchjd is not installed.
    """
    try:
        base = importlib.import_module("torchjd.linalg").DualConeProjector
    except ImportError as error:
        raise ImportError("Gradient schemes are those of torchjd: pip install 'safekd[torchjd]'.") from error

    def project_rows(_self: Any, U: Tensor, G: Tensor) -> Tensor:
        values, vectors = np.linalg.eigh(G.detach().double().cpu().numpy())
        root = np.sqrt(values.clip(0))[:, None] * vectors.T  # root' root = G
        rows = U.detach().double().cpu().reshape(-1, U.shape[-1]).numpy()
        found = np.stack([u + nnls(root, -root @ u)[0] for u in rows])
        return torch.as_tensor(found).reshape(U.shape).to(U)

    return type("NonNegativeProjector", (base,), {"__call__": project_rows})()
