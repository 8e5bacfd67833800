"""Orderings from evidence: what is asserted, what stays a tie, and that noise does not become a rule."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binomtest

from safekd.data import Split
from safekd.errors import InvalidConfig, InvalidInput, MissingSignal
from safekd.experiment import build_experiment, find_training_signals
from safekd.experiment.config import parse_config
from safekd.report import tabulate_orderings
from safekd.safety import PairedSums, Recall, TruthProbability
from safekd.teachers import StoredTeacher, TeacherEnsemble, find_significant_orderings, measure_teachers
from safekd.weights import Conforming, Signals, TeacherEvidence, Unified, infer_orderings
from solvers.polytope import WeightPolytope, find_cycle
from tests.support.cases import load_cases_config


def evidence_of(values, groups, *, binary: bool) -> TeacherEvidence:
    """Return evidence that holds nothing but comparisons, in contexts and in classes alike."""
    sums = PairedSums.from_values(values, groups, binary=binary)
    none = torch.zeros(1, np.shape(values)[1])
    return TeacherEvidence(none, none, torch.zeros(1), "validation", paired_context=sums, paired_class=sums)


def right(*counts: tuple[int, ...]) -> np.ndarray:
    """Return 0/1 readings: so many rows of each pattern, given as (count, teacher 0, teacher 1, ...)."""
    return np.concatenate([np.tile(pattern, (count, 1)) for count, *pattern in counts]).astype(float)


def test_by_hand():
    """Teacher 0 wins all 9 cases over teacher 1: p = 2^-9; two statements, so 2^-8 after the correction."""
    values = right((9, 1, 0))
    found = infer_orderings(evidence_of(values, np.zeros(9), binary=True), level=0.05)
    assert found.pairs(0) == ((0, 1),)
    (row,) = found.comparisons
    assert (row.i, row.j, row.count, row.wins, row.losses) == (0, 1, 9, 9, 0)
    assert (row.mean_i, row.mean_j, row.difference) == (1.0, 0.0, 1.0)
    assert row.p_value == pytest.approx(2**-9)
    assert row.p_adjusted == pytest.approx(2**-8)
    assert row.asserted
    assert infer_orderings(evidence_of(values, np.zeros(9), binary=True), level=2**-8.5).pairs(0) == ()


def test_a_correction_over_all_pairs_of_a_context():
    """Three teachers make six statements: 1/2^7 is significant alone, not among six at .04; at .05 it is."""
    values = right((7, 1, 0, 1))
    evidence = evidence_of(values, np.zeros(len(values)), binary=True)
    found = infer_orderings(evidence, level=0.05)
    assert {(c.i, c.j) for c in found.comparisons if c.asserted} == {(0, 1), (2, 1)}
    assert [c.p_adjusted for c in found.comparisons if c.asserted] == pytest.approx([6 / 128, 6 / 128])
    assert infer_orderings(evidence, level=0.04).pairs(0) == ()


def test_each_context_has_its_own_evidence():
    values = np.concatenate([right((20, 1, 0)), right((20, 0, 1)), right((1, 1, 0))])
    context = np.repeat([0, 2, 5], [20, 20, 1])
    found = infer_orderings(evidence_of(values, context, binary=True))
    assert found.pairs(0) == ((0, 1),)
    assert found.pairs(2) == ((1, 0),)
    assert found.pairs(5) == found.pairs(1) == ()
    assert [c.count for c in found.comparisons] == [20, 20, 1]
    assert "context 5 (1 examples): none; 1 ties" in str(found)
    assert "context 2 (20 examples): teacher 1 >= teacher 0; 0 ties" in str(found)


@given(seed=st.integers(0, 10**6), binary=st.booleans())
def test_orderings_never_go_round_and_point_to_the_higher_average(seed, binary):
    rng = np.random.default_rng(seed)
    skill = rng.random(5)
    values = rng.random((150, 5)) ** (1 / (0.2 + skill))
    values = (values > 0.5) * 1.0 if binary else values
    found = infer_orderings(evidence_of(values, rng.integers(0, 2, 150), binary=binary), level=0.4)
    for g in (0, 1):
        assert not find_cycle(found.pairs(g), 5)
    for c in found.comparisons:
        assert c.mean_i >= c.mean_j
        assert c.asserted == (c.p_adjusted <= 0.4) == ((c.i, c.j) in found.pairs(c.group))


@pytest.mark.parametrize("runs", [200, pytest.param(600, marks=pytest.mark.slow)])
def test_equal_teachers_are_hardly_ever_ordered(runs):
    """Four teachers alike, many times: even one ordering in a context is allowed in a share ``level`` of them only."""
    rng, level = np.random.default_rng(0), 0.1
    values = (rng.random((runs * 40, 4)) < 0.7) * 1.0
    found = infer_orderings(evidence_of(values, np.repeat(np.arange(runs), 40), binary=True), level=level)
    wrong = sum(bool(pairs) for _, pairs in found.by_group) / runs
    assert 0 < wrong <= level
    # the averages alone would have ordered almost every context
    assert np.mean([c.mean_i > c.mean_j for c in found.comparisons]) > 0.8


def test_every_comparison_in_a_frame():
    found = infer_orderings(evidence_of(right((8, 1, 0, 0), (2, 1, 1, 1)), np.full(10, 3), binary=True))
    frame = found.to_frame()
    assert list(frame.columns) == ["context", "i", "j", "count", "wins", "losses", "mean_i", "mean_j", "p_value",
                                   "p_adjusted", "asserted", "difference"]  # fmt: skip
    assert frame[["context", "i", "j", "asserted"]].values.tolist() == [
        [3, 0, 1, True],
        [3, 0, 2, True],
        [3, 1, 2, False],
    ]
    assert frame["difference"].tolist() == pytest.approx([0.8, 0.8, 0.0])
    tokens = infer_orderings(evidence_of(right((8, 1, 0)), np.full(8, 3), binary=True), scale="token")
    assert tokens.scale == "token"
    assert "class" in tokens.to_frame()
    assert "class 3" in str(tokens)


def test_the_table_names_teachers_and_ties():
    found = infer_orderings(evidence_of(right((9, 1, 0, 0)), np.zeros(9), binary=True))
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(tabulate_orderings(found, ["ann", "bob", "cas"]))
    text = console.export_text()
    assert text.count("must not count less") == 2
    assert text.count(" tie") == 1
    assert "significant at 0.05, measured on the validation split" in text


# from teachers --------------------------------------------------------------------------------------------------------

N = 60
LABELS = torch.arange(N) % 2
CONTEXT = (torch.arange(N) // 2) % 3


def teacher(name: str, p_right) -> StoredTeacher:
    """Return a teacher that gives the truth this probability, one number an example."""
    p = torch.as_tensor(p_right, dtype=torch.float64).expand(N)
    rows = torch.stack([1 - p, p], -1)
    return StoredTeacher(name, torch.where(LABELS[:, None] == 1, rows, rows.flip(-1)))


def split(**more) -> Split:
    return Split("validation", torch.zeros(N, 1), LABELS, context=CONTEXT, **more)


ENSEMBLE = TeacherEnsemble([teacher("good", 0.9), teacher("bad", 0.3), teacher("twin", 0.9)])


def test_measured_on_the_critical_examples_of_each_context():
    found = find_significant_orderings(ENSEMBLE, split(), Recall([1]), level=0.05)
    assert found.source == "validation"
    assert {c.count for c in found.comparisons} == {10}
    assert found.by_group == tuple((c, ((0, 1), (2, 1))) for c in range(3))
    expected = binomtest(10, 10, alternative="greater").pvalue
    assert found.comparisons[0].p_value == pytest.approx(expected)


def test_measured_by_class():
    found = find_significant_orderings(ENSEMBLE, split(), TruthProbability([0, 1]), level=0.05, by="class")
    assert found.scale == "token"
    assert found.numbers == (0, 1)
    assert found.pairs(1) == ((0, 1), (2, 1))
    evidence = measure_teachers(ENSEMBLE, split(), TruthProbability([1]), by_class=True)
    assert evidence.safety_VK[1].tolist() == pytest.approx([0.9, 0.3, 0.9], abs=1e-5)
    assert evidence.count_V.tolist() == [0, 30]
    assert evidence.paired_class.groups == (1,)


def test_measure_holds_the_comparisons():
    evidence = measure_teachers(ENSEMBLE, split(), Recall([1]))
    assert evidence.paired_context.groups == (0, 1, 2)
    assert evidence.paired_context.wins_GKK[0].tolist() == [[0, 10, 0], [0, 0, 0], [0, 10, 0]]
    assert evidence.paired_class is None
    assert (
        infer_orderings(evidence.to("cpu")).by_group
        == find_significant_orderings(ENSEMBLE, split(), Recall([1])).by_group
    )
    with pytest.raises(MissingSignal, match=r"does not compare teachers at scale 'token'.*by_class=True"):
        infer_orderings(evidence, scale="token")


def test_the_positions_of_one_example_count_as_one():
    """Five examples of forty positions each, all alike: five cases, and not two hundred."""
    labels = torch.ones(5, 40, dtype=torch.long)
    rows = torch.tensor([0.2, 0.8], dtype=torch.float64).expand(5, 40, 2)
    ensemble = TeacherEnsemble([StoredTeacher("one", rows), StoredTeacher("other", rows.flip(-1))])
    split_NT = Split("validation", torch.zeros(5, 40), labels, context=torch.tensor([0, 0, 0, 0, 1]))
    found = find_significant_orderings(ensemble, split_NT, Recall([1]))
    assert [c.count for c in found.comparisons] == [4, 1]
    assert found.by_group == ((0, ()), (1, ()))
    evidence = measure_teachers(ensemble, split_NT, Recall([1]))
    assert evidence.count_C.tolist() == [160, 40]
    assert evidence.paired_context.log_capital_GKKb is not None  # averages are tested as such, not as 0 and 1


def test_the_rows_of_one_patient_count_as_one_case():
    """In 60 contexts of 15 patients with 8 rows each, a patient is easy for one of two teachers, which are alike."""
    rng = np.random.default_rng(0)
    patient_N = np.repeat(np.arange(60 * 15), 8)
    right_N = rng.random(60 * 15)[patient_N] < 0.5
    p_N2 = np.where(np.stack([right_N, ~right_N], axis=1), 0.9, 0.2)
    rows = [torch.from_numpy(np.stack([1 - p_N, p_N], axis=1)) for p_N in p_N2.T]
    ensemble = TeacherEnsemble([StoredTeacher(name, r) for name, r in zip(("one", "other"), rows, strict=True)])
    count = len(patient_N)
    data = {"labels": torch.ones(count, dtype=torch.long), "context": torch.from_numpy(patient_N // 15)}
    shares = []
    for cluster in (None, torch.from_numpy(patient_N)):
        split = Split("validation", torch.zeros(count, 1), **data, cluster=cluster)
        for measure_ in (Recall([1]), TruthProbability([1])):
            found = find_significant_orderings(ensemble, split, measure_)
            shares.append(float(np.mean([bool(pairs) for _, pairs in found.by_group])))
    assert {c.count for c in found.comparisons} == {15}
    assert min(shares[:2]) > 0.3
    assert max(shares[2:]) <= 0.05


def test_a_context_with_one_case_orders_nobody():
    context = torch.where(torch.arange(N) == 1, 1, 0)
    data = Split("validation", torch.zeros(N, 1), LABELS, context=context)
    for measure_ in (Recall([1]), TruthProbability([1])):
        found = find_significant_orderings(ENSEMBLE, data, measure_, level=0.49)
        assert found.pairs(1) == ()
        assert found.pairs(0) == ((0, 1), (2, 1))


def test_used_by_conforming_and_unified():
    found = find_significant_orderings(ENSEMBLE, split(), Recall([1]))
    box = WeightPolytope(3, 0.1, 0.6)
    raw = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    signals = Signals(
        entropy=torch.ones(4, 3, dtype=torch.float64),
        context=torch.tensor([0, 1, 2, 3]),
        evidence=measure_teachers(ENSEMBLE, split(), Recall([1])),
    )
    rules = [
        Conforming(lambda s: raw.expand(s.shape), box, orderings=found),
        Unified(task=lambda s: raw.expand(s.shape), polytope=box, context_orderings=found),
    ]
    for rule in rules:
        assert rule(signals).tolist() == [*[pytest.approx([1 / 3] * 3)] * 3, pytest.approx(raw.tolist())]


BAD = [0.0, 0.5, 1.0, -0.1, float("nan"), True, "0.05"]


@pytest.mark.parametrize("level", BAD)
def test_levels_that_are_refused(level):
    with pytest.raises(InvalidInput, match=r"`level` is .*; wanted a probability above 0 and below 0.5"):
        infer_orderings(evidence_of([[1.0, 0.0]], [0], binary=True), level)


def test_an_unknown_kind_of_group():
    with pytest.raises(InvalidInput, match="`by` is 'task'; wanted 'context' or 'class'"):
        find_significant_orderings(ENSEMBLE, split(), Recall([1]), by="task")


# in an experiment -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_at_level(tmp_path_factory):
    text, _ = load_cases_config()
    text = text.replace('critical_contexts = ["small"]', 'critical_contexts = ["small"]\nlevel = 0.05')
    return build_experiment(parse_config(text, "the demo with a level"), tmp_path_factory.mktemp("demo"))


def test_the_single_case_of_small_lesions_orders_nobody(demo_at_level):
    """The demo's critical context has one malignant validation case; its averages rank all four teachers."""
    evidence, found = demo_at_level.evidence, demo_at_level.unified.context_orderings
    assert evidence.count_C.tolist()[0] == 1
    assert len(set(evidence.safety_CK[0].tolist())) > 1
    assert found.pairs(0) == ()
    signals = find_training_signals(demo_at_level)
    repair = demo_at_level.unified.repair(signals)
    small = signals.context == 0
    assert not repair.violations_before[small].any()
    assert not repair.violations_after.any()
    assert demo_at_level.unified.polytope.check(repair.weights).holds()


def test_a_level_out_of_range_is_told_with_its_key():
    text, _ = load_cases_config()
    text = text.replace("[weights]\n", "[weights]\nlevel = 0.7\n")
    with pytest.raises(InvalidConfig, match=r"(?s)weights.level.*0.7"):
        parse_config(text, "mine.toml")
