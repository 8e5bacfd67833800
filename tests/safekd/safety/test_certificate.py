"""Certificates: what held-out data show, what they do not show, and what cannot be certified at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.safety import (
    Recall,
    SafetyConstraint,
    TruthProbability,
    betting_lower_bound,
    certify,
    clopper_pearson_lower_bound,
)


class Table(nn.Module):
    """A student that reads its logits from a table: the inputs are row numbers."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits))

    def forward(self, rows):
        return self.logits[rows]


def student_right_on(n: int, N: int, p: float = 0.9) -> Table:
    """Return a student that gives the truth, class 0, probability p on the first n of N examples, 1 - p on others."""
    p_N = torch.where(torch.arange(N) < n, p, 1 - p).double()
    return Table(torch.stack([p_N, 1 - p_N], -1).log())


def held_out(N: int, **more) -> Split:
    return Split("certify", torch.arange(N), torch.zeros(N, dtype=torch.long), **more)


RECALL = SafetyConstraint("malignant", Recall([0]), 0.9)
TRUTH = SafetyConstraint("malignant", TruthProbability([0]), 0.8)


def test_recall_gets_the_exact_binomial_bound():
    found = certify(student_right_on(97, 100), RECALL, held_out(100))
    assert found.method == "clopper_pearson"
    assert found.lower_bound == clopper_pearson_lower_bound(97, 100)
    assert (found.estimate, found.count, found.confidence, found.required) == (0.97, 100, 0.95, 0.9)
    assert found.decision == "safe"


def test_a_probability_gets_the_betting_bound():
    p_N = torch.linspace(0.8, 1, 400, dtype=torch.float64)
    found = certify(Table(torch.stack([p_N, 1 - p_N], -1).log()), TRUTH, held_out(400), seed=3)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(3))
    assert found.method == "betting"
    assert found.lower_bound == pytest.approx(betting_lower_bound(p_N[order].numpy()), abs=1e-9)
    assert found.estimate == pytest.approx(0.9)
    assert found.decision == "safe"


def test_sorted_data_do_not_matter_and_the_seed_does_not_matter_much():
    p_N = torch.linspace(0.8, 1, 400, dtype=torch.float64)
    student = Table(torch.stack([p_N, 1 - p_N], -1).log())
    bounds = [certify(student, TRUTH, held_out(400), seed=seed).lower_bound for seed in range(5)]
    assert max(bounds) - min(bounds) < 0.01


@pytest.mark.parametrize("right", [100, 95, 94, 93, 92, 90])
def test_an_average_above_the_threshold_is_not_enough(right):
    """95 of 100 show 0.9 at 95 %, for Clopper-Pearson says 0.8976 for 95 and 0.9108 for 96."""
    found = certify(student_right_on(right, 100), RECALL, held_out(100))
    assert found.estimate >= 0.9
    assert found.decision == ("safe" if right >= 96 else "not_shown")


@pytest.mark.parametrize("constraint", [RECALL, TRUTH])
def test_a_wrong_student_is_refused(constraint):
    found = certify(student_right_on(10, 1000), constraint, held_out(1000))
    assert found.decision == "not_shown"
    assert found.lower_bound < 0.2


def test_a_student_below_the_threshold_passes_no_more_often_than_stated():
    """True recall 0.88 against 0.9: of 300 certificates at 80 %, at most a fifth may say safe (and 3 sigma)."""
    generator = torch.Generator().manual_seed(0)
    safe = 0
    for _ in range(300):
        right = int((torch.rand(60, generator=generator) < 0.88).sum())
        safe += certify(student_right_on(right, 60), RECALL, held_out(60), confidence=0.8).decision == "safe"
    assert safe / 300 <= 0.2 + 3 * (0.2 * 0.8 / 300) ** 0.5


def test_the_text_says_what_was_shown():
    safe, not_shown = (str(certify(student_right_on(n, 100), RECALL, held_out(100))) for n in (100, 90))
    assert safe.startswith("malignant: safe. 95% lower bound 0.9705 >= required 0.9 (average 1.0000 over 100 examples")
    assert "not shown. 95% lower bound 0.8363 < required 0.9 (average 0.9000" in not_shown


def test_batches_do_not_change_the_answer():
    p_N = torch.rand(100, generator=torch.Generator().manual_seed(0)).double()
    student = Table(torch.stack([p_N, 1 - p_N], -1).log())
    assert certify(student, TRUTH, held_out(100), batch_size=7) == certify(student, TRUTH, held_out(100))


def test_only_covered_examples_count():
    data = Split(
        "certify",
        torch.arange(6),
        torch.tensor([0, 0, 1, 0, 1, 0]),
        context=torch.tensor([0, 1, 1, 1, 0, 2]),
    )
    constraint = SafetyConstraint("night", Recall([0]), 0.5, contexts=[1, 2])
    found = certify(student_right_on(2, 6), constraint, data)
    assert (found.count, found.estimate) == (3, pytest.approx(1 / 3))
    assert certify(student_right_on(2, 6), SafetyConstraint("all", Recall([0]), 0.5, average="all"), data).count == 6


def test_held_out_may_be_a_pair():
    assert certify(student_right_on(5, 5), RECALL, (torch.arange(5), torch.zeros(5, dtype=torch.long))).count == 5


def test_nobody_covered_is_told():
    data = Split("night shift", torch.arange(3), torch.ones(3, dtype=torch.long))
    with pytest.raises(InvalidInput, match="No example of 'night shift' is covered by 'malignant'"):
        certify(student_right_on(3, 3), RECALL, data)


@pytest.mark.parametrize("constraint", [RECALL, TRUTH])
def test_nan_is_never_safe(constraint):
    """An argmax takes NaN for the most probable class, so a broken student would have perfect recall of class 0."""
    with pytest.raises(InvalidInput, match="gives values that are not finite on 'certify'; it cannot be certified"):
        certify(Table(torch.full((50, 2), float("nan"))), constraint, held_out(50))


def test_a_label_that_the_student_cannot_give():
    data = Split("certify", torch.arange(3), torch.tensor([0, 1, 2]))
    with pytest.raises(InvalidInput, match="A label of 'certify' is 2, but the student knows only 2 classes"):
        certify(student_right_on(3, 3), RECALL, data)


def test_a_student_that_gives_no_logits():
    class Wrong(nn.Module):
        def forward(self, rows):
            return {"scores": rows}

    with pytest.raises(InvalidInput, match="The student gave a dict; wanted a tensor of logits"):
        certify(Wrong(), RECALL, held_out(3))


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_that_is_none(confidence):
    with pytest.raises(InvalidInput, match=f"`confidence` is {confidence}; wanted a number between 0 and 1"):
        certify(student_right_on(3, 3), RECALL, held_out(3), confidence=confidence)


class Noisy(nn.Module):
    """A student that is right in eval mode only, with a part that stays frozen while the rest trains."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm1d(2)
        self.frozen.eval()

    def forward(self, rows):
        if self.training:
            raise AssertionError("certified in training mode")
        return torch.tensor([[9.0, -9.0]]).expand(len(rows), 2)


@pytest.mark.parametrize("training", [True, False])
def test_modes_come_back_as_they_were(training):
    student = Noisy()
    student.training = training
    assert certify(student, RECALL, held_out(40)).decision == "safe"
    assert student.training is training
    assert student.frozen.training is False


def test_modes_come_back_after_an_error():
    student = Table(torch.full((50, 2), float("nan"))).train()
    with pytest.raises(InvalidInput):
        certify(student, RECALL, held_out(50))
    assert student.training
