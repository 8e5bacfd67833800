"""The report on real teachers: its numbers, its advice on other data, what it prints, and what it refuses."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

import safekd as kd
from safekd.errors import InvalidInput
from safekd.pooling import PowerPool, SoftenedPool
from safekd.safety import TruthProbability
from safekd.teachers import CallableTeacher, SklearnTeacher, StoredTeacher
from safekd.theory.ensembles import _read_pools
from safekd.weights import Conforming, EntropyDecay, InverseLoss

GOOD = ("logistic", "forest", "neighbors")


@pytest.fixture(scope="module")
def digits():
    """Four teachers, one of them fitted on labels that were shuffled; and two splits that none has seen."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    order = generator.permutation(len(y))
    x, y = x[order] / 16, y[order]
    fitted = {
        "logistic": LogisticRegression(max_iter=300).fit(x[:700], y[:700]),
        "forest": RandomForestClassifier(40, random_state=0).fit(x[:700], y[:700]),
        "neighbors": KNeighborsClassifier(7).fit(x[:700], y[:700]),
        "shuffled": GaussianNB().fit(x[:60], generator.permutation(y[:60])),
    }
    teachers = {name: SklearnTeacher(name, one, 10) for name, one in fitted.items()}
    inputs, labels = torch.from_numpy(x).float(), torch.from_numpy(y)
    validation = kd.Split("validation", inputs[700:1200], labels[700:1200])
    return teachers, validation, kd.Split("test", inputs[1200:], labels[1200:])


@pytest.fixture(scope="module")
def report(digits):
    teachers, validation, _ = digits
    return kd.ensemble_report(list(teachers.values()), validation, safety=TruthProbability(critical=[8]))


def test_its_numbers_are_scikit_learns(digits, report):
    teachers, validation, _ = digits
    labels = validation.labels.numpy()
    p = [one.log_probabilities(validation.batch(), "validation").exp().numpy() for one in teachers.values()]
    for one, p_NV in zip(report.teachers, p, strict=True):
        assert one.loss == pytest.approx(log_loss(labels, p_NV / p_NV.sum(-1, keepdims=True)), rel=1e-6)
        assert one.accuracy == pytest.approx(accuracy_score(labels, p_NV.argmax(-1)))
        assert one.variance + one.bias**2 == pytest.approx(np.square(p_NV - np.eye(10)[labels]).sum(-1).mean())
        assert one.safety == pytest.approx(p_NV[labels == 8, 8].mean())
    pooled = np.mean(p, axis=0)
    assert report.pooled.loss == pytest.approx(log_loss(labels, pooled), rel=1e-6)
    brier = sum(brier_score_loss(labels == v, pooled[:, v]) for v in range(10))
    assert report.variance.measured + report.variance.bias**2 == pytest.approx(brier)
    assert report.variance.measured == pytest.approx(report.variance.correlated)  # a linear pool
    assert report.variance.independent < report.variance.correlated  # errors go together
    said = [p_NV.argmax(-1) for p_NV in p]
    assert report.teachers[0].agreement["forest"] == pytest.approx((said[0] == said[1]).mean())
    without = np.mean(p[:3], axis=0)
    change = log_loss(labels, without) - log_loss(labels, pooled)
    assert report.teachers[3].loss_without.mean == pytest.approx(change, rel=1e-6)
    assert report.jensen_gap.mean == pytest.approx(np.mean([one.loss for one in report.teachers]) - report.pooled.loss)
    assert report.least_gap >= 0
    assert report.pooled.loss <= report.loss_bound < np.mean([one.loss for one in report.teachers])


