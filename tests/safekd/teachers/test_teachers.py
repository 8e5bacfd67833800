"""Teachers of every kind against the direct computation; the ensemble and its memory."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.teachers import (
    CallableTeacher,
    SklearnTeacher,
    StoredTeacher,
    Teacher,
    TeacherEnsemble,
    TorchTeacher,
)

N, V = 30, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % V
SPLIT = Split("validation", X, Y)
P_NV = torch.rand(N, V, generator=torch.Generator().manual_seed(1)).softmax(-1)


def seen(teacher, index=None, split=SPLIT):
    return teacher.log_probabilities(split.batch(index), split.name)


def fitted(labels=Y, inputs=X, model=None):
    return (model or LogisticRegression()).fit(inputs.double().numpy(), labels.numpy())


# adapters -------------------------------------------------------------------------------------------------------------


def test_torch_teacher_is_the_softmax_of_its_logits():
    module = nn.Linear(4, V)
    torch.testing.assert_close(seen(TorchTeacher("net", module)), module(X).detach().log_softmax(-1))
    assert not seen(TorchTeacher("net", module)).requires_grad


def test_torch_teacher_sees_its_columns_only():
    module = nn.Linear(2, V)
    expected = module(X[:, [3, 1]]).detach().log_softmax(-1)
    torch.testing.assert_close(seen(TorchTeacher("net", module, columns=[3, 1])), expected)


def test_torch_teacher_takes_the_logits_of_a_record():
    class Record(nn.Module):
        def forward(self, inputs):
            return SimpleNamespace(logits=inputs[:, :V])

    torch.testing.assert_close(seen(TorchTeacher("net", Record())), X[:, :V].log_softmax(-1))


def test_torch_teacher_answers_in_eval_mode_and_restores_every_part():
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, V)).train()
    module[1].eval()
    teacher = TorchTeacher("net", module)
    assert torch.equal(seen(teacher), seen(teacher))
    assert [part.training for part in module] == [True, False, True]
    assert module.training


def test_torch_teacher_computes_logarithms_of_half_types_in_float32():
    module = nn.Linear(4, V).bfloat16()
    split = Split("validation", X.bfloat16(), Y)
    log_p_NV = seen(TorchTeacher("net", module), split=split)
    assert log_p_NV.dtype == torch.float32
    assert log_p_NV.exp().sum(-1).tolist() == pytest.approx([1] * N, abs=1e-6)


def test_torch_teacher_with_broken_logits():
    module = nn.Linear(4, V)
    nn.init.constant_(module.weight, float("nan"))
    with pytest.raises(InvalidInput, match="Teacher 'net' gave logits that are not finite on 'validation'"):
        seen(TorchTeacher("net", module))


@pytest.mark.parametrize("model", [LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())])
def test_sklearn_teacher_is_predict_proba(model):
    classifier = fitted(model=model)
    expected = classifier.predict_proba(X.double().numpy())
    assert seen(SklearnTeacher("lr", classifier, classes=V)).exp().numpy() == pytest.approx(expected, abs=5e-6)


def test_sklearn_teacher_sees_its_columns_only():
    classifier = fitted(inputs=X[:, [2, 0]])
    expected = classifier.predict_proba(X[:, [2, 0]].double().numpy())
    found = seen(SklearnTeacher("lr", classifier, classes=V, columns=[2, 0])).exp()
    assert found.numpy() == pytest.approx(expected, abs=5e-6)


def test_a_class_that_the_classifier_never_saw_gets_the_floor():
    """Fitted on classes 0 and 2 of four: columns go where they belong."""
    some = Y != 1
    classifier = fitted(labels=Y[some], inputs=X[some])
    p_NV = seen(SklearnTeacher("lr", classifier, classes=4, floor=1e-4)).exp()
    assert p_NV.shape == (N, 4)
    assert p_NV[:, [1, 3]].numpy() == pytest.approx(1e-4 / 1.0002, rel=1e-3)
    expected = classifier.predict_proba(X.double().numpy())
    assert p_NV[:, [0, 2]].numpy() == pytest.approx(expected, abs=2e-4)
    assert p_NV.sum(-1).numpy() == pytest.approx(1)


def test_a_hard_classifier_is_never_infinitely_wrong():
    p_NV = seen(SklearnTeacher("tree", fitted(model=DecisionTreeClassifier(random_state=0)), classes=V))
    assert torch.isfinite(p_NV).all()
    assert float(p_NV.min()) == pytest.approx(math.log(1e-6), abs=1e-4)


SKLEARN = {
    "unfitted": (lambda: LogisticRegression(), "'lr' is a LogisticRegression without predict_proba or not fitted"),
    "unfitted pipeline": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), "'lr' is a Pipeline without"),
    "no probabilities": (lambda: fitted(model=SVC()), "'lr' is a SVC without predict_proba or not fitted; fit a class"),
    "class": (lambda: LogisticRegression, "without predict_proba or not fitted"),
    "names": (
        lambda: LogisticRegression().fit(X.numpy(), np.array(["a", "b", "c"])[Y.numpy()]),
        r"Teacher 'lr' was fitted on classes \['a', 'b', 'c'\], the task has 3: 0 to 2. Fit it on labels numbered like",
    ),
    "from one": (lambda: fitted(labels=Y + 1), r"fitted on classes \[1, 2, 3\], the task has 3: 0 to 2"),
    "negative": (lambda: fitted(labels=Y - 1), r"fitted on classes \[-1, 0, 1\]"),
}


@pytest.mark.parametrize("case", SKLEARN)
def test_classifiers_that_are_refused(case):
    classifier, message = SKLEARN[case]
    with pytest.raises(InvalidInput, match=message):
        SklearnTeacher("lr", classifier(), classes=V)


def test_callable_teacher():
    as_probabilities = CallableTeacher("f", lambda x: x[:, :V].softmax(-1))
    as_logits = CallableTeacher("f", lambda x: x[:, :V], gives="logits")
    as_array = CallableTeacher("f", lambda x: x[:, :V].softmax(-1).numpy())
    for teacher in (as_probabilities, as_logits, as_array):
        torch.testing.assert_close(seen(teacher).exp(), X[:, :V].softmax(-1), atol=5e-6, rtol=1e-4)


def test_callable_teacher_may_answer_with_whole_numbers():
    """A hand-written rule says 0 or 1; its doubt is the floor."""
    p_NV = seen(CallableTeacher("rule", lambda x: nn.functional.one_hot((x[:, 0] > 0).long(), V), floor=0.01)).exp()
    assert p_NV.amax(-1).tolist() == pytest.approx([1 / 1.02] * N)
    assert p_NV.amin(-1).tolist() == pytest.approx([0.01 / 1.02] * N)


def test_callable_teacher_gives_something_else():
    with pytest.raises(
        InvalidInput, match="Teacher 'f': gives is 'scores'; wanted 'probabilities', 'logits' or 'log_p"
    ):
        CallableTeacher("f", lambda x: x, gives="scores")


def test_stored_teacher_gives_the_rows_of_the_examples():
    index = torch.tensor([7, 0, 7])
    torch.testing.assert_close(seen(StoredTeacher("api", P_NV), index).exp(), P_NV[index], atol=5e-6, rtol=1e-4)
    by_split = StoredTeacher("api", {"train": P_NV.flip(0), "validation": P_NV})
    torch.testing.assert_close(seen(by_split, index).exp(), P_NV[index], atol=5e-6, rtol=1e-4)


def test_stored_teacher_of_another_split():
    with pytest.raises(
        InvalidInput, match=r"'api' has no stored rows for split 'validation'; it has \['test', 'train'\]"
    ):
        seen(StoredTeacher("api", {"train": P_NV, "test": P_NV}))


def test_stored_teacher_with_too_few_rows():
    with pytest.raises(
        InvalidInput, match="'api' has 20 stored rows for split 'validation', but example 29 was asked for"
    ):
        seen(StoredTeacher("api", P_NV[:20]))


@pytest.mark.parametrize("stored", [P_NV.tolist(), P_NV.numpy(), None, {"validation": P_NV.numpy()}])
def test_stored_teacher_of_something_else(stored):
    with pytest.raises(InvalidInput, match=r"Teacher 'api': stored .* are a \w+; wanted a tensor \(N, V\), the path"):
        StoredTeacher("api", stored)


ROWS = {
    "sum": (
        [0.5, 0.3, 0.1],
        r"Teacher 'f' gave \[0.5, 0.3, 0.1\] \(sum 0.9\) for example 4; wanted probabilities: finite, at least",
    ),
    "negative": ([1.1, -0.1, 0.0], r"gave \[1.1, -0.1, 0\] \(sum 1\) for example 4"),
    "nan": ([float("nan"), 0.5, 0.5], r"gave \[nan, 0.5, 0.5\] \(sum nan\) for example 4"),
    "logits": ([3.0, -1.0, 2.0], r"gave \[3, -1, 2\] \(sum 4\) for example 4"),
    "percent": ([50.0, 30.0, 20.0], r"gave \[50, 30, 20\] \(sum 100\) for example 4"),
}


@pytest.mark.parametrize("kind", ["stored", "callable"])
@pytest.mark.parametrize("case", ROWS)
def test_rows_that_are_no_distributions(case, kind):
    row, message = ROWS[case]
    rows = P_NV.clone()
    rows[4] = torch.tensor(row)
    with pytest.raises(InvalidInput, match=message):
        seen(StoredTeacher("f", rows) if kind == "stored" else CallableTeacher("f", lambda x: rows))


@pytest.mark.parametrize("floor", [-1e-6, 1.0, float("nan")])
def test_a_floor_that_is_none(floor):
    for make in (
        lambda: StoredTeacher("f", P_NV, floor=floor),
        lambda: CallableTeacher("f", lambda x: x, floor=floor),
        lambda: SklearnTeacher("f", fitted(), classes=V, floor=floor),
    ):
        with pytest.raises(
            InvalidInput, match=r"Teacher 'f': floor is .*; wanted a small number such as 1e-6, or 0 to"
        ):
            make()


def test_every_adapter_is_a_teacher():
    made = [
        TorchTeacher("a", nn.Linear(4, V)),
        SklearnTeacher("b", fitted(), V),
        CallableTeacher("c", lambda x: x),
        StoredTeacher("d", P_NV),
    ]
    assert all(isinstance(teacher, Teacher) for teacher in made)
    assert not isinstance(object(), Teacher)


# ensemble -------------------------------------------------------------------------------------------------------------


class Own:
    """A teacher of the user's own kind that gives what it is told, and counts how many examples it was asked."""

    def __init__(self, rows, name="own"):
        self.rows, self.name, self.asked = rows, name, 0

    def log_probabilities(self, batch, split):
        self.asked += len(batch)
        return self.rows[batch.index]


