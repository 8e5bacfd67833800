"""Multipliers given by a network: one for each example, read off what is known of it.

With one constraint an example, ``g_i(x) <= 0`` for all i, multipliers are a function of the example's features, so
examples that were never seen have one too.  The network ascends ``mean_i lambda(z_i) g_i`` while the variables descend.
Source: Narasimhan et al. 2020, approximate heavily-constrained learning with Lagrange multiplier models.
Axes: B examples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..lagrangian import inequality_weights


class MultiplierNetwork:
    """Primal-dual steps for ``min f  s.t.  g_i <= 0`` on all examples, with multipliers ``softplus(network(z_i))``.

    The Lagrangian is ``f + mean_i lambda_i g_i``: multipliers are those of a constraint that all examples share.

    Args:
        network: Module from features (B, D) to one number an example, (B,) or (B, 1).
        optimizer: Made on its parameters; it minimizes minus the Lagrangian, so any of torch will do.
        rho: Penalty that damps oscillation, at least 0, in units of objective per squared unit of constraint.

    Raises:
        InvalidInput: ``rho`` is out of range, or the optimizer holds no parameter of the network.

    Source: Narasimhan et al. 2020.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, rho: float = 0.0) -> None:
        if not 0 <= rho < float("inf"):
            raise InvalidInput(f"`rho` of MultiplierNetwork is {rho!r}; it must be at least 0 and finite.")
        own = {id(p) for p in network.parameters()}
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise InvalidInput("`optimizer` holds no parameter of the network; make it from network.parameters().")
        self.network, self.optimizer, self.rho = network, optimizer, rho

    def multipliers(self, features: Tensor) -> Tensor:
        """Return the multiplier of each example.

        Args:
            features: What is known of the examples, shape (B, D).

        Returns:
            Multipliers above 0, shape (B,), in units of f a unit of g.

        Raises:
            InvalidInput: The network gives another number of values.
        """
        raw = self.network(features)
        if raw.shape not in ((len(features),), (len(features), 1)):
            raise InvalidInput(
                f"The network gives shape {tuple(raw.shape)} for {len(features)} examples; wanted one number each."
            )
        return nn.functional.softplus(raw.reshape(-1))

    def step(
        self, objective: Tensor, inequality: Tensor, features: Tensor, *, measured: Tensor | None = None
    ) -> Tensor:
        """Move the network, then return the scalar whose gradient is the primal step's.

        A batch whose values are not finite moves nothing; the scalar then is not finite either.

        Args:
            objective: f, a scalar with its gradients.
            inequality: g of the batch's examples, shape (B,), with gradients.
            features: What is known of the examples, shape (B, D); no gradient is taken.
            measured: What the network sees instead of g's own value, shape (B,).

        Returns:
            f plus the mean of the weighed rows, a scalar.

        Raises:
            InvalidInput: Shapes do not fit together.
        """
        g_B = inequality if measured is None else measured
        if inequality.shape != (len(features),) or g_B.shape != inequality.shape:
            raise InvalidInput(
                f"`inequality` has shape {tuple(inequality.shape)} for {len(features)} examples; wanted one each."
            )
        g_B, features = g_B.detach(), features.detach()
        loss = -(self.multipliers(features) * g_B).mean()
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters)
        if bool(torch.isfinite(loss)):
            self.optimizer.zero_grad()
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
            self.optimizer.step()
        with torch.no_grad():
            lambda_B = self.multipliers(features)
        weight_B = inequality_weights(lambda_B, g_B, torch.full_like(lambda_B, self.rho))
        return objective + (weight_B.to(inequality) * inequality).mean()
