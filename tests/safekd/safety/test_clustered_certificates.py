"""Certificates over data that hang together: positions of sequences, examples of one patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.safety import (
    ClusteredValues,
    Recall,
    SafetyConstraint,
    TruthProbability,
    betting_lower_bound,
    certify,
    clopper_pearson_lower_bound,
    skew_adjusted_t_lower_bound,
)

RECALL = SafetyConstraint("recall", Recall(), 0.9)
TRUTH = SafetyConstraint("truth", TruthProbability(), 0.9)


class Said(nn.Module):
    """A student whose inputs are the probabilities that it gives the truth, class 0."""

    def forward(self, p):
        return torch.stack([p, 1 - p], -1).log()


def sequences(p_NT: torch.Tensor, **more) -> Split:
    return Split("certify", p_NT, torch.zeros(p_NT.shape, dtype=torch.long), **more)


def rows(p_N: torch.Tensor, cluster: torch.Tensor) -> Split:
    return Split("certify", p_N, torch.zeros(len(p_N), dtype=torch.long), cluster=cluster)


def count_false(draw, constraint, runs=200, **more) -> int:
    rng = np.random.default_rng(0)
    return sum(certify(Said(), constraint, draw(rng), **more).decision == "safe" for _ in range(runs))


# Truth below the 0.9 asked for in every draw, at a level of 5 %: some 10 of 200, and at 3 sigma 19, may be false.


def all_or_nothing(rng, clusters=30, size=40, truth=0.85):
    """All values of a sequence are alike: 30 sequences are 30 values, whatever their length."""
    return sequences(torch.tensor(rng.random((clusters, 1)) < truth).double().expand(clusters, size) * 0.98 + 0.01)


def partly_alike(rng, clusters=60, size=20, truth=0.89):
    level = rng.beta(truth * 3, (1 - truth) * 3, (clusters, 1))
    return sequences(torch.tensor(rng.random((clusters, size)) < level).double() * 0.98 + 0.01)


def large_are_unsafe(rng, clusters=60):
    """E[S] / E[n] = (10 * 0.99 + 30 * 0.85) / 40 = 0.885, though the average cluster is at 0.92."""
    small = rng.random(clusters) < 0.5
    size = np.where(small, 10, 30)
    p = np.where(small, 0.99, np.where(rng.random(clusters) < 0.85, 0.995, 0.005))
    number = np.repeat(np.arange(clusters), size)
    return rows(torch.tensor(np.repeat(p, size)), torch.tensor(number))


def critical_positions_differ(rng, clusters=80, size=12):
    """Only some positions are covered, more of them where the student is worse."""
    good = rng.random((clusters, 1)) < 0.9
    covered = rng.random((clusters, size)) < np.where(good, 0.3, 0.5)
    p_NT = torch.tensor(np.where(good, 0.99, 0.01)).expand(clusters, size)
    return Split("certify", p_NT, torch.tensor(~covered).long())


DRAWS = {f.__name__: f for f in (all_or_nothing, partly_alike, large_are_unsafe, critical_positions_differ)}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("kind", ["recall", "truth"])
def test_a_student_below_the_threshold_is_called_safe_no_more_often_than_stated(name, kind):
    critical = [0] if name == "critical_positions_differ" else None
    measure = Recall(critical) if kind == "recall" else TruthProbability(critical)
    assert count_false(DRAWS[name], SafetyConstraint(kind, measure, 0.9)) <= 19


def test_positions_counted_as_independent_would_be_called_safe_too_often():
    """What the clusters are for: the same draws, with every position a row of its own."""
    flat = lambda rng: rows(all_or_nothing(rng).inputs.reshape(-1), torch.arange(1200))  # noqa: E731
    assert count_false(flat, RECALL) > 30


def test_a_safe_student_is_certified():
    draw = lambda rng: all_or_nothing(rng, clusters=120, truth=0.995)  # noqa: E731
    assert count_false(draw, RECALL, runs=40) >= 30


def test_sequences_of_one_length_are_bounded_by_their_averages():
    p_NT = torch.rand(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = certify(Said(), TRUTH, sequences(p_NT), seed=4)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    assert found.lower_bound == pytest.approx(betting_lower_bound(p_NT.mean(1)[order].numpy()), abs=1e-9)
    assert found.estimate == pytest.approx(float(p_NT.mean()))
    assert (found.count, found.clusters, found.method) == (350, 50, "betting")
    assert "average 0.5" in str(found)
    assert "over 350 values in 50 clusters, betting)" in str(found)


def test_a_cluster_for_every_example_changes_nothing():
    p_N = torch.rand(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone, named = Split("certify", p_N, torch.zeros(80).long()), rows(p_N, torch.arange(80))
    for rule in (RECALL, TRUTH):
        assert certify(Said(), rule, alone) == certify(Said(), rule, named)
    assert certify(Said(), RECALL, named).method == "clopper_pearson"
    one_position = sequences(p_N.reshape(-1, 1))
    assert certify(Said(), RECALL, one_position).method == "clopper_pearson"


def test_clusters_are_what_they_are_in_any_order_and_batch():
    draw = torch.Generator().manual_seed(0)
    p_N, cluster = torch.rand(90, generator=draw).double(), torch.arange(90) % 15
    whole = certify(Said(), TRUTH, rows(p_N, cluster))
    assert certify(Said(), TRUTH, rows(p_N, cluster), batch_size=7) == whole
    order = torch.randperm(90, generator=draw)
    again = certify(Said(), TRUTH, rows(p_N[order], cluster[order]))
    assert again.lower_bound == pytest.approx(whole.lower_bound, abs=1e-12)
    assert whole.clusters == 15


def test_a_cluster_of_sequences_is_one_cluster():
    p_NT = torch.full((12, 5), 0.99)
    assert certify(Said(), TRUTH, sequences(p_NT, cluster=torch.arange(12) // 3)).clusters == 4


def test_clusters_that_differ_in_size_say_about_which_sizes_they_speak():
    p_N, cluster = torch.full((100,), 0.99).double(), torch.tensor([0] * 40 + [1 + i // 3 for i in range(60)])
    found = certify(Said(), TRUTH, rows(p_N, cluster))
    assert (found.method, found.note) == ("betting", "about clusters of at most 40")
    assert found.count == 100
    known = certify(Said(), TRUTH, rows(p_N, cluster), largest_cluster=50)
    assert (known.method, known.note) == ("betting", "")
    with pytest.raises(InvalidInput, match="`largest_cluster` is 10, but a cluster of 'certify' has 40 values"):
        certify(Said(), TRUTH, rows(p_N, cluster), largest_cluster=10)
    with pytest.raises(InvalidInput, match=r"`largest_cluster` is 2.5; wanted a whole number"):
        certify(Said(), TRUTH, rows(p_N, cluster), largest_cluster=2.5)


def test_one_cluster_shows_nothing():
    assert certify(Said(), TRUTH, rows(torch.full((100,), 0.999), torch.zeros(100).long())).decision == "not_shown"


def test_groups_are_clustered_each_by_itself():
    """Every patient has a case by day and one by night: two means of 20 clusters each."""
    context, cluster = torch.arange(40) % 2, torch.arange(40) // 2
    data = Split("certify", torch.full((40,), 0.98).double(), torch.zeros(40).long(), context=context, cluster=cluster)
    found = certify(Said(), SafetyConstraint("m", TruthProbability(), 0.5, mix={0: 0.5, 1: 0.5}), data)
    assert "betting, Bonferroni over 2 means" in str(found)


# ---- the bounds themselves ----


def test_the_ratio_bound_is_the_mean_bound_for_sizes_of_one():
    x = np.random.default_rng(0).random(40)
    assert betting_lower_bound(x, 0.9, np.ones(40)) == betting_lower_bound(x, 0.9)
    assert betting_lower_bound(x / 4, 0.9, np.full(40, 0.25)) < betting_lower_bound(x, 0.9)  # sizes that might be four


@pytest.mark.parametrize("sizes", [[1.0], [0.5, 2.0], [0.1, 0.1]])
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(InvalidInput, match="sizes for 2 values"):
        betting_lower_bound([0.3, 0.4], 0.9, sizes)


def test_approximate_bounds_know_clusters():
    draw = np.random.default_rng(0)
    value = torch.tensor(draw.random(60))
    each = ClusteredValues(value, torch.arange(60))
    assert each.approximate_bound(TruthProbability(), 0.9) == skew_adjusted_t_lower_bound(value.numpy(), 0.9)
    assert each.approximate_bound(Recall(), 0.9) == clopper_pearson_lower_bound(int(value.sum()), 60, 0.9)
    alike = ClusteredValues(value.repeat_interleave(9), torch.arange(60).repeat_interleave(9))
    assert alike.approximate_bound(TruthProbability(), 0.9) == pytest.approx(
        skew_adjusted_t_lower_bound(value.numpy(), 0.9)
    )
    faultless = ClusteredValues(torch.ones(60).double(), torch.arange(60) // 6)
    assert faultless.approximate_bound(Recall(), 0.9) == clopper_pearson_lower_bound(10, 10, 0.9)


def test_tighten_and_crossfit_count_sequences():
    """A judging split of 12 sequences is 12 cases, however long they are."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1)
    make = lambda name, n: Split(  # noqa: E731
        name, torch.randn(n, 30, 2, generator=draw), torch.randint(2, (n, 30), generator=draw)
    )
    student = nn.Linear(2, 2)
    trainer = kd.ConstrainedTrainer(
        student,
        [kd.teachers.CallableTeacher("t", lambda x: x, gives="logits")],
        constraints=[SafetyConstraint("c", TruthProbability([0]), 0.9)],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.01),
    )
    result = trainer.fit(make("train", 20), make("validation", 12), epochs=2, tighten=kd.Tighten(folds=0))
    assert result.status == "not_cleared"
    assert "'validation' holds 12 clusters of examples of 'c'" in result.message
    assert result.tightening.looks == 0
    crossfit = trainer.fit(make("train", 20), epochs=2, tighten=kd.CrossFit(folds=2, rounds=1))
    assert crossfit.tightening.rounds["cases"].iloc[0] > 100
