"""Padded data give the numbers of the same positions without padding: losses, values, gradients, multipliers, bounds.

Sequences of several lengths are padded with junk and labels of -100, and student and teachers answer NaN there.  They
are compared with the same positions as one long list, where clusters tell which are of one sequence.
Axes: N sequences, T positions, P positions that count, D features, V classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import safekd as kd
from safekd.data import Split
from safekd.divergences import DIVERGENCES
from safekd.errors import InvalidInput
from safekd.pooling import POOLS
from safekd.safety import ClusteredValues, evaluate_groups
from safekd.teachers import CallableTeacher, StoredTeacher, TeacherEnsemble, TorchTeacher, measure_teachers
from safekd.training._full_pass import read_full_pass
from safekd.training.diagnosis._feasibility_bound import bound_feasibility
from safekd.training.generalization._fold_assignment import assign_folds
from safekd.training.loop._gradient_sampling import Sampled, estimate_gradients

D, V, K = 3, 4, 3
JUNK = 99.0  # features at padding, by which the student and teachers know that they may answer what they like


class Answering(nn.Module):
    """A linear model of each position, with NaN or infinite logits where the features are junk."""

    def __init__(self, seed, junk=math.nan):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(D, V, generator=generator, dtype=torch.float64))
        self.junk = junk

    def forward(self, x):
        logits_V = x @ self.weight
        return logits_V.masked_fill(x[..., :1] == JUNK, self.junk)


@dataclass
class Padded:
    """The same data twice."""

    padded: Split
    flat: Split

    @property
    def mask(self):
        return self.padded.mask if self.padded.mask is not None else torch.ones_like(self.padded.labels).bool()


def draw_data(seed, lengths, way="label", name="train"):
    """way: how positions are left out, by "label" -100, by "mask", or by both."""
    generator = torch.Generator().manual_seed(seed)
    N, T = len(lengths), max(max(lengths), 1)
    mask = torch.arange(T) < torch.tensor(lengths).unsqueeze(-1)
    mask = mask[:, torch.randperm(T, generator=generator)]  # what does not count may stand anywhere
    x = torch.randn(N, T, D, generator=generator, dtype=torch.float64).masked_fill(~mask.unsqueeze(-1), JUNK)
    labels = torch.randint(V, (N, T), generator=generator)
    group = torch.randint(2, (2, N), generator=generator)
    junk = torch.randint(V, (N, T), generator=generator)
    if way == "label":
        given, own = labels.masked_fill(~mask, -100), None
    elif way == "mask":
        given, own = torch.where(mask, labels, junk), mask
    else:
        half = torch.rand(N, T, generator=generator) < 0.5
        given, own = labels.masked_fill(~mask & half, -100), mask | half
    numbers = torch.arange(N).unsqueeze(-1).expand(N, T)[mask]
    return Padded(
        Split(name, x, given, task=group[0], context=group[1], mask=own),
        Split(
            name,
            x[mask],
            labels[mask],
            task=group[0][numbers],
            context=group[1][numbers],
            cluster=numbers,
        ),
    )


MEASURES = {
    "truth": kd.safety.TruthProbability([0, 1]),
    "margin": kd.safety.Margin(),
    "brier": kd.safety.OneMinusBrier([1]),
    "unsafe": kd.safety.UnsafeMass([3], critical=[0, 2]),
    "calibration": kd.safety.Calibration(1),
    "recall": kd.safety.Recall([0, 2]),
    "top": kd.safety.TopK(2),
    "avoids": kd.safety.Avoids([3], critical=[0, 1, 2]),
    "counted": kd.safety.Counted(lambda log_p_V, y: log_p_V.gather(-1, y[..., None])[..., 0] + 1.0),
    "custom": kd.safety.Custom(
        lambda log_p_V, y: log_p_V.gather(-1, y[..., None])[..., 0].exp(),
        lambda log_p_V, y: log_p_V.gather(-1, y[..., None])[..., 0].exp().sqrt(),
        critical=[0],
    ),
}


def make_constraints(measure, at_least=0.6, kind="plain"):
    if kind == "budget":
        return [kd.safety.Budget("c", [(1.0, measure), (0.5, kd.safety.TruthProbability())], at_most=0.7)]
    more = {
        "plain": {},
        "all": {"average": "all"},
        "mix": {"mix": {0: 0.3, 1: 0.7}},
        "worst": {"contexts": [0, 1], "worst": kd.safety.KLBall(0.1)},
        "class": {"classes": [0, 1], "average": "all"},
        "task": {"tasks": [1]},
    }[kind]
    return [kd.SafetyConstraint("c", measure, at_least, **more)]


def make_teachers(data=None, junk=math.nan):
    """Three teachers that answer nonsense at padding, each in its own way."""
    nets = [Answering(seed, junk) for seed in (1, 2, 3)]
    soft = lambda x: torch.softmax(nets[1](x), -1).detach()  # noqa: E731
    last = CallableTeacher("stored", lambda x: torch.softmax(nets[2](x), -1).detach())
    if data is not None:
        last = StoredTeacher("stored", soft(data.inputs), floor=0)
    return [TorchTeacher("net", nets[0]), CallableTeacher("soft", soft, floor=0), last]


def make_trainer(data, constraints=(), junk=math.nan, **more):
    student = Answering(0, junk)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    return kd.ConstrainedTrainer(
        student, make_teachers(data, junk), constraints=constraints, optimizer=optimizer, **more
    )


lengths = st.lists(st.integers(0, 4), min_size=2, max_size=5).filter(lambda several: sum(several) >= 2)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    lengths=lengths,
    measure=st.sampled_from(sorted(MEASURES)),
    kind=st.sampled_from(["plain", "all", "mix", "worst", "class", "task", "budget"]),
    divergence=st.sampled_from(sorted(DIVERGENCES)),
    pool=st.sampled_from(sorted(POOLS)),
    way=st.sampled_from(["label", "mask", "both"]),
    junk=st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_values_gradients_and_counts_are_those_of_the_positions_that_count(
    seed, lengths, measure, kind, divergence, pool, way, junk
):
    data = draw_data(seed, lengths, way)
    rules = make_constraints(MEASURES[measure], kind=kind)
    if not all(bool((rule.counts(data.flat.batch()) > 0).all()) for rule in rules):
        with pytest.raises(InvalidInput, match=r"covers no example|no covered example"):
            rules[0].require_examples(data.padded, rules[0].counts(data.padded.batch()))
        return
    passes = []
    for split in (data.padded, data.flat):
        objective = make_trainer(split, rules, junk, divergence=divergence, pool=pool).objective
        passes.append(read_full_pass(objective, split, {}, rules, with_gradients=True))
        assert objective.non_finite_source is None
    ours, plain = passes
    close = {"rtol": 1e-12, "atol": 1e-12}
    assert [r.count for r in ours.readings] == [r.count for r in plain.readings]
    for a, b in zip(ours.readings, plain.readings, strict=True):
        for field in ("measured", "surrogate", "standard_error", "resolution"):
            assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-12, abs=1e-12, nan_ok=True)
    assert ours.loss == pytest.approx(plain.loss, rel=1e-12)
    assert ours.loss_se == pytest.approx(plain.loss_se, rel=1e-12, nan_ok=True)
    torch.testing.assert_close(ours.gradient_n, plain.gradient_n, **close)
    torch.testing.assert_close(ours.jacobian_Mn, plain.jacobian_Mn, **close)
    assert bool(torch.isfinite(ours.gradient_n).all())


RULES = {
    "uniform": lambda: None,
    "entropy": lambda: kd.weights.Normalized(kd.weights.EntropyDecay()),
    "confidence": lambda: kd.weights.Confidence(),
    "aligned": lambda: kd.weights.GradientAlignment(),
    "shortest": lambda: kd.weights.GradientMinNorm(),
    "nearest": lambda: kd.weights.MinDivergence(),
    "uncertain": lambda: kd.weights.UncertaintyWeighting(K, n_tasks=2),
    "uncertain as one": lambda: kd.weights.UncertaintyWeighting(K),
    "policy": lambda: kd.weights.PolicyGradient(4),
    "meta": lambda: kd.weights.MetaTeacher(4),
    "levels": lambda: kd.weights.MultiLevel(K, D),
    "tracking": lambda: kd.weights.Tracking(
        kd.weights.EntropyDecay(), kd.WeightPolytope(K, 0.1, 0.6), beta=0.3, by="context", groups=2
    ),
    "projected": lambda: kd.weights.Conforming(kd.weights.Confidence(), kd.WeightPolytope(K, 0.1, 0.6)),
}


POSITION_BY_POSITION = ("uniform", "entropy", "confidence", "nearest", "projected")  # others average over a batch
WAYS = [(rule, None) for rule in RULES] + [(rule, 2) for rule in POSITION_BY_POSITION]


def make_rule(name):
    rule = RULES[name]()
    return rule.double() if isinstance(rule, nn.Module) else rule


@pytest.mark.parametrize(("rule", "microbatch"), WAYS)
def test_fifty_steps_lead_to_the_same_student_and_multipliers(rule, microbatch):
    """A rule's own state is the same too: batches are averaged over what counts."""
    data, results = draw_data(5, [3, 0, 4, 1, 2, 4], "both"), []
    rules = [
        kd.SafetyConstraint("truth", kd.safety.TruthProbability([0, 1]), 0.6),
        kd.SafetyConstraint("recall", kd.safety.Recall([0, 2]), 0.7),
        kd.SafetyConstraint("calibrated", kd.safety.Calibration(1), exactly=0.5),
    ]
    for split in (data.padded, data.flat):
        torch.manual_seed(0)
        rows = None if microbatch is None or split is data.flat else microbatch
        trainer = make_trainer(split, rules, weights=make_rule(rule), microbatch_size=rows)
        results.append(trainer.fit(split, epochs=50, tolerance=1e-9, trace_every=25))
    ours, plain = results
    assert ours.status != "diverged"
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if microbatch else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(ours.student.weight, plain.student.weight, **tolerance)
    for name, value in plain.multipliers.items():
        assert ours.multipliers[name] == pytest.approx(value, rel=1e-9 if microbatch else 1e-12, abs=1e-12)
    for name, value in plain.rule_state.items():
        torch.testing.assert_close(ours.rule_state[name], value, **tolerance)
    assert ours.point.loss == pytest.approx(plain.point.loss, rel=1e-9 if microbatch else 1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    lengths=st.lists(st.integers(0, 4), min_size=3, max_size=12).filter(lambda several: sum(several) >= 3),
    measure=st.sampled_from(sorted(MEASURES)),
    way=st.sampled_from(["label", "mask", "both"]),
)
def test_certificates_are_those_of_the_same_clusters(seed, lengths, measure, way):
    data, student = draw_data(seed, lengths, way), Answering(0)
    rule = kd.SafetyConstraint("c", MEASURES[measure], 0.5)
    if data.padded.mask is None or not bool(rule.covers(data.flat.batch()).any()):
        return  # without padding, (N, T) says how long sequences are
    ours, plain = (kd.certify(student, rule, split) for split in (data.padded, data.flat))
    for field in ("count", "clusters", "method", "decision"):
        assert getattr(ours, field) == getattr(plain, field)
    assert ours.estimate == pytest.approx(plain.estimate, rel=1e-12)
    assert ours.lower_bound == pytest.approx(plain.lower_bound, rel=1e-12, abs=1e-12)
    (own,), (other,) = (evaluate_groups(student, rule, split) for split in (data.padded, data.flat))
    assert isinstance(own, ClusteredValues)
    torch.testing.assert_close(own.value_P, other.value_P, rtol=1e-12, atol=0)


