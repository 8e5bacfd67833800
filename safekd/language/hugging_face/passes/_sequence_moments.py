"""Averages over positions, with standard errors that know that the positions of a sequence belong together.

With S_c the sum of sequence c over n_c positions, an average is the ratio r = sum S / sum n, and its squared error
``C / (C - 1) sum_c ((S_c - r n_c) / sum n)^2``: first and second moments of (S_c, n_c) say it, however many sequences.

Axes: C sequences, G groups of one constraint.  Source: Cochran 1977, section 6.3 (ratio estimator).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class SequenceMoments:
    """First and second moments of each sequence's sums and counts, float64 on the processor.

    Args:
        groups: G, how many averages are read beside each other.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.sequences = 0.0
        self.first_g = torch.zeros(2 * groups, dtype=torch.float64)
        self.second_gg = torch.zeros(2 * groups, 2 * groups, dtype=torch.float64)

    @staticmethod
    def length_of(groups: int) -> int:
        """Return how long ``pack`` is.

        Args:
            groups: G.
        """
        return 1 + 2 * groups + 4 * groups**2

    def add(self, total_BG: Tensor, count_BG: Tensor) -> None:
        """Take in some sequences; one without a position that counts is none.

        Args:
            total_BG: Sum of each, (B, G).
            count_BG: Positions of each, (B, G).
        """
        both = torch.cat([total_BG, count_BG], dim=1).double().cpu()
        both = both[count_BG.cpu().sum(1) > 0]
        self.sequences += len(both)
        self.first_g += both.sum(0)
        self.second_gg += both.T @ both

    def pack(self) -> Tensor:
        """Return all moments in one row, so that processes can add theirs up."""
        return torch.cat([torch.tensor([self.sequences], dtype=torch.float64), self.first_g, self.second_gg.flatten()])

    def unpack(self, packed: Tensor) -> None:
        """Take over what ``pack`` gave, or a sum of several.

        Args:
            packed: The row.
        """
        self.sequences = float(packed[0])
        self.first_g = packed[1 : 1 + 2 * self.groups].clone()
        self.second_gg = packed[1 + 2 * self.groups :].reshape(2 * self.groups, -1).clone()

    @property
    def counts(self) -> Tensor:
        """Positions of each group."""
        return self.first_g[self.groups :]

    @property
    def means(self) -> Tensor:
        """Average of each group; not a number where it has no position."""
        return self.first_g[: self.groups] / self.counts

    def standard_error(self, weight_G: Tensor) -> float:
        """Return the standard error of ``weight . mean``; no number below two sequences.

        Args:
            weight_G: How much each average counts.
        """
        if self.sequences < 2:
            return math.nan
        share_G = torch.where(weight_G == 0, 0.0, weight_G / self.counts)
        along_g = torch.cat([share_G, torch.where(weight_G == 0, 0.0, -share_G * self.means)])
        squares = float(along_g @ self.second_gg @ along_g)
        return math.sqrt(max(squares, 0.0) * self.sequences / (self.sequences - 1))
