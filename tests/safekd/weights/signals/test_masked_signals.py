"""Signals with positions that do not count: what is read there, what rules make of it, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.weights import Conforming, EntropyDecay, Signals, Stored

K, V = 3, 4
MASK = torch.tensor([[True, True, False], [True, False, False]])
LOG_P = torch.randn(2, 3, K, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
NAN = math.nan


def test_what_stands_where_no_position_counts_is_not_seen():
    junk = LOG_P.masked_fill(~MASK[..., None, None], NAN)
    signals = Signals(
        log_p=junk,
        labels=torch.tensor([[3, 0, -100], [1, -100, -100]]),
        features=torch.full((2, 3, 5), NAN).masked_fill(MASK[..., None], 1.0),
        safety=torch.full((2, 3, K), NAN).masked_fill(MASK[..., None], 0.5),
        critical_classes=[0],
    )
    assert torch.equal(signals.mask, MASK)
    assert torch.equal(signals.log_p[MASK], LOG_P[MASK])
    assert torch.allclose(signals.log_p[~MASK].exp(), torch.tensor(1 / V).double())
    assert signals.labels.tolist() == [[3, 0, 0], [1, 0, 0]]
    assert signals.critical.tolist() == [[False, True, False], [False, False, False]]  # no class 0 at padding
    assert signals.select_counted(signals.features).shape == (3, 5)
    for value in (signals.features, signals.safety, signals.cross_entropy, signals.entropy):
        assert bool(torch.isfinite(value).all())
    first = Signals(log_p=junk.flip(1), mask=MASK.flip(1))  # the first position, by which log_p is judged, is junk
    assert bool(torch.isfinite(first.entropy).all())


def test_a_mask_of_all_positions_changes_nothing():
    labels = torch.zeros(2, 3, dtype=torch.long)
    whole, masked = Signals(log_p=LOG_P, labels=labels), Signals(log_p=LOG_P, labels=labels, mask=MASK | ~MASK)
    assert torch.equal(
        Conforming(EntropyDecay(), kd.WeightPolytope(K, 0.1))(masked),
        EntropyDecay()(whole) * 0 + (Conforming(EntropyDecay(), kd.WeightPolytope(K, 0.1))(whole)),
    )


REFUSED = {
    "numbers": (
        {"mask": MASK.long()},
        r"`mask` is int64 of shape \(2, 3\); wanted bool of shape \(2, 3\), one for each",
    ),
    "another shape": ({"mask": MASK[0]}, r"`mask` is bool of shape \(3,\); wanted bool of shape \(2, 3\)"),
    "no tensor": ({"mask": [True]}, r"`mask` is a list; wanted a tensor"),
    "junk that counts": (
        {"log_p": LOG_P.flip(-1) * 0, "mask": MASK},
        r"`log_p` holds no log-probabilities: .* sums to 4 at the first position",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_masks_that_do_not_fit(case):
    given, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        Signals(**{"log_p": LOG_P, **given})


def test_scores_of_a_rule_are_looked_at_where_positions_count():
    polytope = kd.WeightPolytope(K, 0.1, 0.6)

    def says(signals):
        return signals.ones().masked_fill(~MASK[..., None], NAN)

    weights = Conforming(says, polytope)(Signals(log_p=LOG_P, mask=MASK))
    assert torch.allclose(weights, torch.tensor(1 / 3).double())
    with pytest.raises(InvalidInput, match=r"gave scores .* at position \(0, 2\)"):
        Conforming(says, polytope)(Signals(log_p=LOG_P, mask=MASK.flip(1)))


def test_stored_weights_by_position_may_hold_anything_at_padding():
    table = torch.rand(4, 3, 2, dtype=torch.float64)
    table = table / table.sum(-1, keepdim=True)
    counted = torch.arange(3) < torch.tensor([[3], [1], [2], [0]])
    data = kd.Split("train", torch.randn(4, 3, 2), torch.zeros(4, 3).long(), mask=counted)
    teachers = [kd.teachers.CallableTeacher(n, lambda x, n=n: x * len(n), "logits") for n in ("a", "bb")]

    def fit(rows):
        student = nn.Linear(2, 2)
        nn.init.zeros_(student.weight)
        nn.init.zeros_(student.bias)
        adam = torch.optim.Adam(student.parameters(), lr=0.1)
        return kd.ConstrainedTrainer(student, teachers, weights=Stored(rows), optimizer=adam).fit(data, epochs=3)

    ours, plain = fit(table.masked_fill(~counted[..., None], NAN)), fit(table)
    assert torch.equal(ours.student.weight, plain.student.weight)
    table[1, 0, 0] = NAN
    with pytest.raises(InvalidInput, match="Stored weights of a tensor are not finite for example 1"):
        fit(table)


def test_a_batch_without_a_position_that_counts_teaches_no_rule():
    signals = Signals(log_p=LOG_P, mask=MASK & ~MASK)
    tracking = kd.weights.Tracking(EntropyDecay(), kd.WeightPolytope(K, 0.1, 0.6), beta=0.5)
    assert tracking(signals).shape == (2, 3, K)
    assert tracking.steps_G.tolist() == [0]