def test_padding_to_the_longest_sequence_says_nothing_of_the_longest_there_can_be():
    """All sequences as long as the padding, but one: how long new ones can be is not known from that."""
    data = draw_data(1, [4, 4, 4, 3, 4, 4])
    rule = kd.SafetyConstraint("c", kd.safety.TruthProbability(), 0.2)
    assert "of at most 4" in kd.certify(Answering(0), rule, data.padded).note
    assert kd.certify(Answering(0), rule, data.padded, largest_cluster=1).note == ""


@pytest.mark.parametrize("way", ["label", "mask", "both"])
def test_teachers_are_measured_where_positions_count(way):
    data = draw_data(3, [3, 0, 4, 1, 2, 4], way)
    ours, plain = (
        measure_teachers(TeacherEnsemble(make_teachers(split)), split, kd.safety.Recall([0, 2]), by_class=True)
        for split in (data.padded, data.flat)
    )
    for field in ("task_loss_MK", "performance_MK", "safety_CK", "safety_VK"):
        known = getattr(plain, field)  # of no more groups than positions count in
        torch.testing.assert_close(getattr(ours, field)[: len(known)], known, rtol=1e-12, atol=1e-12)
    assert ours.count_C.tolist()[: len(plain.count_C)] == plain.count_C.tolist()
    assert ours.count_V.tolist() == plain.count_V.tolist()
    assert int(ours.count_C.sum()) == int(torch.isin(data.flat.labels, torch.tensor([0, 2])).sum())