def three_teachers():
    return [StoredTeacher("api", P_NV), TorchTeacher("net", nn.Linear(4, V)), SklearnTeacher("lr", fitted(), V)]


def test_an_ensemble_stacks_its_teachers():
    teachers = three_teachers()
    log_p_NKV = TeacherEnsemble(teachers).log_probabilities(SPLIT.batch(), "validation")
    assert log_p_NKV.shape == (N, 3, V)
    assert log_p_NKV.dtype == torch.float64  # the widest of them
    for k, teacher in enumerate(teachers):
        torch.testing.assert_close(log_p_NKV[:, k], seen(teacher).double())
    assert TeacherEnsemble(teachers[:2]).log_probabilities(SPLIT.batch(), "validation").dtype == torch.float32


def test_memory_gives_the_same_as_asking():
    teachers, index = three_teachers(), torch.tensor([29, 3, 3, 0])
    kept, asking = TeacherEnsemble(teachers), TeacherEnsemble(teachers, cache_limit=0)
    for some in (index, torch.arange(N), index.flip(0)):
        torch.testing.assert_close(
            kept.cached_log_probabilities(SPLIT, SPLIT.batch(some)),
            asking.cached_log_probabilities(SPLIT, SPLIT.batch(some)),
        )
        torch.testing.assert_close(
            asking.cached_log_probabilities(SPLIT, SPLIT.batch(some)),
            asking.log_probabilities(SPLIT.batch(some), "validation"),
        )


