"""What a teacher may do wrong, and what a user may ask it wrongly: named, with the next move."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import safekd as kd
from safekd.errors import NotFinite
from safekd.teachers import CallableTeacher, SklearnTeacher, StoredTeacher, TeacherEnsemble, TorchTeacher

N = 6
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
SPLIT = kd.Split("train", X, torch.arange(N) % 2)


class Own:
    """A teacher of the user's own kind, which answers what it is told."""

    name = "own"

    def __init__(self, answer):
        self.answer = answer

    def log_probabilities(self, batch, split):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def fails(x):
    raise ValueError("no route to host")


class Fails(nn.Module):
    def forward(self, x):
        return fails(x)


class FailsSklearn:
    classes_ = (0, 1)

    def predict_proba(self, x):
        fails(x)


RAISING = {
    "callable": CallableTeacher("api", fails),
    "torch": TorchTeacher("api", Fails()),
    "sklearn": SklearnTeacher("api", FailsSklearn(), classes=2),
    "own": type("Api", (), {"name": "api", "log_probabilities": lambda self, batch, split: fails(batch)})(),
}


@pytest.mark.parametrize("kind", RAISING)
def test_a_teacher_that_raises_is_named_and_the_cause_is_kept(kind):
    student = nn.Linear(2, 2)
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    trainer = kd.ConstrainedTrainer(student, [StoredTeacher("fine", X.softmax(-1)), RAISING[kind]], optimizer=sgd)
    message = "Teacher 'api' failed on split 'train', examples 0 to 5, with ValueError: no route to host"
    with pytest.raises(kd.InvalidInput, match=message) as caught:
        trainer.fit(SPLIT, epochs=1)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_teacher_of_another_type_than_the_inputs_is_named():
    with pytest.raises(kd.InvalidInput, match=r"Teacher 'net' computes in torch\.float64 and cannot read inputs of"):
        TorchTeacher("net", nn.Linear(2, 2).double()).log_probabilities(SPLIT.batch(), "train")


GIVES = {
    "none": (None, "Teacher 'f' gave a NoneType; wanted a tensor or an array"),
    "text": (["a"] * N, "Teacher 'f' gave a list; wanted a tensor"),
    "class numbers": (
        torch.zeros(N, dtype=torch.long),
        r"shape \(6,\) \(int64\).*wanted one distribution a label",
    ),
    "one number": (torch.tensor(0.5), r"gives distributions of shape \(\) .*wanted one distribution a label"),
    "too few": (X[:2].softmax(-1), r"shape \(2, 2\) .* for labels of shape \(6,\)"),
    "transposed": (X.softmax(-1).T, r"shape \(2, 6\) .* for labels of shape \(6,\)"),
    "a row a position": (torch.ones(N, 3, 2) / 2, r"shape \(6, 3, 2\)"),
    "counts": (torch.ones(N, 2, dtype=torch.long), r"gave \[1, 1\] \(sum 2\) for example 0; wanted probabilities"),
    "complex": (torch.ones(N, 2, dtype=torch.complex64) / 2, "complex64"),
    "nan": (torch.full((N, 2), torch.nan), r"gave \[nan, nan\]"),
}


@pytest.mark.parametrize("case", GIVES)
def test_what_is_no_distribution_is_refused(case):
    answer, message = GIVES[case]
    with pytest.raises(kd.InvalidInput, match=message):
        CallableTeacher("f", lambda x: answer).log_probabilities(SPLIT.batch(), "train")


@pytest.mark.parametrize("gives", ["logits", "log_probabilities"])
@pytest.mark.parametrize("case", ["none", "class numbers", "too few", "one number"])
def test_what_are_no_logits_is_refused(case, gives):
    with pytest.raises(kd.InvalidInput, match="Teacher 'f' g"):
        CallableTeacher("f", lambda x: GIVES[case][0], gives=gives).log_probabilities(SPLIT.batch(), "train")


def test_class_numbers_are_told_how_they_become_probabilities():
    with pytest.raises(kd.InvalidInput, match=r"torch\.nn\.functional\.one_hot"):
        CallableTeacher("f", lambda x: GIVES["class numbers"][0]).log_probabilities(SPLIT.batch(), "train")