def test_a_teacher_that_fails_where_a_position_counts_is_named():
    data = draw_data(3, [3, 4], "label")
    teacher = CallableTeacher("broken", lambda x: torch.full((*x.shape[:-1], V), math.nan), gives="logits")
    with pytest.raises(kd.errors.NotFinite, match="Teacher 'broken' gave logits that are not finite on 'train'"):
        TeacherEnsemble([teacher]).log_probabilities(data.padded.batch(), "train")


def test_minibatches_with_and_without_a_position_that_counts():
    """Examples without any position that counts are in no sum; a batch of them alone moves no multiplier."""
    data = draw_data(7, [0, 3, 0, 4, 0, 0, 2, 1, 0, 0, 4, 0], "label")
    rules = make_constraints(MEASURES["truth"])
    for rule in (None, kd.weights.MetaTeacher(4), kd.weights.UncertaintyWeighting(K), kd.weights.PolicyGradient(4)):
        trainer = make_trainer(data.padded, rules, weights=rule, batch_size=2)
        result = trainer.fit(data.padded, epochs=6)
        assert result.status != "diverged", result.message
        assert result.point.readings[0].count == int(rules[0].covers(data.flat.batch()).sum())
        assert bool(torch.isfinite(result.student.weight).all())


class Spreading(Answering):
    """A student whose own backward pass multiplies the gradient at junk, which is 0, by NaN."""

    def forward(self, x):
        return (x @ self.weight) * torch.where(x[..., :1] == JUNK, self.junk, 1.0)