def test_memory_asks_once_a_split():
    teacher = Own(P_NV.log())
    ensemble = TeacherEnsemble([teacher])
    for _ in range(5):
        ensemble.cached_log_probabilities(SPLIT, SPLIT.batch(torch.tensor([1, 2])))
    assert teacher.asked <= N + 2
    other = Split("test", X, Y)
    torch.testing.assert_close(
        ensemble.cached_log_probabilities(other, other.batch(torch.tensor([2])))[0, 0], P_NV[2].log()
    )
    assert teacher.asked > N + 2


def test_beyond_the_limit_only_what_is_needed_is_asked():
    teacher = Own(P_NV.log())
    bytes_of_all = N * V * 4
    TeacherEnsemble([teacher], cache_limit=bytes_of_all - 1).cached_log_probabilities(
        SPLIT, SPLIT.batch(torch.tensor([1, 2]))
    )
    assert teacher.asked <= 3
    TeacherEnsemble([teacher], cache_limit=bytes_of_all).cached_log_probabilities(
        SPLIT, SPLIT.batch(torch.tensor([1, 2]))
    )
    assert teacher.asked >= N


def test_two_splits_of_one_name_are_not_mixed_up():
    """Memory goes by the split itself; names need not differ."""
    ensemble = TeacherEnsemble([TorchTeacher("net", nn.Linear(4, V))])
    one, other = Split("train", X, Y), Split("train", -X, Y)
    assert not torch.allclose(
        ensemble.cached_log_probabilities(one, one.batch(torch.arange(N))),
        ensemble.cached_log_probabilities(other, other.batch(torch.arange(N))),
    )


