"""Teachers and data that change: those that are to move, those that were not to, and what is kept of the others."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import safekd as kd
from safekd.data import SplitCache
from safekd.teachers import CallableTeacher, SklearnTeacher, StoredTeacher, TeacherEnsemble, TorchTeacher
from safekd.training.trace import Callback

N = 12
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 2


def split(name: str = "train") -> kd.Split:
    return kd.Split(name, X.clone(), Y.clone())


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


class Average(Callback):
    """Moves a teacher towards the student after each evaluation."""

    def __init__(self, teacher: nn.Module, student: nn.Module, rate: float = 0.5) -> None:
        self.teacher, self.student, self.rate = teacher, student, rate

    def on_trace(self, point) -> None:
        with torch.no_grad():
            for own, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                own.lerp_(other, self.rate)


def trainer_for(student, teachers, lr=0.1, **more) -> kd.ConstrainedTrainer:
    return kd.ConstrainedTrainer(student, teachers, optimizer=torch.optim.SGD(student.parameters(), lr=lr), **more)


def kl_now(student: nn.Module, teacher) -> float:
    log_q = teacher(X).detach().log_softmax(-1)
    return float((log_q.exp() * (log_q - student(X).detach().log_softmax(-1))).sum(-1).mean())


def functions_of(module):
    """Ways in which a function of a user's may refer to a module."""

    class Asks:
        def __init__(self):
            self.net = module

        def __call__(self, x):
            return self.net(x)

        def ask(self, x):
            return self.net(x)

    return {
        "closure": lambda x: module(x),
        "module": module,
        "partial": functools.partial(lambda net, x: net(x), module),
        "bound method": Asks().ask,
        "callable": Asks(),
        "by way of a helper": lambda x: helper(x, {"net": module}),
        "list": (lambda nets: lambda x: nets[0](x))([module]),
        "default": lambda x, net=module: net(x),
    }


def helper(x, nets):
    return nets["net"](x)


WAYS = [*functions_of(nn.Identity()), "torch teacher"]


def moved_teacher(way: str, module: nn.Module, **more):
    if way == "torch teacher":
        return TorchTeacher("ema", module, **more)
    return CallableTeacher("ema", functions_of(module)[way], gives="logits", **more)


# teachers that are to move ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("told", ["moving", "no cache"])
@pytest.mark.parametrize("way", ["torch teacher", "closure"])
def test_a_moving_average_of_the_student_is_read_as_it_is(way, told, batch_size):
    student, average = linear(1), linear(0)
    teacher = moved_teacher(way, average, moving=told == "moving")
    ensemble = TeacherEnsemble([teacher], cache_limit=0 if told == "no cache" else 2**30)
    before = copy.deepcopy(average)
    trainer = trainer_for(student, ensemble, batch_size=batch_size)
    result = trainer.fit(split(), epochs=6, trace_every=1, callbacks=[FreezeLast(Average(average, student))])
    assert not torch.equal(before.weight, average.weight)
    assert result.point.loss == pytest.approx(kl_now(student, average), abs=1e-6)


class FreezeLast(Callback):
    """Lets another callback act on all but the last point, so that the last one is about what is left."""

    def __init__(self, other: Callback) -> None:
        self.other = other

    def on_start(self, run) -> None:
        self.last = run.steps

    def on_trace(self, point) -> None:
        if point.step < self.last:
            self.other.on_trace(point)


def test_a_teacher_that_moves_is_asked_once_each_batch_and_the_others_are_not():
    asked = {"still": 0, "moving": 0}

    def count(name):
        def function(x):
            asked[name] += len(x)
            return x

        return CallableTeacher(name, function, gives="logits", moving=name == "moving")

    trainer = trainer_for(linear(), [count("still"), count("moving")])
    trainer.fit(split(), epochs=10, trace_every=100)
    evaluations, steps = 2, 10
    assert asked == {"still": N, "moving": (evaluations + steps) * N}