def test_a_bad_teacher_is_named_and_the_pool_is_better_without_it_on_other_data(digits, report):
    teachers, _, test = digits
    assert report.drop[0] == "shuffled"
    assert report.teachers[3].least_error_weight < 0.05
    losses = [kd.ensemble_report(list(teachers.values()), test).pooled.loss]
    for k in range(len(report.drop)):
        kept = [one for name, one in teachers.items() if name not in report.drop[: k + 1]]
        losses.append(kd.ensemble_report(kept, test).pooled.loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < losses[0] - 0.2
    kept = [one for name, one in teachers.items() if name not in report.drop]
    advised = kd.ensemble_report(kept, test, pool=report.recommended_pool)
    assert advised.pooled.loss <= losses[-1]


def test_teachers_that_are_alike_are_left_in_peace(digits):
    """Copies with noise of their own: whoever leaves, the pool loses."""
    _, validation, _ = digits
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.one_hot(validation.labels, 10).double()
    tables = [(2 * truth + torch.randn(truth.shape, generator=generator)).softmax(-1) for _ in range(4)]
    found = kd.ensemble_report([StoredTeacher(f"t{k}", table) for k, table in enumerate(tables)], validation)
    assert found.drop == ()
    assert "Nobody to leave out" in found.advice[0]
    assert 1 < found.variance.effective_teachers <= 4
    pooled = sum(tables) / 4
    apart = sum((table - pooled).square().sum(-1).mean() for table in tables) / 4
    assert found.variance.ambiguity == pytest.approx(float(apart))
    copies = kd.ensemble_report([StoredTeacher(f"t{k}", tables[0]) for k in range(4)], validation)
    assert copies.variance.effective_teachers == pytest.approx(1)
    assert copies.drop == ()
    assert copies.recommended_pool == "arithmetic"  # all pools are one, but for rounding


def test_chance_alone_drops_nobody(digits):
    """Ten cases of teachers of one quality: at a level of 5 % hardly one in twenty reports drops one."""
    _, validation, _ = digits
    dropped = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        part = validation.part(torch.randperm(len(validation), generator=generator)[:40])
        truth = torch.nn.functional.one_hot(part.labels, 10).double()
        logits = [2 * truth + 0.1 * torch.randn(truth.shape, generator=generator) for _ in range(3)]
        split = kd.Split("part", part.inputs, part.labels)
        teachers = [StoredTeacher(f"t{k}", {"part": one.softmax(-1)}) for k, one in enumerate(logits)]
        dropped += bool(kd.ensemble_report(teachers, split).drop)
    assert dropped <= 6


def test_it_prints_in_a_screen(report):
    text = str(report)
    lines = text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    for fragment in ("4 shuffled", "drop", "Their errors", "Jensen gap", "VIII.7", "log-loss guarantee", "geometric"):
        assert fragment in text
    assert f"Leave out '{report.drop[0]}'" in text


def test_names_are_data(digits):
    _, validation, _ = digits
    p = torch.full((500, 10), 0.1)
    odd = [StoredTeacher("[red]a[/]", p), StoredTeacher("b\x1b[31m", p), StoredTeacher("c" * 200, p)]
    text = str(kd.ensemble_report(odd, validation))
    assert "[red]a[/]" in text
    assert "\x1b" not in text


def test_it_is_written_as_json(report):
    record = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert record["teachers"][3]["name"] == "shuffled"
    assert record["teachers"][3]["loss_without"]["mean"] < 0
    assert record["drop"][0] == "shuffled"
    assert np.shape(record["covariances"]) == (4, 4)


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_it_is_drawn(report, tmp_path, ending):
    first, second = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    report.plot(first)
    report.plot(second)
    assert first.read_bytes() == second.read_bytes()
    if ending == ".svg":
        text = first.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        urls = {part.split('"')[0] for part in text.split('="http')[1:]}
        assert all("w3.org" in url or "purl.org" in url or "creativecommons" in url for url in urls)


def test_a_picture_of_odd_names_and_one_that_cannot_be_drawn(digits, tmp_path):
    _, validation, _ = digits
    teachers = [StoredTeacher(f"$t_{k}$ " + "long " * 20, torch.full((500, 10), 0.1)) for k in range(12)]
    found = kd.ensemble_report(teachers, validation)
    found.plot(tmp_path / "e.png")
    with pytest.raises(InvalidInput, match=r"Cannot draw .*e.gif.* ends in \.png, \.svg or \.pdf"):
        found.plot(tmp_path / "e.gif")
    assert not (tmp_path / "e.gif").exists()


def test_weights_as_numbers_and_by_a_rule(digits):
    teachers, validation, _ = digits
    several = [teachers[name] for name in GOOD]
    by_number = kd.ensemble_report(several, validation, weights=[0.6, 0.1, 0.3])
    assert [one.weight for one in by_number.teachers] == pytest.approx([0.6, 0.1, 0.3])
    by_name = kd.ensemble_report(several, validation, weights={"neighbors": 0.3, "logistic": 0.6, "forest": 0.1})
    assert by_name.pooled == by_number.pooled
    with pytest.raises(InvalidInput, match="wanted a number a teacher"):
        kd.ensemble_report(several, validation, weights={"neighbors": 1.0})
    polytope = kd.WeightPolytope(3, lower=0.1, upper=0.6)
    ruled = kd.ensemble_report(several, validation, weights=Conforming(EntropyDecay(), polytope))
    assert "by its rule" in str(ruled)
    assert min(one.weight for one in ruled.teachers) >= 0.1
    evidence = kd.teachers.measure_teachers(kd.teachers.TeacherEnsemble(several), validation, TruthProbability())
    rule = Conforming(InverseLoss(), polytope)
    measured = kd.ensemble_report(several, validation, weights=rule, evidence=evidence)
    assert measured.teachers[2].weight > measured.teachers[1].weight
    with pytest.raises(kd.MissingSignal, match="task"):
        kd.ensemble_report(several, validation, weights=rule)


@pytest.mark.parametrize("pool", ["geometric", "power", "log_linear", PowerPool(2.0)], ids=str)
def test_other_pools(digits, pool):
    teachers, validation, _ = digits
    found = kd.ensemble_report([teachers[name] for name in GOOD], validation, pool=pool)
    assert found.safety.student_bound is None
    assert (found.loss_bound is None) == (pool == PowerPool(2.0))
    assert found.least_gap >= -1e-9 or pool == PowerPool(2.0)
    assert "PowerPool(exponent=2.0)" in str(found) or pool != PowerPool(2.0)
    assert found.variance.measured != pytest.approx(found.variance.correlated, rel=1e-3)


def test_softened_pools_know_their_teachers_by_name_whoever_is_left_out(digits):
    """A teacher that is too sure of itself, softened: the pool is better for it."""
    teachers, validation, _ = digits
    several = [teachers["logistic"], teachers["shuffled"]]
    plain = kd.ensemble_report(several, validation)
    softened = kd.ensemble_report(several, validation, pool=SoftenedPool({"shuffled": 20.0}, "geometric"))
    p = [one.log_probabilities(validation.batch(), "validation") for one in several]
    flat = torch.stack([p[0], (p[1] / 20).log_softmax(-1)], 1).mean(1).log_softmax(-1)
    assert softened.pooled.loss == pytest.approx(float(-flat.gather(1, validation.labels[:, None]).mean()))
    without = float(-p[0].gather(1, validation.labels[:, None]).mean()) - softened.pooled.loss
    assert softened.teachers[1].loss_without.mean == pytest.approx(without)
    assert plain.teachers[0].loss == softened.teachers[0].loss
    assert "SoftenedPool" in str(softened)


def test_sequences_are_read_at_the_positions_that_count_and_by_the_example(digits, monkeypatch):
    """The same numbers as of the positions alone, whatever stands where none counts, read in chunks of any size."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (30, 5), generator=generator)
    labels[torch.rand(30, 5, generator=generator) < 0.3] = -100
    counted = labels >= 0
    tables = [torch.randn(30, 5, 4, generator=generator).double().softmax(-1) for _ in range(3)]
    split = kd.Split("text", torch.zeros(30, 5), labels)
    flat = kd.Split("text", torch.zeros(int(counted.sum()), 1), labels[counted])
    whole = kd.ensemble_report([StoredTeacher(f"t{k}", one) for k, one in enumerate(tables)], split)
    alone = kd.ensemble_report([StoredTeacher(f"t{k}", one[counted]) for k, one in enumerate(tables)], flat)
    assert (whole.positions, whole.cases) == (int(counted.sum()), int(counted.any(-1).sum()))
    assert alone.cases == alone.positions
    assert whole.pooled.loss == pytest.approx(alone.pooled.loss)
    assert whole.teachers[1].loss_without.error != alone.teachers[1].loss_without.error
    np.testing.assert_allclose(whole.covariances, alone.covariances, atol=1e-12)
    monkeypatch.setattr(_read_pools, "SETTINGS", _read_pools.ReadingSettings(chunk_bytes=1))
    again = kd.ensemble_report([StoredTeacher(f"t{k}", one) for k, one in enumerate(tables)], split)
    assert again.pooled.loss == pytest.approx(whole.pooled.loss)
    np.testing.assert_allclose(again.covariances, whole.covariances, atol=1e-12)


def test_examples_of_one_cluster_are_one_case(digits):
    teachers, validation, _ = digits
    grouped = kd.Split("v", validation.inputs, validation.labels, cluster=torch.arange(500) // 5)
    assert kd.ensemble_report([teachers["logistic"], teachers["forest"]], grouped).cases == 100


def test_vetoes_end_no_report():
    """A geometric pool of teachers that exclude each other is none; it is left out of the comparison."""
    split = kd.Split("v", torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))
    hard = [CallableTeacher(f"t{k}", lambda x, k=k: torch.eye(2)[[k] * len(x)], floor=0.0) for k in range(2)]
    found = kd.ensemble_report(hard, split)
    assert [one.name for one in found.pools] == ["arithmetic", "power"]
    assert found.teachers[0].loss == math.inf
    assert found.to_dict()["teachers"][0]["loss"] is None
    with pytest.raises(InvalidInput, match="leave out every class between them"):
        kd.ensemble_report(hard, split, pool="geometric")


def test_one_teacher_alone(digits):
    teachers, validation, _ = digits
    found = kd.ensemble_report([teachers["logistic"]], validation)
    assert found.drop == ()
    assert found.teachers[0].loss_without is None
    assert found.variance.effective_teachers == pytest.approx(1)
    assert found.jensen_gap.mean == pytest.approx(0, abs=1e-12)
    assert str(found).startswith("One teacher on the")


def test_no_critical_label(digits):
    teachers, validation, _ = digits
    part = validation.part(validation.labels != 8)
    found = kd.ensemble_report([teachers["logistic"], teachers["forest"]], part, safety=TruthProbability(critical=[8]))
    assert found.safety is None
    assert "No position is critical" in str(found)
    assert found.to_dict()["teachers"][0]["safety"] is None


REFUSED = {
    "no split": ({"split": [1, 2]}, "`split` is a list; wanted a kd.Split"),
    "level": ({"level": 0.5}, "`level` is 0.5; wanted a probability above 0 and below 0.5"),
    "safety": ({"safety": "recall"}, "`safety` is 'recall'; wanted a safety measure"),
    "pool": ({"pool": "median"}, "`pool` is 'median'; wanted 'arithmetic', 'geometric', 'power', 'log_linear'"),
    "weights": ({"weights": [0.5, 0.6]}, r"`weights` is \[0.5, 0.6\]; wanted a number a teacher \(logistic, forest\)"),
    "too many weights": ({"weights": [0.5, 0.3, 0.2]}, "wanted a number a teacher"),
    "weights in words": ({"weights": "equal"}, "`weights` is 'equal'; wanted a number a teacher"),
    "negative": ({"weights": torch.tensor([1.5, -0.5])}, "at least 0 and together 1"),
    "teachers": ({"teachers": []}, "There are no teachers"),
    "class": ({"safety": TruthProbability(critical=["eight"])}, "eight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(digits, case):
    teachers, validation, _ = digits
    changes, message = REFUSED[case]
    given = {"teachers": [teachers["logistic"], teachers["forest"]], "split": validation} | changes
    with pytest.raises(InvalidInput, match=message):
        kd.ensemble_report(given.pop("teachers"), given.pop("split"), **given)