def test_no_teachers():
    with pytest.raises(InvalidInput, match="There are no teachers; give at least one"):
        TeacherEnsemble([])


def test_two_of_one_name():
    with pytest.raises(InvalidInput, match="Two teachers are called 'api'; give each a name of its own"):
        TeacherEnsemble([StoredTeacher("api", P_NV), Own(P_NV), StoredTeacher("api", P_NV)])


DISAGREE = {
    "classes": (
        torch.full((N, 4), 0.25).log(),
        "Teacher 'own' gives 4 classes, teacher 'api' gives 3; all teachers must share one list of classes",
    ),
    "positions": (
        P_NV.log().unsqueeze(1).expand(N, 2, V),
        r"Teacher 'own' gives distributions of shape \(\d+, 2, 3\) for labels of shape \(\d+,\); wanted one .* a",
    ),
    "probabilities": (P_NV, r"'own' gave values whose exponentials sum to [34]\.\d+ for example 0; wanted log-prob"),
    "nan": (torch.full((N, V), float("nan")), "'own' gave values whose exponentials sum to nan for example 0"),
}


@pytest.mark.parametrize("case", DISAGREE)
def test_teachers_that_do_not_fit(case):
    rows, message = DISAGREE[case]
    ensemble = TeacherEnsemble([StoredTeacher("api", P_NV), Own(rows)])
    with pytest.raises(InvalidInput, match=message):
        ensemble.cached_log_probabilities(SPLIT, SPLIT.batch(torch.arange(N)))


def test_a_label_that_no_teacher_knows():
    strange = Split("validation", X, Y + 3)
    with pytest.raises(InvalidInput, match=r"A label is \d, but the teachers know only 3 classes, 0 to 2"):
        TeacherEnsemble([StoredTeacher("api", P_NV)]).cached_log_probabilities(strange, strange.batch())


def test_very_many_classes_leave_the_mass_where_it_is():
    """A floor of 1e-6 under each of 150,000 classes would move 15 % of it."""
    p_NV = torch.zeros(2, 150_000)
    p_NV[:, 7] = 1
    batch = Split("train", torch.zeros(2, 1), torch.zeros(2, dtype=torch.long)).batch()
    log_p = StoredTeacher("api", p_NV).log_probabilities(batch, "train")
    assert log_p[:, 7].exp().min() > 0.998
