"""Which fold each training example is in.  Axes: N examples, C clusters, M constraints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...data import Split
from ...errors import InvalidInput
from ...safety import Constraint


def assign_folds(train: Split, count: int, seed: int, constraints: Sequence[Constraint] = ()) -> Tensor:
    """Return the fold of each example, (N,), 0 to ``count - 1``.

    Folds are even in size, in examples with a position that counts, in every class of (N,) labels, and in what each
    constraint covers; a cluster is in one fold.  No fold holds all that a constraint covers, so that the students of
    every fold have examples to be trained on.

    Args:
        train: N examples.
        count: How many folds.
        seed: Of the order of the examples.
        constraints: Posed on ``train``.

    Raises:
        InvalidInput: A constraint covers one cluster alone, whose fold leaves none to train on, or there are fewer
            clusters than folds.
    """
    batch = train.batch()
    covered_NM = (
        torch.stack([rule.covers(batch).reshape(len(train), -1).any(-1).cpu() for rule in constraints], 1)
        if (constraints)
        else torch.zeros(len(train), 0, dtype=torch.bool)
    )
    cluster_N = torch.arange(len(train))
    if train.cluster is not None:
        cluster_N = torch.unique(train.cluster.cpu(), return_inverse=True)[1]
    clusters = int(cluster_N.max()) + 1
    counted_C = torch.ones(clusters, dtype=torch.bool)
    if batch.mask is not None:
        counted_N = batch.mask.reshape(len(train), -1).any(-1).cpu()
        counted_C = torch.zeros(clusters).index_add(0, cluster_N, counted_N.float()) > 0
    if (usable := int(counted_C.sum())) < count:
        raise InvalidInput(f"{usable} clusters of examples cannot make {count} folds; take fewer folds.")
    covered_CM = torch.zeros(clusters, len(constraints)).index_add(0, cluster_N, covered_NM.float()) > 0
    order_C = torch.randperm(clusters, generator=torch.Generator().manual_seed(seed))
    for m in range(len(constraints)):
        order_C = order_C[covered_CM[order_C, m].long().argsort(stable=True)]
    if train.labels.ndim == 1:
        first_C = torch.full((clusters,), len(train)).scatter_reduce(0, cluster_N, torch.arange(len(train)), "amin")
        order_C = order_C[train.labels.cpu()[first_C][order_C].argsort(stable=True)]
    order_C = order_C[counted_C[order_C].long().argsort(stable=True)]  # one after the other: as many in each fold
    fold_C = torch.empty(clusters, dtype=torch.long)
    fold_C[order_C] = torch.arange(clusters) % count
    for m, rule in enumerate(constraints):
        _spread_covered(fold_C, covered_CM[:, m], count, rule, train)
    return fold_C[cluster_N].to(train.labels.device)


def _spread_covered(fold_C: Tensor, covered_C: Tensor, count: int, rule: Constraint, train: Split) -> None:
    """Move a cluster to the next fold where all that a constraint covers are in one."""
    members = covered_C.nonzero().squeeze(-1)
    if len(members) == 1:
        what = "example" if train.cluster is None else "cluster"
        raise InvalidInput(
            f"Without fold {int(fold_C[members[0]]) + 1} of {count}, which holds the only {what} that it covers, "
            f"constraint '{rule.name}' covers no example of '{train.name}', so its student has none to train on. "
            "Cross-fitting needs at least two; give more, or name the other constraints in `constraints`."
        )
    if len(members) > 1 and len(set(fold_C[members].tolist())) == 1:
        fold_C[members[0]] = (fold_C[members[0]] + 1) % count
