"""Pareto compatibility, and what data tell of the student."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.weights import InverseLoss, Signals
from tests.support.weighting import everything, log_p, t


def pareto(w, losses, **more):
    return kd.audit(t(*w) if isinstance(w, list) else w, scale="task", losses=losses, **more)["III.14"]


FRONT = t([0.0, 4.0], [1.0, 1.0], [4.0, 0.0], [2.0, 2.0])


def test_positive_weights_choose_optima():
    assert pareto([[0.5, 0.5], [0.9, 0.1], [0.01, 0.99]], FRONT).status == "holds"


def test_a_weight_of_zero_can_choose_a_weak_optimum():
    """Weights (1, 0) cannot tell (1, 5) from (1, 3)."""
    finding = pareto([[0.5, 0.5], [1.0, 0.0]], t([1.0, 5.0], [1.0, 3.0], [2.0, 2.5]))
    assert (finding.status, finding.where, finding.rows, finding.judged) == ("violated", (1,), 1, 2)
    assert finding.worst == 2
    assert finding.evidence.startswith(
        "Candidate 0 minimizes the weighted losses in row 1, but candidate 1 is better by 2"
    )
    assert "above 0" in finding.remedy


def test_a_weight_of_zero_passes_where_minimizers_are_unique():
    assert pareto([[1.0, 0.0]], FRONT).status == "holds"


def test_a_negative_weight_chooses_the_worse():
    assert pareto([[1.1, -0.1]], t([1.0, 5.0], [1.0, 3.0])).status == "violated"


def test_weights_that_are_no_numbers_choose_nobody():
    finding = pareto([[math.nan, 0.5]], FRONT)
    assert finding.status == "violated"
    assert math.isnan(finding.worst)


@given(seed=st.integers(0, 10**6), N=st.integers(1, 12), K=st.integers(1, 4))
def test_it_agrees_with_looking_at_every_pair(seed, N, K):
    """Small whole numbers, so that ties and zeros come up and sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    losses = torch.randint(4, (N, K), generator=generator).double()
    w = torch.randint(3, (5, K), generator=generator).double()

    def wasteful(row):
        sums = (losses @ w[row]).tolist()
        rows = losses.tolist()
        return any(
            sums[n] == min(sums) and all(x <= y for x, y in zip(a, b, strict=True)) and a != b
            for n, b in enumerate(rows)
            for a in rows
        )

    finding = pareto(w, losses)
    assert finding.rows == sum(wasteful(row) for row in range(5))


@given(seed=st.integers(0, 10**6), small=st.floats(-300, -1))
def test_however_small_a_positive_weight_it_tells_students_apart(seed, small):
    losses = torch.randn(20, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    losses = torch.cat([losses, losses + t(0.0, 1.0)])
    assert pareto([[1.0, 10.0**small]], losses).status == "holds"


def test_weights_that_look_at_the_student_can_prefer_the_worse():
    """Weights exp(-4 loss): the sum falls as the second loss grows, because nobody counts it any more."""
    losses = t([1.0, 1.2], [1.0, 3.0])

    def kind(signals):
        return (-4 * signals.task_loss).softmax(-1)

    students = [Signals(task_loss=loss.expand(3, 2)) for loss in losses]
    finding = kd.audit(kind, students[0], scale="task", losses=losses, under=students, tries=1)["III.14"]
    assert finding.status == "violated"
    assert finding.worst == pytest.approx(1.8)
    assert "not fall faster" in finding.remedy
    fixed = kd.audit(kind, students[0], scale="task", losses=losses, tries=1)["III.14"]
    assert fixed.status == "holds"


def test_minimizers_found_by_somebody_else():
    """The minimum over x of a x^2 + b (x - 2)^2 is at x = 2 b / (a + b): on the front.  One that stops early is not."""

    def solved(w_BK):
        x = 2 * w_BK[:, 1] / w_BK.sum(-1)
        return torch.stack([x**2, (x - 2) ** 2], dim=-1)

    def stopped(w_BK):
        reached = solved(w_BK)
        reached[0] = reached[1] + 0.5
        return reached

    w = t([0.5, 0.5], [0.2, 0.8], [0.9, 0.1])
    assert pareto(w, solved).status == "holds"
    finding = pareto(w, stopped)
    assert (finding.status, finding.where) == ("violated", (0,))
    assert finding.evidence.startswith("The student of row 0 minimizes")


REFUSED = {
    "columns": ({"losses": t([1.0, 2.0, 3.0])}, r"`losses` have shape \(1, 3\); wanted \(any number, 2\)"),
    "nan": ({"losses": t([1.0, math.nan])}, "`losses` are not finite in row 0"),
    "rows": ({"losses": lambda w: w[:1]}, r"`losses` returned have shape \(1, 2\); wanted \(2, any number\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_losses_that_do_not_fit(case):
    more, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        pareto([[0.5, 0.5], [0.4, 0.6]], **more)


def test_students_and_losses_must_match():
    signals = Signals(task_loss=t([1.0, 2.0]))
    with pytest.raises(InvalidInput, match="`under` holds signals of 1 students, `losses` of 4"):
        kd.audit(InverseLoss(), signals, losses=FRONT, under=[signals], tries=1)
    with pytest.raises(
        InvalidInput, match="`under` goes with a table of losses; a function of the weights has its own"
    ):
        kd.audit(InverseLoss(), signals, losses=lambda w_BK: w_BK, under=[signals], tries=1)


def test_without_losses_nobody_can_tell():
    assert kd.audit(t([0.5, 0.5]), scale="task")["III.14"].status == "not_applicable"


# assumptions on the student -------------------------------------------------------------------------------------------


def test_a_student_that_equals_the_mixture_is_realized():
    teachers = log_p(0, 4, 2, 5)
    mixed = teachers.exp().mean(-2).log()
    uniform = kd.weights.Uniform()
    assert kd.audit(uniform, Signals(log_p=teachers, student_log_p=mixed), tries=1)["A3"].status == "holds"
    finding = kd.audit(uniform, Signals(log_p=teachers, student_log_p=log_p(1, 4, 5)), tries=1)["A3"]
    assert finding.status == "estimated"
    q = teachers.exp().mean(-2)
    assert finding.worst == pytest.approx(float((q * (q.log() - log_p(1, 4, 5))).sum(-1).max()))
    assert kd.audit(uniform, Signals(log_p=teachers), tries=1)["A3"].status == "not_applicable"


STUDENTS = {
    "linear": (lambda: nn.Linear(3, 4), "estimated"),
    "tanh": (lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)), "estimated"),
    "relu": (lambda: nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 4)), "violated"),
}


@pytest.mark.parametrize("case", STUDENTS)
def test_a_student_with_kinks_is_not_smooth(case):
    torch.manual_seed(0)
    build, status = STUDENTS[case]
    student = build()
    finding = kd.audit(kd.weights.Uniform(), Signals(**everything(0)), student=(student, torch.randn(16, 3)), tries=1)[
        "A4"
    ]
    assert finding.status == status
    assert student.training
