"""Students and optimizers with which a run cannot come out as it is meant to are told before it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import safekd as kd
from safekd.safety import TruthProbability
from tests.support.problems import at_least, one_each, trainer_for


def fit(student, optimizer=None, threshold=0.6, inputs=None, epochs=3):
    torch.manual_seed(0)
    inputs = torch.randn(20, 4) if inputs is None else inputs
    train = kd.Split("train", inputs, torch.arange(20) % 3)
    teacher = kd.teachers.StoredTeacher("t", torch.softmax(torch.randn(20, 3), -1))
    rules = [] if threshold is None else [kd.SafetyConstraint("a", TruthProbability([0]), threshold)]
    make = (lambda p: torch.optim.Adam(p, lr=0.05)) if optimizer is None else optimizer
    trainer = kd.ConstrainedTrainer(student, [teacher], constraints=rules, optimizer=make(student.parameters()))
    return trainer.fit(train, epochs=epochs)


def net(*last):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 3), *last)


# weight decay ---------------------------------------------------------------------------------------------------------

DECAYING = {
    "AdamW by default": lambda p: torch.optim.AdamW(p),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1e-4),
    "one group": lambda p: torch.optim.Adam([{"params": list(p), "weight_decay": 0.1}], lr=0.1),
}


@pytest.mark.parametrize("name", DECAYING)
def test_weight_decay_beside_constraints_is_warned_of(name):
    with pytest.warns(kd.SafekdWarning, match=r"(AdamW|SGD|Adam) has weight_decay=.*beside the KKT point.*Set weight_"):
        fit(net(), DECAYING[name])


def test_without_decay_or_without_constraints_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [
            fit(net()),
            fit(net(), lambda p: torch.optim.AdamW(p, weight_decay=0.0)),
            fit(net(), DECAYING["SGD"], threshold=None),
        ]
    assert [len(result.multipliers) for result in results] == [1, 1, 0]


def test_what_the_warning_says_of_decay_is_so():
    """The residual stays where it is warned that it does, and the next move names the cause."""
    trainer = trainer_for(at_least(0.6))
    trainer.problem.optimizer.param_groups[0]["weight_decay"] = 0.05
    with pytest.warns(kd.SafekdWarning, match=r"weight_decay=0.05"):
        result = trainer.fit(one_each(), epochs=500)
    assert result.status == "budget_spent"
    assert result.residuals.stationarity > 0.01
    assert "weight_decay, now 0.05" in result.next_move
    assert trainer_for(at_least(0.6)).fit(one_each(), epochs=500).status == "converged"


# probabilities in place of logits -------------------------------------------------------------------------------------


class Functional(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return functional.softmax(self.inside(x), dim=-1)


PROBABILITIES = {
    "Softmax": lambda: net(nn.Softmax(-1)),
    "functional": lambda: Functional(net()),
    "after training in half": lambda: net(nn.Softmax(-1)).to(torch.bfloat16),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_student_that_ends_in_softmax_is_warned_of(name):
    student = PROBABILITIES[name]()
    inputs = torch.randn(20, 4).to(next(student.parameters()).dtype)
    with pytest.warns(
        kd.SafekdWarning, match="student gives probabilities: .*none gets more than 0.576.*Drop its last"
    ):
        result = fit(student, inputs=inputs, epochs=100)
    assert result.point.readings[0].measured <= 0.58


@pytest.mark.parametrize(
    "last", [nn.LogSoftmax(-1), nn.Sigmoid(), nn.Tanh(), nn.ReLU()], ids=lambda m: type(m).__name__
)
def test_other_outputs_are_logits(last):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fit(net(last))
    assert result.point.finite


def test_log_probabilities_train_as_logits_do():
    plain, logs = fit(net(), epochs=400), fit(net(nn.LogSoftmax(-1)), epochs=400)
    assert logs.status == plain.status
    assert logs.point.loss == pytest.approx(plain.point.loss, abs=1e-4)


# sparse gradients -----------------------------------------------------------------------------------------------------


class Bag(nn.Module):
    def __init__(self, kind=nn.EmbeddingBag, **more):
        super().__init__()
        self.bag, self.last = kind(30, 4, **more), nn.Linear(4, 3)

    def forward(self, x):
        hidden = self.bag(x)
        return self.last(hidden if hidden.ndim == 2 else hidden.mean(1))


TOKENS = torch.arange(100).reshape(20, 5) % 30


@pytest.mark.parametrize("kind", [nn.EmbeddingBag, nn.Embedding])
def test_sparse_embeddings_are_refused_by_name(kind):
    with pytest.raises(
        kd.InvalidInput, match=rf"'bag' of the student is a {kind.__name__} with sparse=True.*sparse=Fal"
    ):
        fit(Bag(kind, sparse=True), lambda p: torch.optim.SGD(p, lr=0.1), inputs=TOKENS)


@pytest.mark.parametrize("kind", [nn.EmbeddingBag, nn.Embedding])
def test_dense_embeddings_train(kind):
    result = fit(Bag(kind), inputs=TOKENS, epochs=800)
    assert result.status in ("converged", "budget_spent")
    assert result.residuals.primal < 0.05


def test_a_frozen_sparse_embedding_is_no_obstacle():
    student = Bag(sparse=True)
    student.bag.weight.requires_grad_(False)
    assert fit(student, inputs=TOKENS).point.step == 3


def test_sparse_gradients_from_elsewhere_are_refused_too():
    class Functionally(Bag):
        def forward(self, x):
            return self.last(functional.embedding(x, self.bag.weight, sparse=True).mean(1))

    with pytest.raises(kd.InvalidInput, match="A gradient is sparse"):
        fit(Functionally(), lambda p: torch.optim.SGD(p, lr=0.1), inputs=TOKENS)
