"""Multipliers given by a network: one price for each example, read off what is known of it.

With one constraint an example, ``g_i(x) <= 0`` for all i, prices are a function of the example's features, so examples
that were never seen have one too.  The network climbs ``mean_i lambda(z_i) g_i`` while the variables descend.
Source: Narasimhan et al. 2020, approximate heavily-constrained learning with Lagrange multiplier models.
Axes: B examples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..lagrangian import inequality_weights


class MultiplierNetwork:
    """Primal-dual steps for ``min f  s.t.  g_i <= 0`` on all examples, priced by ``softplus(network(z_i))``.

    network: module from features (B, D) to one number an example, (B,) or (B, 1).  optimizer: made on its parameters;
    it minimises minus the Lagrangian, so any of torch will do.  rho: penalty, at least 0, that damps oscillation; in
    units of objective per squared unit of constraint.
    The Lagrangian is ``f + mean_i lambda_i g_i``: prices are those of a constraint that all examples share equally.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, rho: float = 0.0) -> None:
        if not 0 <= rho < float("inf"):
            raise InvalidInput(f"`rho` of MultiplierNetwork is {rho!r}; it must be at least 0 and finite.")
        ours = {id(p) for p in network.parameters()}
        if not any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
            raise InvalidInput("`optimizer` holds no parameter of the network; make it from network.parameters().")
        self.network, self.optimizer, self.rho = network, optimizer, rho

    def multipliers(self, features: Tensor) -> Tensor:
        """Return the price of each example, (B,), above 0."""
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

        inequality: g of the batch's examples, (B,), carries gradients.  features: (B, D), no gradient is taken.
        measured: what the network sees instead of g's own value, (B,).
        A batch whose values are not finite moves nothing; the scalar then is not finite either.
        """
        seen = inequality if measured is None else measured
        if inequality.shape != (len(features),) or seen.shape != inequality.shape:
            raise InvalidInput(
                f"`inequality` has shape {tuple(inequality.shape)} for {len(features)} examples; wanted one each."
            )
        seen, features = seen.detach(), features.detach()
        climb = -(self.multipliers(features) * seen).mean()
        slopes = torch.autograd.grad(climb, [p for p in self.network.parameters() if p.requires_grad])
        if bool(torch.isfinite(climb)):
            self.optimizer.zero_grad()
            for p, slope in zip((p for p in self.network.parameters() if p.requires_grad), slopes, strict=True):
                p.grad = slope
            self.optimizer.step()
        with torch.no_grad():
            price = self.multipliers(features)
        weight = inequality_weights(price, seen, torch.full_like(price, self.rho))
        return objective + (weight.to(inequality) * inequality).mean()
