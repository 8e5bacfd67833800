"""Parameters of zeros and such that move nothing, and what a nudge to them opens.

Where a layer is zero, and more so where the next one is as well, slopes vanish on symmetric data, often to an order
that no Hessian shows, although a lower loss lies next door.  So such parameters are nudged, and a descent from there is
compared with one from where the student stands: what only the nudged one finds, the student missed.
Axes: n parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import minimize as scipy_minimize

from .._torch_state import evaluating
from ._merit import Floats, Merit

_NUDGE = 0.1
_ZERO = 1e-6
_CHUNK = 4096


def hidden_drop(merit: Merit, passes: int) -> tuple[Sequence[str], float]:
    """Return the names of blind parameters, and how much lower a descent ends once they are nudged.

    Blind is a parameter of zeros, and one on which no output depends to first order.

    passes: about how many passes over the data it may cost.  The student is left as it was.
    """
    blind = _blind(merit)
    if not blind:
        return [], 0.0
    with merit.staying():
        start_n = merit.vector()
        stayed = _descent(merit, start_n, passes // 2)
        nudged_n, at = start_n.copy(), 0
        generator = torch.Generator().manual_seed(0)
        names = {id(p): name for name, p in merit.objective.student.named_parameters()}
        for p in merit.parameters:
            if names[id(p)] in blind:
                nudged_n[at : at + p.numel()] += _NUDGE * torch.randn(p.numel(), generator=generator).double().numpy()
            at += p.numel()
        return blind, max(0.0, stayed - _descent(merit, nudged_n, passes // 2))


def _descent(merit: Merit, start_n: Floats, passes: int) -> float:
    limits = {"maxfun": max(1, passes), "maxiter": max(1, passes), "ftol": 0.0, "gtol": 1e-9}
    found = scipy_minimize(merit.with_slope, start_n, jac=True, method="L-BFGS-B", options=limits)
    return float(found.fun)


def _blind(merit: Merit) -> list[str]:
    """Name the blind parameters; where no output depends on one, a random mix of outputs has no slope in it."""
    split, student = merit.splits["train"], merit.objective.student
    moves = [False] * len(merit.parameters)
    with evaluating(student), torch.enable_grad():
        for index in split.chunks(_CHUNK):
            logits_V = merit.objective.logits(split.batch(index))
            generator = torch.Generator().manual_seed(int(index[0]))
            mix_V = torch.randn(logits_V.shape, generator=generator).to(logits_V)
            slopes = torch.autograd.grad((mix_V * logits_V).sum(), merit.parameters, allow_unused=True)
            moves = [
                moved or (slope is not None and bool((slope != 0).any()))
                for moved, slope in zip(moves, slopes, strict=True)
            ]
    names = {id(p): name for name, p in student.named_parameters()}
    zero = [float(p.detach().abs().max()) < _ZERO if p.numel() else False for p in merit.parameters]
    pairs = zip(merit.parameters, moves, zero, strict=True)
    return [names[id(p)] for p, moved, nothing in pairs if nothing or not moved]
