"""How far contexts lie from what teachers were trained on.  Axes: N examples, D features, C contexts, K teachers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import Split
from ..errors import InvalidInput


def measure_domain_distances(split: Split, domains: Sequence[Tensor], contexts: int | None = None) -> Tensor:
    """Return how far each context of a split lies from what each teacher was trained on.

    The distance is that of the mean inputs, in standard deviations of the split, root mean square over features: 1 is
    as far as its examples scatter.  A context without an example is as far as the split as a whole.

    Args:
        split: Where contexts are measured.
        domains: For each teacher the inputs it was trained on, (N_k, ...), floating.
        contexts: C, how many contexts there are; None counts those present and named.

    Returns:
        Distances, at least 0, (C, K); they go into ``TeacherEvidence.distance_CK``.

    Raises:
        InvalidInput: A domain has no examples, or another kind of input.
    """
    batch = split.batch()
    x_ND = batch.inputs.flatten(1).double()
    if contexts is None:
        contexts = max(int(batch.context.max()) + 1, len(split.context_names))
    spread_D = x_ND.std(dim=0, unbiased=False)
    spread_D = torch.where(spread_D > 0, spread_D, 1.0)
    means = []
    for k, domain in enumerate(domains):
        if domain.ndim < 2 or not len(domain) or domain.flatten(1).shape[-1] != x_ND.shape[-1]:
            raise InvalidInput(
                f"Domain {k} has shape {tuple(domain.shape)}; wanted at least one example of shape "
                f"{tuple(split.inputs.shape[1:])}, as in split '{split.name}'."
            )
        means.append(domain.flatten(1).double().mean(0))
    inside = [batch.context == c for c in range(contexts)]
    center_CD = torch.stack([(x_ND[here] if bool(here.any()) else x_ND).mean(0) for here in inside])
    gap_CKD = (center_CD.unsqueeze(1) - torch.stack(means)) / spread_D
    return gap_CKD.square().mean(-1).sqrt()