def test_teachers_keep_their_order_where_some_of_them_move():
    teachers = [
        CallableTeacher(name, lambda x, k=k: x + k * torch.tensor([0.0, 1.0]), gives="logits", moving=k % 2 == 0)
        for k, name in enumerate("abc")
    ]
    ensemble, index = TeacherEnsemble(teachers), torch.tensor([5, 2])
    torch.testing.assert_close(
        ensemble.cached_log_probabilities(split(), split().batch(index)),
        ensemble.log_probabilities(split().batch(index), "train"),
    )
    assert ensemble.moving == ["a", "c"]


def test_a_rule_that_needs_the_variance_refuses_teachers_that_move():
    with pytest.raises(kd.InvalidInput, match=r"needs the variance .* teacher 'ema' moves"):
        trainer_for(
            linear(),
            [moved_teacher("closure", linear(), moving=True)],
            weights=kd.weights.Normalized(kd.weights.InverseVariance()),
        )


# teachers that were not to move -------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("way", WAYS)
def test_a_teacher_that_changes_without_saying_so_is_named(way, batch_size):
    student, average = linear(1), linear(0)
    trainer = trainer_for(student, [moved_teacher(way, average)], batch_size=batch_size)
    with pytest.raises(kd.InvalidInput, match=r"Teacher 'ema' has changed while .*moving=True"):
        trainer.fit(split(), epochs=6, trace_every=2, callbacks=[Average(average, student)])


def test_the_student_as_its_own_teacher_is_noticed():
    student = linear(1)
    trainer = trainer_for(student, [TorchTeacher("self", student), TorchTeacher("other", linear(0))])
    with pytest.raises(kd.InvalidInput, match=r"Teacher 'self' has changed .*'module\.weight'"):
        trainer.fit(split(), epochs=6, trace_every=2)


@pytest.mark.parametrize("change", [lambda w: w.neg_(), lambda w: w.copy_(w.flip(0)), lambda w: w[0, 0].add_(1e-6)])
def test_a_change_of_one_bit_or_of_signs_alone_is_noticed(change):
    module = linear()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) * torch.tensor([[1.0], [2.0]]))
    ensemble = TeacherEnsemble([TorchTeacher("net", module)])
    ensemble.recheck()
    ensemble.require_unchanged()
    with torch.no_grad():
        change(module.weight)
    with pytest.raises(kd.InvalidInput, match="Teacher 'net' has changed"):
        ensemble.require_unchanged()


def test_a_tensor_that_a_function_refers_to_is_looked_at():
    matrix = torch.eye(2)
    ensemble = TeacherEnsemble([CallableTeacher("f", lambda x: x @ matrix, gives="logits")])
    ensemble.recheck()
    matrix[0, 1] = 0.5
    with pytest.raises(kd.InvalidInput, match=r"Teacher 'f' has changed .*'matrix'"):
        ensemble.require_unchanged()


def test_a_function_that_keeps_a_record_of_its_calls_is_no_change():
    calls, kept = [], {}

    def function(x):
        calls.append(x)
        kept[len(x)] = x
        return x

    trainer = trainer_for(linear(), [CallableTeacher("f", function, gives="logits")])
    assert trainer.fit(split(), epochs=6, trace_every=1).point.finite


# the next fit -------------------------------------------------------------------------------------------------------


def change_module():
    module = linear()
    teacher = TorchTeacher("t", module)

    def change():
        with torch.no_grad():
            module.weight.neg_()

    return teacher, change


def change_text():
    module = nn.Softmax(dim=-1)  # any module with a number of its own
    module.scale = 1.0
    module.forward = lambda x: x * module.scale
    return TorchTeacher("t", module), lambda: setattr(module, "scale", -1.0)


def change_function():
    state = {"sign": 1.0}
    return CallableTeacher("t", lambda x: state["sign"] * x, gives="logits"), lambda: state.update(sign=-1.0)


def change_rows():
    rows = X.softmax(-1)
    return StoredTeacher("t", rows), lambda: rows.copy_((-X).softmax(-1))


def change_classifier():
    classifier = LogisticRegression().fit(X.double().numpy(), Y.numpy())
    return SklearnTeacher("t", classifier, 2), lambda: classifier.fit(X.double().numpy(), 1 - Y.numpy())