OWN = {
    "none": (None, "Teacher 'own' gave a NoneType; wanted a tensor of log-probabilities"),
    "ints": (torch.zeros(N, 2, dtype=torch.long), "Teacher 'own' gave torch.int64 numbers; wanted a tensor of log-pro"),
    "array": (X.log_softmax(-1).numpy(), "Teacher 'own' gave a ndarray"),
    "shape": (X[:3].log_softmax(-1), r"Teacher 'own' gives distributions of shape \(3, 2\)"),
    "nan": (torch.full((N, 2), torch.nan), "Teacher 'own' gave values whose exponentials sum to nan for example 0"),
    "logits": (X, "Teacher 'own' gave values whose exponentials sum to"),
}


@pytest.mark.parametrize("case", OWN)
def test_a_teacher_of_ones_own_is_looked_at(case):
    answer, message = OWN[case]
    with pytest.raises(kd.InvalidInput, match=message):
        TeacherEnsemble([Own(answer)]).log_probabilities(SPLIT.batch(), "train")


def test_log_probabilities_are_told_from_logits():
    with pytest.raises(kd.InvalidInput, match=r"exponentials sum to .* wanted log-probabilities"):
        CallableTeacher("f", lambda x: x + 3, gives="log_probabilities").log_probabilities(SPLIT.batch(), "train")
    rows = X.log_softmax(-1)
    found = CallableTeacher("f", lambda x: rows, gives="log_probabilities").log_probabilities(SPLIT.batch(), "train")
    torch.testing.assert_close(found, rows)


def test_half_types_may_round_log_probabilities_of_many_classes():
    """Of 65,536 equal classes, bfloat16 makes exponentials that sum to 1.028."""
    rows = torch.zeros(N, 65_536).log_softmax(-1).bfloat16()
    found = CallableTeacher("f", lambda x: rows, gives="log_probabilities").log_probabilities(SPLIT.batch(), "train")
    assert found.exp().sum(-1).tolist() == pytest.approx([1] * N, abs=1e-4)
    assert TeacherEnsemble([Own(rows)]).log_probabilities(SPLIT.batch(), "train").dtype == torch.float32


ASKED = {
    "a split for its name": lambda teacher: teacher.log_probabilities(SPLIT.batch(), SPLIT),
    "swapped": lambda teacher: teacher.log_probabilities("train", SPLIT.batch()),
    "a split for a batch": lambda teacher: teacher.log_probabilities(SPLIT, "train"),
    "inputs": lambda teacher: teacher.log_probabilities(X, "train"),
}


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize(
    "teacher",
    [
        TorchTeacher("t", nn.Linear(2, 2)),
        CallableTeacher("t", lambda x: x.softmax(-1)),
        StoredTeacher("t", X.softmax(-1)),
        TeacherEnsemble([StoredTeacher("t", X.softmax(-1))]),
    ],
    ids=lambda teacher: type(teacher).__name__,
)
def test_asked_with_something_else(case, teacher):
    with pytest.raises(kd.InvalidInput, match=r"'t' was asked with .*log_probabilities\(split.batch\(\), split.name\)"):
        ASKED[case](teacher)


def test_what_cannot_be_called_is_no_function_of_a_teacher():
    with pytest.raises(kd.InvalidInput, match="'f': function is a Tensor; wanted a function from inputs to rows"):
        CallableTeacher("f", X)


def test_a_module_is_no_teacher_by_itself():
    with pytest.raises(kd.InvalidInput, match=r"Teacher 0 is a Linear; wanted one of kd.teachers, such as Torch"):
        TeacherEnsemble([nn.Linear(2, 2)])


@pytest.mark.parametrize("limit", [-1, 2.5, None, "1GB"])
def test_a_limit_that_is_none(limit):
    with pytest.raises(kd.InvalidInput, match=r"`cache_limit` is .*wanted a number of bytes"):
        TeacherEnsemble([StoredTeacher("t", X.softmax(-1))], cache_limit=limit)


def test_nan_of_a_teacher_of_logits_says_that_the_numbers_are_at_fault():
    with pytest.raises(NotFinite):
        CallableTeacher("f", lambda x: x * torch.nan, gives="logits").log_probabilities(SPLIT.batch(), "train")


# the floor ----------------------------------------------------------------------------------------------------------


def test_zeros_stay_zeros_where_the_floor_is_0():
    rows = torch.tensor([[1.0, 0.0]]).expand(N, 2)
    found = CallableTeacher("f", lambda x: rows, floor=0).log_probabilities(SPLIT.batch(), "train")
    assert found.exp().tolist() == rows.tolist()


