"""Students, optimizers and numbers that a trainer cannot work with: told in its own words, with the next move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from tests.support.problems import agreeing, at_least, trainer_for

X = torch.randn(33, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def trainer(student=None, optimizer=torch.optim.Adam, **more) -> kd.ConstrainedTrainer:
    torch.manual_seed(0)
    student = nn.Linear(4, 2) if student is None else student
    teacher = kd.teachers.CallableTeacher("t", lambda x: torch.stack([x[:, 0], -x[:, 0]], 1).double(), gives="logits")
    rule = kd.SafetyConstraint("c", kd.safety.TruthProbability([0]), 0.6)
    made = optimizer(student.parameters(), lr=0.01)
    return kd.ConstrainedTrainer(student, [teacher], constraints=[rule], optimizer=made, **more)


# ---- inputs that the student cannot read ----

UNREADABLE = {
    "float64 inputs": (
        X.double(),
        None,
        r"cannot read inputs of torch.float64; give the split inputs.float\(\), or make it",
    ),
    "arrays": (X.double().numpy(), None, "computes in torch.float32 and cannot read inputs of torch.float64"),
    "bytes": (X.to(torch.uint8), None, r"cannot read inputs of torch.uint8; give the split inputs.float\(\)\."),
    "half inputs": (X.half(), None, "cannot read inputs of torch.float16"),
    "float64 student": (X, lambda: nn.Linear(4, 2).double(), r"inputs.to\(torch.float64\)"),
    "convolution": (
        X.double(),
        lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 4), nn.Flatten()),
        "float64",
    ),
    "token numbers": (
        X,
        lambda: nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(8, 2)),
        r"looks its inputs up in a table and cannot read inputs of torch.float32; give .* inputs.long",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_inputs_that_the_student_cannot_read(case):
    inputs, student, message = UNREADABLE[case]
    module = nn.Linear(4, 2) if student is None else student()
    with pytest.raises(InvalidInput, match=f"The student .*{message}"):
        trainer(module).fit((inputs, Y), epochs=1) if case != "arrays" else trainer(module).fit(
            kd.Split("train", inputs, Y), epochs=1
        )
    with pytest.raises(InvalidInput, match=f"The student .*{message}"):
        kd.certify(module, trainer().constraints[0], kd.Split("held_out", inputs, Y))
    with pytest.raises(InvalidInput, match=f"Teacher 'big' .*{message}"):
        kd.teachers.TorchTeacher("big", module).log_probabilities(kd.Split("train", inputs, Y).batch(), "train")


def test_an_error_of_the_students_own_is_its_own():
    class Wrong(nn.Linear):
        def forward(self, x):
            raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="out of cheese"):
        trainer(Wrong(4, 2)).fit((X, Y), epochs=1)


# ---- batches ----


def normed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 4), (16, 2), (32, 1), (11, 3)])
@pytest.mark.parametrize("independent", [False, True])
def test_a_last_example_joins_the_batch_before_under_batch_normalization(batch_size, steps, independent):
    student = normed()
    sizes = []
    student[1].register_forward_pre_hook(lambda layer, x: sizes.append(len(x[0])) if layer.training else None)
    result = trainer(student, batch_size=batch_size, independent_batches=independent).fit(
        (X, Y), epochs=3, trace_every=99
    )
    assert result.point.step == 3 * steps
    assert min(sizes) > 1
    assert sum(sizes) == 3 * 33 * (1 + (independent and steps > 1))


def test_other_students_keep_their_last_batch():
    assert trainer(batch_size=8).fit((X, Y), epochs=3).point.step == 15


@pytest.mark.parametrize("data", [(X, Y), (X[:1], Y[:1] * 0)])
def test_one_example_says_nothing_to_a_batch_normalization(data):
    with pytest.raises(
        InvalidInput, match=r"has a batch normalization in training mode.*raise `batch_size`, or freeze"
    ):
        trainer(normed(), batch_size=1).fit(data, epochs=1)


@pytest.mark.parametrize("size", [2.5, "8", True, 8.0, float("nan")])
def test_a_batch_size_that_is_no_whole_number(size):
    with pytest.raises(InvalidInput, match=r"`batch_size` is .*; wanted a whole number of at least 1, or None"):
        trainer(batch_size=size)


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one(size):
    with pytest.raises(InvalidInput, match=f"`batch_size` is {size}; wanted at least 1, or None"):
        trainer(batch_size=size)


# ---- seeds ----


@pytest.mark.parametrize("seed", [0, 2**31, 2**53, 2**62 + 7, 2**63 - 1, np.int64(3)])
def test_every_whole_number_from_0_is_a_seed(seed):
    run = lambda: trainer(batch_size=np.int64(8), seed=seed).fit(  # noqa: E731
        (X, Y), epochs=2, stationarity=kd.training.Sampled(batches=4, batch_size=4)
    )
    assert run().point.loss == run().point.loss
    assert kd.certify(nn.Linear(4, 2), trainer().constraints[0], (X, Y), seed=seed).count == int((Y == 0).sum())


def test_large_seeds_differ():
    losses = {trainer(batch_size=8, seed=seed).fit((X, Y), epochs=2).point.loss for seed in (2**53, 2**53 + 1, 1)}
    assert len(losses) == 3


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, None, 2**63, 2**64])
def test_a_seed_that_is_none(seed):
    with pytest.raises(InvalidInput, match=r"`seed` is .*; wanted a whole number from 0 to 2\*\*63 - 1"):
        trainer(seed=seed)
    with pytest.raises(InvalidInput, match="`seed` is"):
        kd.certify(nn.Linear(4, 2), trainer().constraints[0], (X, Y), seed=seed)


# ---- optimizers, gradients, classes, folders ----


def test_an_optimizer_that_needs_a_closure_is_refused_at_once():
    with pytest.raises(
        InvalidInput, match=r"LBFGS.step needs a closure .*take torch.optim.Adam or SGD.*solvers.minimize"
    ):
        trainer(optimizer=torch.optim.LBFGS)


class Cut(nn.Linear):
    """Gives logits without a gradient, from the nth call on."""

    def __init__(self, calls: int):
        super().__init__(4, 2)
        self.calls = calls

    def forward(self, x):
        self.calls -= 1
        return super().forward(x).detach() if self.calls < 0 else super().forward(x)


@pytest.mark.parametrize("calls", [0, 6])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_logits_without_a_gradient(calls, batch_size):
    with pytest.raises(InvalidInput, match=r"The student's logits carry no gradient.*look for detach\(\)"):
        trainer(Cut(calls), batch_size=batch_size).fit((X, Y), epochs=20)


class Grown(nn.Linear):
    """Gives one class more from the nth call on."""

    def __init__(self, calls: int):
        super().__init__(4, 3)
        self.calls = calls

    def forward(self, x):
        self.calls -= 1
        return super().forward(x)[:, : 3 if self.calls < 0 else 2]


@pytest.mark.parametrize("calls", [0, 1, 6])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_a_student_that_gives_more_classes(calls, batch_size):
    with pytest.raises(InvalidInput, match="The student gives 3 classes, the teachers give 2"):
        trainer(Grown(calls), batch_size=batch_size).fit((X, Y), epochs=20)


def test_an_empty_folder_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="`run_dir` is ''; wanted a folder for the files of the run, or None"):
        trainer().fit((X, Y), epochs=1, run_dir="")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("microbatch_size", [None, 8])
def test_a_compiled_student_is_trained_as_the_module_in_it(microbatch_size, tmp_path):
    """Where torch.compile keeps its module under another name, ``COMPILED`` in safekd/distributed has to change."""
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        student = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        given = torch.compile(student, backend="aot_eager") if compiled else student
        trainer = trainer_for(
            at_least(0.6),
            student=given,
            teachers=agreeing(examples=30),
            batch_size=16,
            microbatch_size=microbatch_size,
        )
        x = torch.randn(30, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        data = kd.Split("train", x, torch.arange(30) % 3)
        results.append(trainer.fit(data, epochs=5, run_dir=tmp_path / str(compiled)))
    plain, other = results
    assert other.trace["distillation_loss"].tolist() == pytest.approx(plain.trace["distillation_loss"].tolist())
    assert list(other.student.state_dict()) == list(plain.student.state_dict())
    like = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    kd.FitResult.load(tmp_path / "True", like)


def test_a_student_that_recomputes_its_activations():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)

    result = trainer_for(at_least(0.6), student=Checkpointed(), teachers=agreeing(examples=30)).fit(
        kd.Split("train", torch.randn(30, 3, dtype=torch.float64), torch.zeros(30).long()), epochs=5
    )
    assert result.point.residuals.primal < 1