class Own:
    """A teacher of the user's own kind."""

    name = "t"

    def __init__(self):
        self.sign = 1.0

    def log_probabilities(self, batch, split):
        return (self.sign * batch.inputs).log_softmax(-1)


def change_own():
    own = Own()
    return own, lambda: setattr(own, "sign", -1.0)


@pytest.mark.parametrize(
    "make", [change_module, change_text, change_function, change_rows, change_classifier, change_own]
)
def test_a_second_fit_learns_from_the_teacher_as_it_is_then(make):
    teacher, change = make()
    student, data = linear(1), split()
    trainer = trainer_for(student, [teacher], lr=1e-30)
    first = trainer.fit(data, epochs=1).point.loss
    change()
    second = trainer.fit(data, epochs=1).point.loss
    fresh = trainer_for(student, [teacher], lr=1e-30).fit(data, epochs=1).point.loss
    assert second == pytest.approx(fresh, abs=1e-9)
    assert abs(second - first) > 1e-3


def test_a_second_fit_learns_from_the_data_as_they_are_then():
    student, data = linear(1), split()
    trainer = trainer_for(student, [TorchTeacher("t", linear())], lr=1e-30)
    first = trainer.fit(data, epochs=1).point.loss
    data.inputs.mul_(-3)
    second = trainer.fit(data, epochs=1).point.loss
    fresh = trainer_for(student, [TorchTeacher("t", linear())], lr=1e-30).fit(data, epochs=1).point.loss
    assert second == pytest.approx(fresh, abs=1e-9)
    assert abs(second - first) > 1e-3


def test_teachers_are_measured_anew_when_they_have_changed():
    teacher, change = change_function()
    ensemble, measure = TeacherEnsemble([teacher]), kd.safety.TruthProbability()
    first = kd.teachers.measure_teachers(ensemble, split(), measure).task_loss_MK
    change()
    assert not torch.allclose(kd.teachers.measure_teachers(ensemble, split(), measure).task_loss_MK, first)


class Counted(nn.Linear):
    """Counts the examples it is asked about, in a list: what lists hold is no part of a teacher."""

    def __init__(self):
        super().__init__(2, 2)
        self.asked = []

    def forward(self, inputs):
        self.asked.append(len(inputs))
        return super().forward(inputs)


def test_a_module_that_is_as_it_was_is_not_asked_again_about_the_same_data():
    """Nor about a copy of them: what is kept goes by content."""
    module = Counted()
    trainer = trainer_for(linear(1), [TorchTeacher("t", module)])
    for data in (split(), split(), (X.clone(), Y.clone())):
        trainer.fit(data, epochs=3)
    assert sum(module.asked) == N


def test_beyond_the_limit_each_example_of_a_batch_is_asked_about_once():
    """Nor is the first example asked about to see whether all would fit."""
    asked = []

    def function(x):
        asked.append(len(x))
        return x

    teachers = TeacherEnsemble([CallableTeacher("f", function, gives="logits")], cache_limit=8)
    trainer = trainer_for(linear(), teachers, batch_size=1)
    trainer.fit(split(), epochs=2, trace_every=1000)
    steps, evaluations = 2 * N, 3  # at the end the averaged student is read as well as the last
    assert sum(asked) == steps + evaluations * N


def test_an_example_is_worked_out_once_where_all_are_kept():
    worked = []

    def compute(batch):
        worked.extend(batch.place.tolist())
        return X[batch.place]

    cache, data = SplitCache(), split()
    for index in (torch.tensor([3, 1]), torch.arange(N), torch.tensor([0])):
        assert torch.equal(cache.rows(data, data.batch(index), compute), X[index])
    assert sorted(worked) == list(range(N))


def test_arrays_and_other_tensors_have_fingerprints():
    array = np.ones(3)
    ensemble = TeacherEnsemble([CallableTeacher("f", lambda x: x * float(array[0]), gives="logits")])
    ensemble.recheck()
    array[0] = -1
    with pytest.raises(kd.InvalidInput, match=r"Teacher 'f' has changed .*'array'"):
        ensemble.require_unchanged()
