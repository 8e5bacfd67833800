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


@dataclass(frozen=True)
class ParetoSettings:
    """What counts as a minimum; ``tests/safekd/axioms/test_pareto_axiom.py`` notices.

    Attributes:
        tie_ulps: Sums of losses within so many ulp of the least one are minimal too.
        solver_tolerance: How close to a minimum a minimizer that is given as a function may stop, relative.
    """

    tie_ulps: float = 8
    solver_tolerance: float = 1e-9


_PARETO = ParetoSettings()
_REMEDY = {
    False: "Keep every weight above 0: Conforming(rule, polytope) with lower > 0.",
    True: "Let the weights not fall faster than the loss grows, or fix them while the student is chosen.",
}


@dataclass(frozen=True)
class ParetoViolation:
    """Rows whose minimizer is dominated.

    Attributes:
        rows_B: Which rows, bool, (B,).
        amount: The largest loss given away.
        row: In which row.
        chosen: By which minimizer.
        better: To which candidate.
    """

    rows_B: Tensor
    amount: float = 0.0
    row: int = 0
    chosen: int = 0
    better: int = 0


def judge_pareto(axiom: str, subject: str, w_BK: Tensor, losses: Losses, under: Sequence[Tensor] | None) -> Finding:
    """Return the finding on III.14; its ``where`` is a row.

    Args:
        axiom: Id of the axiom.
        subject: What the report calls the weights.
        w_BK: Weights, (B, K).
        losses: Losses of N candidate students on what the K teachers teach, (N, K), or a function from weights (B, K)
            to the losses (B, J) of the students that minimize the sums.
        under: Weights under each candidate, N of shape (B, K), for a rule that looks at the student; None if weights do
            not.

    Source: axiom III.14.
    """
    w_BK = w_BK.double()
    if callable(losses):
        if under is not None:
            raise InvalidInput("`under` goes with a table of losses; a function of the weights has its own students.")
        reached_BJ = _read_losses(losses(w_BK), "the losses that `losses` returned", rows=len(w_BK))
        return _write_pareto_finding(
            axiom, subject, _find_dominated_students(reached_BJ), len(w_BK), "The student of row"
        )
    losses_NK = _read_losses(losses, "`losses`", columns=w_BK.shape[1])
    if under is not None and len(under) != len(losses_NK):
        raise InvalidInput(f"`under` holds signals of {len(under)} students, `losses` of {len(losses_NK)}; match them.")
    sums_BN = w_BK @ losses_NK.T
    if under is not None:
        sums_BN = torch.stack([w.double() @ loss_K for w, loss_K in zip(under, losses_NK, strict=True)], dim=-1)
    violation = _find_dominated_candidates(w_BK, losses_NK, sums_BN, adaptive=under is not None)
    return _write_pareto_finding(axiom, subject, violation, len(w_BK), "Candidate", adaptive=under is not None)


def _read_losses(values: object, name: str, rows: int | None = None, columns: int | None = None) -> Tensor:
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


def _find_dominated_candidates(w_BK: Tensor, losses_NK: Tensor, sums_BN: Tensor, adaptive: bool) -> ParetoViolation:
    """Find minimizers that are beaten by a candidate no worse in any loss."""
    least_B = sums_BN.amin(-1, keepdim=True)
    slack_B = _PARETO.tie_ulps * torch.finfo(torch.float64).eps * sums_BN.abs().amax(-1, keepdim=True)
    minimal_BN = sums_BN <= least_B + slack_B
    violation = ParetoViolation(w_BK.isnan().any(-1) | least_B.squeeze(-1).isnan())
    for n in range(len(losses_NK)):
        gap_NK = losses_NK[n] - losses_NK
        better_N = (gap_NK >= 0).all(-1) & (gap_NK > 0).any(-1)
        if not bool(better_N.any()):
            continue
        # a sum of terms of one sign: rounding does not make a tie where there is none
        gain_BN = sums_BN[:, n, None] - sums_BN if adaptive else w_BK @ gap_NK.T
        beaten_BN = minimal_BN[:, n, None] & better_N & (gain_BN <= 0)
        violation = _keep_larger(violation, beaten_BN, gap_NK.amax(-1), n)
    return violation


def _keep_larger(violation: ParetoViolation, beaten_BN: Tensor, gap_N: Tensor, n: int) -> ParetoViolation:
    rows_B = violation.rows_B | beaten_BN.any(-1)
    worst_B, by_B = torch.where(beaten_BN, gap_N, -torch.inf).max(-1)
    row = int(worst_B.argmax())
    if not float(worst_B[row]) > violation.amount:
        return ParetoViolation(rows_B, violation.amount, violation.row, violation.chosen, violation.better)
    return ParetoViolation(rows_B, float(worst_B[row]), row, n, int(by_B[row]))


def _find_dominated_students(reached_BJ: Tensor) -> ParetoViolation:
    """Find students, reached by minimizing, that are beaten by the student of another row."""
    slack = _PARETO.solver_tolerance * float(reached_BJ.abs().max())
    violation = ParetoViolation(torch.zeros(len(reached_BJ), dtype=torch.bool))
    for n in range(len(reached_BJ)):
        gap_BJ = reached_BJ[n] - reached_BJ
        better_B = (gap_BJ >= 0).all(-1) & (gap_BJ > slack).any(-1)
        beaten_BB = torch.zeros(len(reached_BJ), len(reached_BJ), dtype=torch.bool)
        beaten_BB[n] = better_B
        violation = _keep_larger(violation, beaten_BB, gap_BJ.amax(-1), n)
    return violation


def _write_pareto_finding(
    axiom: str, subject: str, violation: ParetoViolation, judged: int, who: str, adaptive: bool = False
) -> Finding:
    rows = int(violation.rows_B.sum())
    if not rows:
        text = f"In all {judged} rows nobody beats whoever minimizes the weighted losses."
        return Finding(axiom, subject, "holds", text, 0.0, None, 0, judged)
    if not violation.amount > 0:
        row = int(violation.rows_B.to(torch.uint8).argmax())
        text = f"Weights in row {row} are no numbers, so nobody minimizes their sum."
        return Finding(axiom, subject, "violated", text, float("nan"), (row,), rows, judged, _REMEDY[adaptive])
    text = (
        f"{who} {violation.chosen} minimizes the weighted losses in row {violation.row}, but {who.lower()} "
        f"{violation.better} is better by {violation.amount:.3g} in one loss and worse in none."
    )
    return Finding(
        axiom, subject, "violated", text, violation.amount, (violation.row,), rows, judged, _REMEDY[adaptive]
    )
