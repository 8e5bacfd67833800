"""Teachers that must weigh the same: before and after a projection that treats them alike.

For a group G the cost is that of the group's mean score, up to a constant:

    sum_G (w - v_k)^2 = |G| (w - mean v)^2 + ...        sum_G w log(w / v_k) = |G| w log(w / geometric mean of v) + ...

so scores are averaged first.  Rules that do not tell the members apart then give them one weight; only rounding can
part them, and that is undone last.  Axes: B rows, K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

Groups = tuple[tuple[int, ...], ...]


def share_scores(v_BK: Tensor, groups: Groups, metric: str) -> Tensor:
    """Return scores with each group's replaced by their mean, the geometric one for kl."""
    columns = list(v_BK.unbind(-1))
    for group in groups:
        v_BG = v_BK[:, list(group)].to(torch.promote_types(v_BK.dtype, torch.float32))
        mean_B = v_BG.log().mean(dim=-1).exp() if metric == "kl" else v_BG.mean(dim=-1)
        for k in group:
            columns[k] = mean_B.to(v_BK.dtype)
    return torch.stack(columns, dim=-1)


def share_weights(w_BK: Tensor, groups: Groups) -> Tensor:
    """Return weights with each group's equal to those of its first member."""
    place = list(range(w_BK.shape[-1]))
    for group in groups:
        for k in group:
            place[k] = group[0]
    return w_BK[:, place]