def test_a_student_that_spreads_what_is_not_finite_is_told_why():
    data = draw_data(3, [3, 4], "label").padded
    student = Spreading(0)
    trainer = kd.ConstrainedTrainer(student, make_teachers(), optimizer=torch.optim.Adam(student.parameters()))
    result = trainer.fit(data, epochs=5)
    assert result.status == "diverged"
    assert "gives what is not finite where positions do not count" in result.message
    assert "its own backward pass makes NaN" in result.message


class ByName(nn.Module):
    """A module that takes a dictionary of inputs."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, features, offset=None):
        return self.inner(features if offset is None else features + offset)


@pytest.mark.parametrize("rule", ["uniform", "meta", "levels", "aligned"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_dictionary_of_inputs_is_the_same_to_the_bit(rule, batch_size):
    data, students, bounds = draw_data(5, [3, 0, 4, 1, 2, 4], "label").padded, [], []
    inputs = {"offset": torch.zeros(len(data), 1, 1, dtype=torch.float64), "features": data.inputs}
    named = Split("train", inputs, data.labels, data.task, data.context)
    rules = [
        kd.SafetyConstraint("truth", MEASURES["truth"], 0.6),
        kd.SafetyConstraint("recall", MEASURES["recall"], 0.5),
    ]
    for split in (data, named):
        torch.manual_seed(0)
        student, teachers = Answering(0), make_teachers()[:2]
        if split is named:
            student = ByName(student)
            net, soft = ByName(teachers[0].module), teachers[1].function
            teachers = [
                TorchTeacher("net", net, columns=["features"]),
                CallableTeacher("soft", lambda given, soft=soft: soft(given["features"]), floor=0),
            ]
        trainer = kd.ConstrainedTrainer(
            student,
            teachers,
            constraints=rules,
            optimizer=torch.optim.Adam(student.parameters(), lr=0.05),
            weights={"levels": lambda: kd.weights.MultiLevel(2, D)}.get(rule, lambda: make_rule(rule))(),
            features=lambda batch: batch.inputs["features"] if isinstance(batch.inputs, dict) else batch.inputs,
            batch_size=batch_size,
        )
        result = trainer.fit(split, epochs=10)
        students.append(next(iter(result.student.parameters())).detach())
        new = split.part(torch.arange(3))
        bounds.append(kd.certify(result.student, rules[0], new).lower_bound)
    assert torch.equal(*students)
    assert bounds[0] == bounds[1]


def test_folds_have_as_many_examples_that_count():
    """Examples without any position that counts are spread too, and make no fold."""
    data = draw_data(2, [0, 0, 0, 0, 0, 0, 3, 2, 4, 1, 2, 3], "label").padded
    rule = kd.SafetyConstraint("truth", kd.safety.TruthProbability(), 0.3)
    fold_N = assign_folds(data, 3, 0, [rule])
    counted_N = data.mask.any(-1)
    assert torch.bincount(fold_N[counted_N]).tolist() == [2, 2, 2]
    result = make_trainer(data, [rule]).fit(data, epochs=20, tighten=kd.CrossFit(folds=3, rounds=1))
    assert result.tightening.rounds["cases"].iloc[0] == int(data.mask.sum())
    with pytest.raises(InvalidInput, match="6 clusters of examples cannot make 7 folds"):
        assign_folds(data, 7, 0, [rule])


def test_a_proof_of_infeasibility_knows_what_counts():
    """Equal inputs with two labels: no student gives both their truth, unless one of them does not count."""
    x = torch.ones(4, 1, D, dtype=torch.float64)
    labels = torch.tensor([[0], [1], [0], [1]])
    rule = kd.SafetyConstraint("truth", kd.safety.TruthProbability(), 0.9)
    for split in (
        Split("train", x, labels),
        Split("train", {"features": x}, labels),
        Split("train", x, labels, mask=labels == 0),
    ):
        student = Answering(0) if isinstance(split.inputs, torch.Tensor) else ByName(Answering(0))
        teacher = CallableTeacher("t", lambda inputs: torch.zeros(4, 1, V, dtype=torch.float64), gives="logits")
        objective = kd.ConstrainedTrainer(
            student, [teacher], constraints=[rule], optimizer=torch.optim.Adam(student.parameters())
        ).objective
        bound = bound_feasibility(objective, {"train": split}, [rule])
        assert bound.infeasible == (split.mask is None)


def test_sampled_gradients_are_unbiased_where_sequences_are_uneven():
    """A mean over the positions of a batch would count those of short sequences too much."""
    data = draw_data(4, [1, 1, 12, 1], "label").padded
    rules = make_constraints(MEASURES["truth"])
    objective = make_trainer(data, rules).objective
    full = read_full_pass(objective, data, {}, rules, with_gradients=True)
    sampled = estimate_gradients(objective, data, {}, rules, torch.ones(1), Sampled(batches=3000, batch_size=1), seed=0)
    short = [read_full_pass(objective, data.part(torch.tensor([i])), {}, [], with_gradients=True) for i in range(4)]
    biased_n = torch.stack([one.gradient_n for one in short]).mean(0)
    error = float((sampled.gradient_n - full.gradient_n).norm())
    assert error < 0.2 * float((biased_n - full.gradient_n).norm())
    assert float((sampled.jacobian_Mn - full.jacobian_Mn).norm()) < 0.1 * float(full.jacobian_Mn.norm())
