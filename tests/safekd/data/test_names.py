"""Classes, contexts, tasks and teachers by name: where names become numbers, and what is said of unknown ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import safekd as kd
from safekd.data import RankShare, Split, StreamSource
from safekd.distributed import Ranks
from safekd.errors import InvalidInput

S = kd.safety
X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
CLASS = ["malignant" if x > 0 else "benign" for x in X[:, 0]]
NUMBER = torch.tensor([int(name == "malignant") for name in CLASS])
SHIFT = ["night" if i % 3 else "day" for i in range(60)]
TRAIN = Split("train", X, CLASS, context=SHIFT)
PLAIN = Split("train", X, NUMBER, context=torch.tensor([int(s == "night") for s in SHIFT]))
NAMED_AND_NUMBERED = {
    "truth": (S.TruthProbability(["malignant"]), S.TruthProbability([1])),
    "margin": (S.Margin(["malignant"]), S.Margin([1])),
    "brier": (S.OneMinusBrier(["benign"]), S.OneMinusBrier([0])),
    "unsafe mass": (S.UnsafeMass(["benign"], ["malignant"]), S.UnsafeMass([0], [1])),
    "calibration": (S.Calibration("malignant"), S.Calibration(1)),
    "recall": (S.Recall(["malignant", 0]), S.Recall([0, 1])),
    "top": (S.TopK(1, ["malignant"]), S.TopK(1, [1])),
    "avoids": (S.Avoids(["benign"], ["malignant"]), S.Avoids([0], [1])),
}


def teacher(name: str) -> kd.teachers.CallableTeacher:
    return kd.teachers.CallableTeacher(name, lambda x: torch.stack([-x[:, 0], x[:, 0]], 1), gives="logits")


def trainer(*rules, teachers=("a", "b"), **more) -> kd.ConstrainedTrainer:
    torch.manual_seed(0)
    student = nn.Linear(2, 2)
    adam = torch.optim.Adam(student.parameters(), lr=0.05)
    return kd.ConstrainedTrainer(student, [teacher(n) for n in teachers], constraints=rules, optimizer=adam, **more)


@pytest.mark.parametrize("kind", NAMED_AND_NUMBERED)
def test_a_measure_by_name_is_the_measure_by_number(kind):
    named, numbered = NAMED_AND_NUMBERED[kind]
    log_p = torch.log_softmax(torch.randn(60, 2, generator=torch.Generator().manual_seed(1)), -1)
    assert torch.equal(named.with_names(TRAIN.names).measured(log_p, NUMBER), numbered.measured(log_p, NUMBER))
    assert repr(named.with_names(TRAIN.names)) == repr(numbered)
    assert "malignant" in repr(named) or "benign" in repr(named)
    with pytest.raises(InvalidInput, match=r"which number that is says a split: measure.with_names\(split.names\)"):
        named.measured(log_p, NUMBER)


CONSTRAINTS = {
    "contexts": (
        S.SafetyConstraint("c", S.Recall(), 0.6, contexts=["night"]),
        S.SafetyConstraint("c", S.Recall(), 0.6, contexts=[1]),
    ),
    "classes": (
        S.SafetyConstraint("c", S.TruthProbability(), 0.6, classes=["malignant"]),
        S.SafetyConstraint("c", S.TruthProbability(), 0.6, classes=[1]),
    ),
    "mix": (
        S.SafetyConstraint("c", S.TruthProbability(), 0.6, mix={"day": 0.4, "night": 0.6}),
        S.SafetyConstraint("c", S.TruthProbability(), 0.6, mix={0: 0.4, 1: 0.6}),
    ),
    "worst": (
        S.SafetyConstraint("c", S.TruthProbability(["malignant", "benign"]), 0.6, by="class", worst=S.KLBall(0.1)),
        S.SafetyConstraint("c", S.TruthProbability([0, 1]), 0.6, by="class", worst=S.KLBall(0.1)),
    ),
    "budget": (
        S.Budget("c", [(1.0, S.Recall(["malignant"])), (2.0, S.Average(S.Recall(), contexts=["day"]))], 1.0),
        S.Budget("c", [(1.0, S.Recall([1])), (2.0, S.Average(S.Recall(), contexts=[0]))], 1.0),
    ),
}


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_run_by_name_is_the_run_by_number(kind):
    named, numbered = CONSTRAINTS[kind]
    one, two = trainer(named).fit(TRAIN, epochs=60), trainer(numbered).fit(PLAIN, epochs=60)
    assert one.point.readings == two.point.readings
    held_out = Split("held_out", X + 1, CLASS, context=SHIFT)
    by_number = Split("held_out", X + 1, NUMBER, context=PLAIN.context)
    assert kd.certify(one, named, held_out) == kd.certify(two.student, numbered, by_number)


def test_one_constraint_each_by_name():
    rules = S.constrain_each_context("r", S.Recall(["malignant"]), {"day": 0.5, "night": 0.4}, ["day", "night"])
    assert [(rule.name, rule.at_least) for rule in rules] == [("r: day", 0.5), ("r: night", 0.4)]
    rules += S.constrain_each_class("c", S.TruthProbability(["malignant", "benign"]), 0.5)
    assert [rule.name for rule in rules[2:]] == ["c: benign", "c: malignant"]
    result = trainer(*rules).fit(TRAIN, epochs=5)
    assert [reading.count for reading in result.point.readings][2:] == [60 - int(NUMBER.sum()), int(NUMBER.sum())]


def test_critical_classes_and_contexts_by_name():
    polytope = kd.WeightPolytope(2, lower=0.1, orderings=[(0, 1)])
    rule = kd.weights.Conforming(kd.weights.EntropyDecay(), polytope)
    for named, numbered in [({"critical_classes": ["malignant"]}, {"critical_classes": [1]})]:
        one = trainer(weights=rule, critical_contexts=["night"], **named).objective.signals(TRAIN, TRAIN.batch())
        two = trainer(weights=rule, critical_contexts=[1], **numbered).objective.signals(PLAIN, PLAIN.batch())
        assert torch.equal(one.critical, two.critical)


UNKNOWN = {
    "class": (lambda: trainer(S.SafetyConstraint("c", S.Recall(["malignent"]), 0.5)).fit(TRAIN, epochs=1), "malignant"),
    "context": (
        lambda: trainer(S.SafetyConstraint("c", S.Recall(), 0.5, contexts=["nigth"])).fit(TRAIN, epochs=1),
        "night",
    ),
    "critical class": (lambda: trainer(critical_classes=["bening"]).fit(TRAIN, epochs=1), "benign"),
    "certificate": (lambda: kd.certify(nn.Linear(2, 2), S.SafetyConstraint("c", S.Recall(["b"]), 0.5), TRAIN), None),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_is_told_with_the_known_ones(case):
    attempt, near = UNKNOWN[case]
    with pytest.raises(
        InvalidInput, match=r"There is no (class|context) '.*' in split 'train'; there is '.*', '"
    ) as told:
        attempt()
    assert near is None or f"Did you mean '{near}'?" in str(told.value)


def test_a_split_without_names_says_how_to_give_them():
    with pytest.raises(
        InvalidInput, match=r"'malignant' is the name of a class, but split 'train' has no names .*class_n"
    ):
        trainer(S.SafetyConstraint("c", S.Recall(["malignant"]), 0.5)).fit(PLAIN, epochs=1)


def test_splits_that_number_their_classes_differently_are_refused():
    only = Split("validation", X[NUMBER == 1] + 1, ["malignant"] * int(NUMBER.sum()))
    message = (
        "Class 0 is 'benign' in split 'train' and 'malignant' in split 'validation'; give both the same class_names"
    )
    with pytest.raises(InvalidInput, match=message):
        trainer().fit(TRAIN, only, epochs=1)
    result = trainer().fit(TRAIN, epochs=1)
    rule = S.SafetyConstraint("c", S.Recall(["malignant"]), 0.5)
    with pytest.raises(InvalidInput, match="Class 0 is 'benign' in split 'train' and 'malignant'"):
        kd.certify(result, rule, only)
    with pytest.raises(InvalidInput, match="has names for 1 classes, malignant, and the student knows 2"):
        kd.certify(result.student, rule, only)
    complete = Split("held_out", only.inputs, ["malignant"] * len(only), class_names=["benign", "malignant"])
    assert kd.certify(result, rule, complete).count == len(only)


def test_more_names_than_the_teachers_have_classes():
    with pytest.raises(InvalidInput, match="names for 3 classes, benign, malignant, other, and the ensemble knows 2"):
        trainer().fit(Split("train", X, CLASS, class_names=["benign", "malignant", "other"]), epochs=1)


def test_a_group_without_an_example_is_told_by_its_name():
    split = Split("train", X, CLASS, context=["day"] * 60, context_names=["day", "night"])
    rule = S.SafetyConstraint("c", S.TruthProbability(), 0.6, mix={"day": 0.4, "night": 0.6})
    with pytest.raises(InvalidInput, match=r"context 1 \('night'\) has no covered example in split 'train'"):
        trainer(rule).fit(split, epochs=1)


def test_a_mix_that_names_a_group_twice():
    rule = S.SafetyConstraint("c", S.TruthProbability(), 0.6, mix={"day": 0.4, 0: 0.6})
    with pytest.raises(InvalidInput, match="names a context of split 'train' twice"):
        trainer(rule).fit(TRAIN, epochs=1)


# ---- teachers ----


def test_teachers_are_measured_by_the_names_of_their_classes():
    ensemble = kd.teachers.TeacherEnsemble([teacher("a"), teacher("b")])
    named = kd.teachers.measure_teachers(ensemble, TRAIN, S.TruthProbability(["malignant"]))
    numbered = kd.teachers.measure_teachers(ensemble, PLAIN, S.TruthProbability([1]))
    assert torch.equal(named.safety_CK, numbered.safety_CK)
    assert kd.teachers.find_significant_orderings(ensemble, TRAIN, S.Recall(["malignant"])).to_frame() is not None


def test_a_classifier_fitted_on_names():
    order = ["malignant", "benign"]
    fitted = LogisticRegression().fit(X.double().numpy(), np.array(CLASS))
    p = kd.teachers.SklearnTeacher("forest", fitted, classes=order).log_probabilities(TRAIN.batch(), "train").exp()
    assert torch.allclose(p, torch.as_tensor(fitted.predict_proba(X.double().numpy()))[:, [1, 0]])
    with pytest.raises(
        InvalidInput, match="no class 'benign' in the classes of teacher 'forest'; there is 'malignant'"
    ):
        kd.teachers.SklearnTeacher("forest", fitted, classes=["malignant"])


def test_orderings_and_bounds_by_the_names_of_teachers():
    names = ["expert", "fast", "cheap"]
    by_name = kd.WeightPolytope(
        3, names=names, orderings=[("expert", "cheap")], upper={"cheap": 0.3}, lower={"fast": 0.1}
    )
    by_number = kd.WeightPolytope(3, orderings=[(0, 2)], upper=[1, 1, 0.3], lower=[0, 0.1, 0])
    assert by_name == by_number
    assert hash(by_name) == hash(by_number)
    assert "teacher 0 ('expert') >= teacher 2 ('cheap')" in str(by_name.check(torch.tensor([0.1, 0.6, 0.3])))
    assert by_name.with_orderings([("fast", "cheap")]).orderings == ((1, 2),)
    unified = kd.weights.Unified(
        token=kd.weights.EntropyDecay(), polytope=by_name, context_orderings=[("expert", "fast")]
    )
    assert unified.context_orderings.everywhere == ((0, 1),)


POLYTOPES = {
    "unknown": ({"orderings": [("a", "z")]}, "There is no teacher 'z'; there is 'a', 'b'"),
    "unknown bound": ({"upper": {"bb": 0.5}}, r"There is no teacher 'bb'; .*Did you mean 'b'\?"),
    "too many": ({"names": ["a", "b", "c"]}, "`names` are a, b, c; wanted 2 different ones"),
    "twice": ({"names": ["a", "a"]}, "wanted 2 different ones"),
    "text": ({"names": "ab"}, "`names` is 'ab'; wanted a list of text"),
    "nobody named": ({"names": (), "orderings": [("a", "b")]}, r"Names are known where .*names=\[...\]"),
    "nobody named for bounds": ({"names": (), "upper": {"a": 0.5}}, "need the teachers' names"),
}


@pytest.mark.parametrize("case", POLYTOPES)
def test_names_of_teachers_that_do_not_fit(case):
    settings, message = POLYTOPES[case]
    with pytest.raises(InvalidInput, match=message):
        kd.WeightPolytope(2, **{"names": ["a", "b"], **settings})


def test_a_polytope_about_other_teachers_is_refused():
    polytope = kd.WeightPolytope(2, names=["b", "a"], lower=0.1)
    with pytest.raises(
        InvalidInput, match="about the teachers b, a, the ensemble is a, b; wanted the same names in the"
    ):
        trainer(weights=kd.weights.Conforming(kd.weights.EntropyDecay(), polytope))


class TwoRanks(Ranks):
    """One of two processes, of which the other was given its examples in another order, under other names."""

    def gather(self, value):
        return [value, f"another {value}"]


def test_parts_of_two_processes_that_number_their_names_differently_are_refused():
    part = StreamSource("train", [(X, NUMBER)], class_names=["benign", "malignant"])
    with pytest.raises(
        InvalidInput, match=r"own part of 'train', and their classes, .* called differently; give class_na"
    ):
        RankShare(part, TwoRanks())