def test_logits_have_no_floor_unless_one_is_asked_for():
    rows = torch.tensor([[20.0, -20.0]]).expand(N, 2)

    def least(**more):
        teacher = CallableTeacher("f", lambda x: rows, gives="logits", **more)
        return float(teacher.log_probabilities(SPLIT.batch(), "train").exp().min())

    assert least() == pytest.approx(torch.tensor([20.0, -20.0]).softmax(-1)[1].item(), rel=1e-5)
    assert least(floor=1e-3) == pytest.approx(1e-3, rel=1e-2)


# devices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cuda" if not torch.cuda.is_available() else "cuda:98"])
def test_a_device_that_is_not_there_is_named(device):
    student = nn.Linear(2, 2)
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    with pytest.raises(kd.InvalidInput, match=f"`device` is '{device}', which this machine does not have; use 'cpu'"):
        kd.ConstrainedTrainer(student, [StoredTeacher("t", X.softmax(-1))], optimizer=sgd, device=device)


# ---- dictionaries of inputs, and positions that do not count ----


class Named(nn.Module):
    """A module of two inputs by name."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, features, shift):
        return self.head(features + shift)


NAMED = kd.Split("train", {"features": X, "shift": X.double() * 0, "more": X}, torch.zeros(N).long())
NO_NAMES = {
    "another name": (
        TorchTeacher("net", Named()),
        r"Teacher 'net' gets .*'features', 'shift', 'more', and cannot take .*",
    ),
    "a missing one": (
        TorchTeacher("net", Named(), ["features"]),
        r"cannot take them: missing a required argument: 'shift'",
    ),
    "another type": (
        TorchTeacher("net", Named(), ["features", "shift"]),
        r"Teacher 'net' computes in torch\.float32 and cannot read inputs\['shift'\] of torch\.float64",
    ),
    "numbers of columns": (
        TorchTeacher("net", Named(), [0]),
        r"columns is \[0\], and the inputs are a dictionary of 'feat",
    ),
    "an unknown name": (TorchTeacher("net", Named(), ["feature"]), r"no input 'feature' .* Did you mean 'features'"),
    "a classifier": (
        SklearnTeacher("forest", LogisticRegression().fit(X.numpy(), [0, 1] * (N // 2)), 2),
        r"Teacher 'forest' is a LogisticRegression, which reads one table of numbers, and .* 'features', 'shift', ",
    ),
}


@pytest.mark.parametrize("case", NO_NAMES)
def test_a_dictionary_that_a_teacher_cannot_take(case):
    teacher, message = NO_NAMES[case]
    with pytest.raises(kd.InvalidInput, match=message):
        teacher.log_probabilities(NAMED.batch(), "train")


def test_names_of_columns_need_a_dictionary():
    with pytest.raises(
        kd.InvalidInput, match=r"columns is \['features'\], and the inputs are one tensor; wanted numbers"
    ):
        TorchTeacher("net", Named(), ["features"]).log_probabilities(SPLIT.batch(), "train")


def test_rows_that_do_not_count_may_be_anything_of_any_teacher():
    counted = torch.arange(N) < 4
    split = kd.Split("train", X, torch.zeros(N).long(), mask=counted)
    junk = torch.full((N, 2), float("nan"))
    p_NV, logits_NV = (torch.where(counted[:, None], rows, junk) for rows in (X.softmax(-1), X))
    forest = LogisticRegression().fit(X.numpy(), [0, 1] * (N // 2))
    teachers = [
        CallableTeacher("p", lambda x: p_NV),
        CallableTeacher("logits", lambda x: logits_NV, "logits"),
        CallableTeacher("log p", lambda x: logits_NV.log_softmax(-1), "log_probabilities"),
        StoredTeacher("stored", p_NV),
        SklearnTeacher("forest", forest, 2),
    ]
    log_p_KV = TeacherEnsemble(teachers).log_probabilities(split.batch(), "train")
    torch.testing.assert_close(log_p_KV[counted][:, 0].exp(), X[counted].softmax(-1).double())
    assert torch.allclose(log_p_KV[~counted].exp(), torch.tensor(0.5).double())
    with pytest.raises(NotFinite, match="for example 4"):
        teachers[0].log_probabilities(kd.Split("train", X, torch.zeros(N).long()).batch(), "train")
