"""How far contexts lie from what teachers were trained on.  Axes: N examples, D features, C contexts, K teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ..data import Inputs, Split, fill_uncounted, list_inputs, map_inputs, name_inputs
from ..errors import InvalidInput


def measure_domain_distances(split: Split, domains: Sequence[Inputs], contexts: int | None = None) -> Tensor:
    """Return how far each context of a split lies from what each teacher was trained on.

    The distance is that of the mean inputs, in standard deviations of the split, root mean square over features: 1 is
    as far as its examples scatter.  A context without an example is as far as the split as a whole.

    Args:
        split: Where contexts are measured.
        domains: For each teacher the inputs it was trained on, (N_k, ...), or a dictionary of them.
        contexts: C, how many contexts there are; None counts those present and named.

    Returns:
        Distances, at least 0, (C, K); they go into ``TeacherEvidence.distance_CK``.

    Raises:
        InvalidInput: A domain has no examples, or another kind of input.
    """
    batch = split.batch()
    x_ND, counted_ND = (
        _flatten_inputs(split.inputs),
        _flatten_inputs(map_inputs(split.inputs, partial(_mark, split.mask))),
    )
    if contexts is None:
        contexts = max(int(batch.context.max()) + 1, len(split.context_names))
    overall_D = _average(x_ND, counted_ND, torch.zeros_like(x_ND[0]))
    spread_D = _average((x_ND - overall_D).square(), counted_ND, torch.zeros_like(overall_D)).sqrt()
    spread_D = torch.where(spread_D > 0, spread_D, 1.0)
    means = []
    for k, domain in enumerate(domains):
        wanted = {what: tuple(value.shape[1:]) for what, value in name_inputs(split.inputs).items()}
        shapes = {what: tuple(value.shape) for what, value in name_inputs(domain).items()}
        if {what: shape[1:] for what, shape in shapes.items()} != wanted or not all(
            shape and shape[0] for shape in shapes.values()
        ):
            raise InvalidInput(
                f"Domain {k} has {_show_shapes(shapes)}; wanted at least one example of {_show_shapes(wanted)}, as in "
                f"split '{split.name}'."
            )
        means.append(_flatten_inputs(domain).mean(0))
    inside = [batch.context == c for c in range(contexts)]
    center_CD = torch.stack([_average(x_ND[here], counted_ND[here], overall_D) for here in inside])
    gap_CKD = (center_CD.unsqueeze(1) - torch.stack(means)) / spread_D
    return gap_CKD.square().mean(-1).sqrt()


def _flatten_inputs(inputs: Inputs) -> Tensor:
    """Return all inputs of each example in one row, (N, D)."""
    return torch.cat([value.reshape(len(value), -1).double() for value in list_inputs(inputs)], dim=1)


def _mark(mask: Tensor | None, value: Tensor) -> Tensor:
    """Return 1 for each number that is of a position that counts, 0 for others."""
    known = mask is not None and value.shape[: mask.ndim] == mask.shape
    return fill_uncounted(torch.ones_like(value), mask if known else None, 0.0)


def _average(x_ND: Tensor, counted_ND: Tensor, otherwise_D: Tensor) -> Tensor:
    """Return the average of each column over what counts, another number where nothing does."""
    count_D = counted_ND.sum(0)
    return torch.where(count_D > 0, (x_ND * counted_ND).sum(0) / count_D.clamp_min(1), otherwise_D)


def _show_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(
        f"shape {shape}" if what == "inputs" else f"{what} of shape {shape}" for what, shape in shapes.items()
    )
