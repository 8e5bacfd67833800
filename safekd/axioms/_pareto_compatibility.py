"""Pareto compatibility (III.14): does whoever minimizes the weighted losses waste something?

With fixed weights above 0 a minimizer is a Pareto optimum, whatever the losses.  A weight of 0 lets through students
that somebody beats in that loss for nothing (weak optima only).  Weights that look at the student can prefer one that
is worse in every respect, because its weights are kinder.  Axes: B rows, K teachers, N candidate students.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import InvalidInput
from ._audit_report import Finding

Losses = Tensor | ArrayLike | Callable[[Tensor], Tensor]
_ULPS = 8
_REACHED = 1e-9  # relative: how close to a minimum a minimizer that is given as a function may stop
_REMEDY = {
    False: "Keep every weight above 0: Conforming(rule, polytope) with lower > 0.",
    True: "Let the weights not fall faster than the loss grows, or fix them while the student is chosen.",
}


@dataclass(frozen=True)
class ParetoViolation:
    """Rows whose minimizer is beaten: which rows, the largest loss given away, by which minimizer to whom, where."""

    rows_B: Tensor
    amount: float = 0.0
    row: int = 0
    chosen: int = 0
    better: int = 0


def judge_pareto(axiom: str, subject: str, w_BK: Tensor, losses: Losses, under: Sequence[Tensor] | None) -> Finding:
    """Return the finding on III.14; ``where`` is a row.

    w_BK: weights, (B, K).  losses: of N candidate students on what the K teachers teach, (N, K), or a function from
    weights (B, K) to the losses (B, J) of the students that minimize the sums.  under: weights under each candidate,
    N of shape (B, K), for a rule that looks at the student; None if weights do not.
    """
    w_BK = w_BK.double()
    if callable(losses):
        if under is not None:
            raise InvalidInput("`under` goes with a table of losses; a function of the weights has its own students.")
        reached_BJ = _table(losses(w_BK), "the losses that `losses` returned", rows=len(w_BK))
        return _told(axiom, subject, _reached_waste(reached_BJ), len(w_BK), "The student of row")
    losses_NK = _table(losses, "`losses`", columns=w_BK.shape[1])
    if under is not None and len(under) != len(losses_NK):
        raise InvalidInput(f"`under` holds signals of {len(under)} students, `losses` of {len(losses_NK)}; match them.")
    sums_BN = w_BK @ losses_NK.T
    if under is not None:
        sums_BN = torch.stack([w.double() @ loss_K for w, loss_K in zip(under, losses_NK, strict=True)], dim=-1)
    waste = _table_waste(w_BK, losses_NK, sums_BN, adaptive=under is not None)
    return _told(axiom, subject, waste, len(w_BK), "Candidate", adaptive=under is not None)


def _table(values: object, name: str, rows: int | None = None, columns: int | None = None) -> Tensor:
    try:
        table = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as cause:
        raise InvalidInput(f"{name} are no table of numbers ({cause}); wanted one row a student.") from cause
    wanted = (rows or "any number", columns or "any number")
    fits = (
        table.ndim == 2 and table.shape[0] == (rows or table.shape[0]) and table.shape[1] == (columns or table.shape[1])
    )
    if not fits or not table.numel():
        raise InvalidInput(f"{name} have shape {tuple(table.shape)}; wanted ({wanted[0]}, {wanted[1]}).")
    if not bool(table.isfinite().all()):
        row = int((~table.isfinite()).any(-1).nonzero()[0])
        raise InvalidInput(f"{name} are not finite in row {row}; leave that student out, or mend its loss.")
    return table


def _table_waste(w_BK: Tensor, losses_NK: Tensor, sums_BN: Tensor, adaptive: bool) -> ParetoViolation:
    """Find minimizers that are beaten by a candidate no worse in any loss."""
    least_B = sums_BN.amin(-1, keepdim=True)
    slack_B = _ULPS * torch.finfo(torch.float64).eps * sums_BN.abs().amax(-1, keepdim=True)
    minimal_BN = sums_BN <= least_B + slack_B
    waste = ParetoViolation(w_BK.isnan().any(-1) | least_B.squeeze(-1).isnan())
    for n in range(len(losses_NK)):
        gap_NK = losses_NK[n] - losses_NK
        better_N = (gap_NK >= 0).all(-1) & (gap_NK > 0).any(-1)
        if not bool(better_N.any()):
            continue
        # a sum of terms of one sign: rounding does not make a tie where there is none
        gain_BN = sums_BN[:, n, None] - sums_BN if adaptive else w_BK @ gap_NK.T
        beaten_BN = minimal_BN[:, n, None] & better_N & (gain_BN <= 0)
        waste = _larger(waste, beaten_BN, gap_NK.amax(-1), n)
    return waste


def _larger(waste: ParetoViolation, beaten_BN: Tensor, gap_N: Tensor, n: int) -> ParetoViolation:
    rows_B = waste.rows_B | beaten_BN.any(-1)
    worst_B, by_B = torch.where(beaten_BN, gap_N, -torch.inf).max(-1)
    row = int(worst_B.argmax())
    if not float(worst_B[row]) > waste.amount:
        return ParetoViolation(rows_B, waste.amount, waste.row, waste.chosen, waste.better)
    return ParetoViolation(rows_B, float(worst_B[row]), row, n, int(by_B[row]))


def _reached_waste(reached_BJ: Tensor) -> ParetoViolation:
    """Find students, reached by minimizing, that are beaten by the student of another row."""
    slack = _REACHED * float(reached_BJ.abs().max())
    waste = ParetoViolation(torch.zeros(len(reached_BJ), dtype=torch.bool))
    for n in range(len(reached_BJ)):
        gap_BJ = reached_BJ[n] - reached_BJ
        better_B = (gap_BJ >= 0).all(-1) & (gap_BJ > slack).any(-1)
        beaten_BB = torch.zeros(len(reached_BJ), len(reached_BJ), dtype=torch.bool)
        beaten_BB[n] = better_B
        waste = _larger(waste, beaten_BB, gap_BJ.amax(-1), n)
    return waste


def _told(axiom: str, subject: str, waste: ParetoViolation, of: int, who: str, adaptive: bool = False) -> Finding:
    rows = int(waste.rows_B.sum())
    if not rows:
        text = f"In all {of} rows nobody beats whoever minimizes the weighted losses."
        return Finding(axiom, subject, "holds", text, 0.0, None, 0, of)
    if not waste.amount > 0:
        row = int(waste.rows_B.to(torch.uint8).argmax())
        text = f"Weights in row {row} are no numbers, so nobody minimizes their sum."
        return Finding(axiom, subject, "violated", text, float("nan"), (row,), rows, of, _REMEDY[adaptive])
    text = (
        f"{who} {waste.chosen} minimizes the weighted losses in row {waste.row}, but {who.lower()} {waste.better} is "
        f"better by {waste.amount:.3g} in one loss and worse in none."
    )
    return Finding(axiom, subject, "violated", text, waste.amount, (waste.row,), rows, of, _REMEDY[adaptive])
