"""What decides a sweep: a change of any of it is refused by name, and two experiments never share a run_id."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.teachers import CallableTeacher, SklearnTeacher, StoredTeacher, TorchTeacher
from tests.support.problems import at_least

N = 24
INPUTS = torch.linspace(-1, 1, N)[:, None].repeat(1, 2)
DATA = (INPUTS, torch.arange(N) % 3)
SWEEP = {"targets": [0.4, 0.5], "epochs": 4, "tolerance": 1e-3}


def table(row=None):
    """A table of thirds, in which one row may say something else."""
    rows = torch.full((N, 3), 1 / 3)
    if row is not None:
        rows[row] = torch.tensor([0.3334, 0.3333, 0.3333])
    return rows


def student(act=torch.tanh, temperature=1.0, seed=0, buffer=1.0, frozen=False, modes=True):
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 3)
            self.temperature = temperature
            self.register_buffer("gain", torch.tensor(buffer))

        def forward(self, x):
            return self.gain * self.b(act(self.a(x))) / self.temperature

    torch.manual_seed(seed)
    made = Student()
    made.a.requires_grad_(not frozen)
    made.b.train(modes)
    return made


def linear_teacher(weight):
    module = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.5)
        module.weight[0, 0] = weight
    return TorchTeacher("t", module)


def says(power):
    return CallableTeacher("t", lambda x: torch.softmax(power * torch.stack([x[:, 0], -x[:, 0], 0 * x[:, 0]], 1), 1))


def classifier(depth):
    from sklearn.tree import DecisionTreeClassifier

    fitted = DecisionTreeClassifier(max_depth=depth, random_state=0)
    return SklearnTeacher("t", fitted.fit(INPUTS.numpy(), (np.arange(N) // 8) % 3), classes=3)


def scaled(t):
    def divergence(log_q, logits):
        log_p = torch.log_softmax(logits / t, -1)
        return (log_q.exp() * (log_q - log_p)).sum(-1)

    return divergence


def weigh(values):
    def rule(signals):
        w = torch.as_tensor(values, dtype=torch.float32).expand(*signals.log_p.shape[:-1])
        return w / w.sum(-1, keepdim=True)

    return rule


def lambda_rate(factor):
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: factor**epoch)


def groups(rate):
    return lambda made: torch.optim.Adam([{"params": made.a.parameters()}, {"params": made.b.parameters(), "lr": rate}])


OF_STUDENT = ("act", "temperature", "seed", "buffer", "frozen", "modes")


def make(*, teachers=None, optimizer=None, scheduler=None, constraint=at_least, **more):
    ours = {name: more.pop(name) for name in OF_STUDENT if name in more}

    def make_trainer(threshold):
        made = student(**ours)
        adam = torch.optim.Adam(made.parameters(), lr=0.05) if optimizer is None else optimizer(made)
        return kd.ConstrainedTrainer(
            made,
            [StoredTeacher("one", table()), *(teachers or [says(1.0)])],
            constraints=[constraint(threshold)],
            optimizer=adam,
            scheduler=None if scheduler is None else scheduler(adam),
            **more,
        )

    return make_trainer


def sweep(folder=None, data=DATA, resume=None, fit=None, **more):
    return kd.trace_frontier(make(**more), data, run_dir=folder, resume=resume, **SWEEP, **(fit or {}))


def relabeled():
    labels = DATA[1].clone()
    labels[20] = 0
    return INPUTS, labels


CHANGES = {
    "a teacher's table, late": (
        {"teachers": [StoredTeacher("t", table())]},
        {"teachers": [StoredTeacher("t", table(20))]},
        '`teacher_probabilities` was {"t"',
    ),
    "a teacher's module": (
        {"teachers": [linear_teacher(0.5)]},
        {"teachers": [linear_teacher(0.5001)]},
        "`teacher_probabilities`",
    ),
    "a teacher's function": ({}, {"teachers": [says(1.001)]}, '`teacher_probabilities` was {"t"'),
    "a teacher's classifier": ({"teachers": [classifier(1)]}, {"teachers": [classifier(2)]}, "`teacher_probabilities`"),
    "a teacher more": ({}, {"teachers": [says(1.0), StoredTeacher("u", table())]}, "`trainer.teachers` was"),
    "the divergence": ({}, {"divergence": scaled(1.0)}, "`trainer.divergence` was .*ForwardKL"),
    "the pool": ({}, {"pool": "geometric"}, "`trainer.pool` was .*arithmetic_pool.* now .*geometric_pool"),
    "its temperature": ({"divergence": scaled(1.0)}, {"divergence": scaled(2.0)}, "`trainer.divergence` was"),
    "the temperature of a record": (
        {"divergence": kd.divergences.ForwardKL(1.0)},
        {"divergence": kd.divergences.ForwardKL(2.0)},
        r"`trainer.divergence` was .*1.0.* now .*2.0",
    ),
    "what a partial holds": (
        {"divergence": functools.partial(lambda q, p, t: scaled(t)(q, p), t=1.0)},
        {"divergence": functools.partial(lambda q, p, t: scaled(t)(q, p), t=2.0)},
        "`trainer.divergence` was",
    ),
    "the student's temperature": ({}, {"temperature": 2.0}, "`trainer.student_structure` was"),
    "its activation": ({}, {"act": torch.relu}, "`trainer.student_structure` was"),
    "an activation of one's own": (
        {"act": lambda x: x},
        {"act": lambda x: 1.01 * x},
        "`trainer.student_structure` was",
    ),
    "a frozen layer": ({}, {"frozen": True}, r'`trainer.frozen` was \[\] and is now \["a.weight", "a.bias"\]'),
    "a layer in eval mode": ({}, {"modes": False}, r'`trainer.in_eval_mode` was \[\] and is now \["b"\]'),
    "first weights": ({}, {"seed": 1}, "`trainer.student_start` was"),
    "a buffer": ({}, {"buffer": 1.5}, "`trainer.student_start` was"),
    "a weighting function": (
        {"weights": weigh((1.0, 2.0))},
        {"weights": weigh((1.0, 2.1))},
        "`trainer.weighting_rule` was",
    ),
    "a weighting function's list": (
        {"weights": weigh([1.0, 2.0])},
        {"weights": weigh([1.0, 2.1])},
        "`trainer.weighting_rule` was",
    ),
    "what only an evaluation shows": ({"weights": weigh([1, 2])}, {"weights": weigh([1, 3])}, "`first_pass.loss` was"),
    "a weighting rule": (
        {"weights": kd.weights.Uniform()},
        {"weights": weigh((1.0, 3.0))},
        "`trainer.weighting_rule` was",
    ),
    "weight decay": (
        {},
        {"optimizer": lambda s: torch.optim.Adam(s.parameters(), lr=0.05, weight_decay=0.1)},
        "`trainer.optimizer.weight_decay` was 0",
    ),
    "the rate of a further group": (
        {"optimizer": groups(0.1)},
        {"optimizer": groups(0.2)},
        "`trainer.optimizer.further_groups` was",
    ),
    "what the optimizer holds": (
        {},
        {"optimizer": lambda s: torch.optim.Adam(s.b.parameters(), lr=0.05)},
        "`trainer.optimizer.parameters` was",
    ),
    "a scheduler": ({}, {"scheduler": lambda_rate(0.9)}, '`trainer.scheduler` was null and is now "LambdaLR'),
    "its function": ({"scheduler": lambda_rate(0.9)}, {"scheduler": lambda_rate(0.8)}, "`trainer.scheduler` was"),
    "the dual method": ({}, {"dual": kd.PlainAscent()}, '`trainer.dual.kind` was "PIGain" and is now "PlainAscent"'),
    "critical classes": ({}, {"critical_classes": [2]}, r"`trainer.critical_classes` was \[0\] and is now \[0, 2\]"),
    "the measure of the constraint": (
        {},
        {"constraint": functools.partial(at_least, critical=1)},
        "`trainer.constraints` was",
    ),
    "independent batches": (
        {"batch_size": 8},
        {"batch_size": 8, "independent_batches": True},
        "`trainer.independent_batches` was false",
    ),
    "a label": ({}, {"data": relabeled()}, "`data.train` was"),
    "a context": ({}, {"data": kd.Split("train", *DATA, context=torch.arange(N) % 2)}, "`data.train` was"),
    "how gradients are read": (
        {},
        {"fit": {"stationarity": kd.training.Sampled(batches=4, batch_size=8)}},
        "`fit.stationarity` was null",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_refused_by_name_and_gets_another_run_id(what, tmp_path):
    one, other, message = CHANGES[what]
    first = sweep(tmp_path / "run", **one)
    csv = (tmp_path / "run" / "frontier.csv").read_bytes()
    for resume in (None, "auto"):
        with pytest.raises(kd.InvalidInput, match="holds points of another sweep: .*" + message):
            sweep(tmp_path / "run", resume=resume, **other)
    assert (tmp_path / "run" / "frontier.csv").read_bytes() == csv
    again = sweep(tmp_path / "run", resume="auto", **one)  # nothing changed
    assert again.table.equals(first.table)
    assert again.meta["run_id"] == first.meta["run_id"] != sweep(**other).meta["run_id"]


def test_many_changes_are_told_in_a_message_that_can_be_read(tmp_path):
    sweep(tmp_path / "run")
    with pytest.raises(kd.InvalidInput) as caught:
        sweep(tmp_path / "run", resume="auto", seed=1, temperature=2.0, frozen=True, batch_size=7, teachers=[says(3.0)],
              optimizer=lambda s: torch.optim.SGD(s.parameters(), lr=0.1), scheduler=lambda_rate(0.5))  # fmt: skip
    assert "; and " in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_another_number_of_threads_is_named_with_the_way_back(tmp_path):
    kd.trace_frontier(make(), DATA, run_dir=tmp_path / "run", threads=1, **SWEEP)
    with pytest.raises(kd.InvalidInput, match="`threads` was 1 and is now 2; give threads=1, or `jobs` as before"):
        kd.trace_frontier(make(), DATA, run_dir=tmp_path / "run", threads=2, resume="auto", **SWEEP)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again = kd.trace_frontier(make(), DATA, run_dir=tmp_path / "run", threads=1, resume="auto", **SWEEP)
    finally:
        torch.set_num_threads(before)
    assert len(again.table) == 3


def test_listeners_and_call_counts_change_nothing(tmp_path):
    calls = []

    def counted(x):
        calls.append(len(x))
        return torch.relu(x)

    first = sweep(tmp_path / "run", act=counted, fit={"on_trace": calls.append})
    again = sweep(tmp_path / "run", act=counted, resume="auto", fit={"on_trace": print})
    assert again.table.equals(first.table)


def test_the_record_can_be_read(tmp_path):
    sweep(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert set(record) == {"sweep", "epochs", "fit", "threads", "libraries", "data", "trainer", "teacher_probabilities",
                           "first_pass", "sha256"}  # fmt: skip
    assert record["trainer"]["student"]["a.weight"] == [4, 2]
    assert record["libraries"]["torch"] == torch.__version__
