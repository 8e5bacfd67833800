"""Which example is in which split: as the data say, or drawn by shares; groups of examples stay whole.

Axes: N examples, G groups, K splits, S strata: pairs of class and context.
"""

from __future__ import annotations

import numpy as np
import torch

from ..data import Split, drop_shared
from ..errors import InvalidInput
from ._example_table import SPLITS, Array, ExampleTable, FeatureScaling
from .config import DataConfig


def split_examples(
    table: ExampleTable, config: DataConfig, seed: int
) -> tuple[dict[str, Split], dict[str, Array], FeatureScaling]:
    """Cut a table into splits, features standardized by the training split.

    Where the data do not say which example is in which split, splits are stratified by (class, context), as well as can
    be where examples of one group stay together.

    Args:
        table: The examples.
        config: Shares of the splits.
        seed: Of what is drawn, at least 0.

    Returns:
        The splits and the rows of the table that each holds, both by name, and how features were standardized.

    Raises:
        InvalidInput: A split would be empty.
    """
    if table.split_N is None:
        index = _draw_splits(table, config, seed)
    else:
        index = {name: np.flatnonzero(table.split_N == number) for number, name in enumerate(SPLITS)}
        if not len(index["safety"]):
            del index["safety"]
    for name, rows in index.items():
        if len(rows) == 0:
            few = f"{len(table.label_N)} examples are too few for a share of {getattr(config.splits, name):g}"
            named = f"no row of {config.source} has '{name}' in column '{config.split}'"
            raise InvalidInput(f"Split '{name}' is empty: {few if table.split_N is None else named}.")
    scaling = FeatureScaling.of(table.x_NF[index["train"]], table.features)
    splits = make_splits(table, index, scaling)
    # rows that a file holds twice train the student, and judge nothing
    unseen = {name: split if name == "train" else drop_shared(split, splits["train"]) for name, split in splits.items()}
    return unseen, index, scaling


def make_splits(
    table: ExampleTable, index: dict[str, Array], scaling: FeatureScaling, number_N: Array | None = None
) -> dict[str, Split]:
    """Return some rows of a table as splits, features standardized.

    Args:
        table: The examples.
        index: Rows of each split, by its name.
        scaling: How features are standardized.
        number_N: What batches call the examples, (N,); None for their places in the split.
    """
    x_NF = scaling.scale(table.x_NF)
    return {
        name: Split(
            name,
            torch.tensor(x_NF[rows]),
            torch.tensor(table.label_N[rows]),
            context=torch.tensor(table.context_N[rows]),
            context_names=table.contexts,
            numbers=None if number_N is None else torch.tensor(number_N[rows]),
            class_names=table.classes,
            cluster=None if table.group_N is None else torch.tensor(table.group_N[rows]),
        )
        for name, rows in index.items()
    }


def _draw_splits(table: ExampleTable, config: DataConfig, seed: int) -> dict[str, Array]:
    """Return the rows of each split, by its name."""
    shares = {name: share for name, share in config.splits.model_dump().items() if share > 0}
    rng = np.random.default_rng(seed)
    stratum_N = table.label_N * len(table.contexts) + table.context_N
    if table.group_N is not None:
        number_N = _assign_groups(table.group_N, stratum_N, np.array(list(shares.values())), rng, config)
        return {name: np.flatnonzero(number_N == number) for number, name in enumerate(shares)}
    parts: dict[str, list[Array]] = {name: [] for name in shares}
    for stratum in np.unique(stratum_N):
        members = rng.permutation(np.flatnonzero(stratum_N == stratum))
        ends = np.round(np.cumsum(list(shares.values())) * len(members)).astype(int)
        for name, part in zip(shares, np.split(members, ends[:-1]), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(strata)) for name, strata in parts.items()}


def _assign_groups(
    group_N: Array, stratum_N: Array, share_K: Array, rng: np.random.Generator, config: DataConfig
) -> Array:
    """Return the number of each example's split, (N,).

    Groups come one after the other, the largest first, and each goes where the counts of its strata then miss their
    shares the least, by the squared differences over what is wanted (chi-square).  The last ones fill empty splits.
    """
    strata, stratum_N = np.unique(stratum_N, return_inverse=True)
    groups, group_N = np.unique(group_N, return_inverse=True)
    if len(groups) < len(share_K):
        raise InvalidInput(
            f"{config.source}, column '{config.group}': found {len(groups)} groups, which stay whole; wanted at least "
            f"{len(share_K)}, one for each split."
        )
    pair, count = np.unique(group_N * len(strata) + stratum_N, return_counts=True)
    first_G = np.searchsorted(pair // len(strata), np.arange(len(groups) + 1))
    size_G = np.bincount(group_N)
    shuffled = rng.permutation(len(groups))
    order = shuffled[np.argsort(-size_G[shuffled], kind="stable")]
    wanted_KS = share_K[:, None] * np.bincount(stratum_N)
    missed_KS, held_K = -wanted_KS, np.zeros(len(share_K), dtype=np.int64)
    number_G = np.empty(len(groups), dtype=np.int64)
    for place, group in enumerate(order):
        own = slice(first_G[group], first_G[group + 1])
        stratum, more = pair[own] % len(strata), count[own]
        cost_K = (more * (2 * missed_KS[:, stratum] + more) / wanted_KS[:, stratum]).sum(1)
        if len(order) - place <= (held_K == 0).sum():
            cost_K = np.where(held_K == 0, cost_K, np.inf)
        number = int(cost_K.argmin())
        missed_KS[number, stratum] += more
        held_K[number] += 1
        number_G[group] = number
    return number_G[group_N]
