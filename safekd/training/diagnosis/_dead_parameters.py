"""Dead parameters: those on which no output depends to first order, and what a perturbation of them opens.

Where a layer is zero, and more so where the next one is as well, gradients vanish on symmetric data, often to an order
that no Hessian shows, although a lower loss lies next door: a saddle that looks like a minimum.  So such parameters are
perturbed, and a descent from there is compared with one from where the student stands: what only the perturbed one
finds, the student missed.  Axes: n parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..._torch_state import evaluation_mode
from .._parameter_vectors import LBFGS_VECTORS, descend_lbfgs
from ._merit_function import MeritFunction


@dataclass(frozen=True)
class DeadParameterSettings:
    """Numbers of the probe; ``tests/safekd/training/diagnosis/test_verdicts.py`` notices both.

    Attributes:
        perturbation: Standard deviation of what is added to a dead parameter: the size at which layers begin.
        zero: A tensor whose largest entry is below this counts as zeros.
    """

    perturbation: float = 0.1
    zero: float = 1e-6


SETTINGS = DeadParameterSettings()


def perturb_dead_parameters(merit: MeritFunction, passes: int) -> tuple[Sequence[str], float]:
    """Return the names of dead parameters, and how much lower a descent ends once they are perturbed.

    Dead is a parameter of zeros, and one on which no output depends to first order.  The student is left as it was.

    Args:
        merit: What descends.
        passes: About how many passes over the data it may cost.

    Raises:
        BeyondBudget: It would cost more memory or time than that.
    """
    dead = _find_dead_parameters(merit)
    if not dead:
        return [], 0.0
    merit.meter.require_memory((LBFGS_VECTORS + len(merit.constraints)) * sum(p.numel() for p in merit.parameters))
    with merit.restore_afterwards():
        start_n = merit.vector()
        _, unperturbed = descend_lbfgs(merit.value_and_gradient, start_n, passes // 2)
        perturbed_n, offset = start_n.copy(), 0
        generator = torch.Generator().manual_seed(0)
        names = {id(p): name for name, p in merit.objective.student.named_parameters()}
        for p in merit.parameters:
            if names[id(p)] in dead:
                noise = torch.randn(p.numel(), generator=generator).double().numpy()
                perturbed_n[offset : offset + p.numel()] += SETTINGS.perturbation * noise
            offset += p.numel()
        _, perturbed = descend_lbfgs(merit.value_and_gradient, perturbed_n, passes // 2)
        return dead, max(0.0, unperturbed - perturbed)


def _find_dead_parameters(merit: MeritFunction) -> list[str]:
    """Name the dead parameters; where no output depends on one, a random mix of outputs has no gradient in it."""
    split, student = merit.splits["train"], merit.objective.student
    depends = [False] * len(merit.parameters)
    with evaluation_mode(student), torch.enable_grad():
        for batch in split.batches(merit.meter.most_rows(merit.objective, split)):
            merit.meter.require_time()
            logits_V = merit.objective.logits(batch)
            generator = torch.Generator().manual_seed(int(batch.index[0]))
            mix_V = torch.randn(logits_V.shape, generator=generator).to(logits_V)
            gradients = torch.autograd.grad((mix_V * logits_V).sum(), merit.parameters, allow_unused=True)
            depends = [
                before or (gradient is not None and bool((gradient != 0).any()))
                for before, gradient in zip(depends, gradients, strict=True)
            ]
    names = {id(p): name for name, p in student.named_parameters()}
    zero = [float(p.detach().abs().max()) < SETTINGS.zero if p.numel() else False for p in merit.parameters]
    rows = zip(merit.parameters, depends, zero, strict=True)
    return [names[id(p)] for p, matters, nothing in rows if nothing or not matters]
