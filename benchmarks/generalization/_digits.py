"""Digits of scikit-learn, augmented until there are many: a population whose cases are clustered by original.

The 1797 originals are split into disjoint sets first: 150 for the teachers, 450 to train, 250 to judge, 947 that are
new.  Every case is an original turned by up to 8 degrees, moved by up to half a pixel, with noise of one 32nd of the
range.  Training and judging originals give one case each, new critical ones as many as make 20,000.  Axes: N cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import safekd as kd
from safekd.teachers import CallableTeacher

from ._population import Teachers, split

SIZES = {"teachers": 150, "train": 450, "judge": 250, "new": 947}
NEW = 20_000
TURN, MOVE, NOISE = math.radians(8), 0.5, 1 / 32  # radians, pixels, share of the range of grey
_LEFT = torch.tensor([True] * 4 + [False] * 4).repeat(8)


@dataclass(frozen=True)
class Digits:
    """The splits of one seed; ``origins``: which original each new case was made from, (N,)."""

    train: kd.Split
    judge: kd.Split
    new: kd.Split
    mixed: kd.Split
    teachers: Teachers
    origins: Tensor


def draw(seed: int, critical: Sequence[int]) -> Digits:
    """Return the splits and teachers of one seed; ``critical``: classes of which new cases are made."""
    generator = torch.Generator().manual_seed(seed)
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=generator)
    images, labels = torch.as_tensor(digits.images).float()[order] / 16, torch.as_tensor(digits.target).long()[order]
    image = dict(zip(SIZES, images.split(list(SIZES.values())), strict=True))
    label = dict(zip(SIZES, labels.split(list(SIZES.values())), strict=True))

    def cases(name: str, which_N: Tensor) -> kd.Split:
        return split(name, augment(image[name][which_N], generator).flatten(1) * 2 - 1, label[name][which_N])

    everything = {name: torch.arange(size) for name, size in SIZES.items()}
    teachers = _teachers(cases("teachers", everything["teachers"].repeat(8)), critical, seed)
    critical_cases = torch.isin(label["new"], torch.tensor(critical)).nonzero().squeeze(-1)
    origins = critical_cases.repeat(math.ceil(NEW / len(critical_cases)))
    new, mixed = cases("new", origins), cases("new", everything["new"].repeat(4))
    train, judge = cases("train", everything["train"]), cases("judge", everything["judge"])
    return Digits(train, judge, new, mixed, teachers, origins)


def augment(image_NHW: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image turned, moved and with noise, as the module says, (N, 8, 8) in [0, 1]."""
    size = len(image_NHW)
    angle_N = TURN * (2 * torch.rand(size, generator=generator) - 1)
    move_N2 = MOVE / 4 * (2 * torch.rand(size, 2, generator=generator) - 1)  # the grid spans 2 for 8 pixels
    turn_N22 = torch.stack([angle_N.cos(), -angle_N.sin(), angle_N.sin(), angle_N.cos()], 1).view(-1, 2, 2)
    grid = torch.nn.functional.affine_grid(
        torch.cat([turn_N22, move_N2.unsqueeze(-1)], dim=2), [size, 1, 8, 8], align_corners=False
    )
    moved = torch.nn.functional.grid_sample(image_NHW.unsqueeze(1), grid, align_corners=False).squeeze(1)
    return (moved + NOISE * torch.randn(moved.shape, generator=generator)).clamp(0, 1)


def _teachers(data: kd.Split, critical: Sequence[int], seed: int) -> Teachers:
    """Return one that sees all, one that sees the left half, and one that saw few of the critical digits."""
    x_ND, y_N = data.inputs.numpy(), data.labels.numpy()
    left = _LEFT.numpy()
    generator = torch.Generator().manual_seed(seed)
    kept_N = torch.rand(len(data), generator=generator) < torch.where(
        torch.isin(data.labels, torch.tensor(critical)), 0.4, 1.0
    )
    logistic = LogisticRegression(C=0.2, max_iter=200).fit(x_ND, y_N)
    forest = RandomForestClassifier(60, min_samples_leaf=3, random_state=seed).fit(x_ND[:, left], y_N)
    neighbors = KNeighborsClassifier(9).fit(x_ND[kept_N.numpy()], y_N[kept_N.numpy()])
    return [
        CallableTeacher("logistic, all pixels", lambda x: logistic.predict_proba(x.numpy())),
        CallableTeacher("forest, left half", lambda x: forest.predict_proba(x.numpy()[:, left]), floor=1e-4),
        CallableTeacher("neighbors, few critical ones", lambda x: neighbors.predict_proba(x.numpy()), floor=1e-4),
    ]
