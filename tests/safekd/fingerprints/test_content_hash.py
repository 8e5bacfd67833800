"""Fingerprints: the same for what behaves alike, another for what does not, in every process."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch import nn
from torch.nn import functional

import safekd as kd
from safekd.fingerprints import describe, fingerprint, fingerprint_structure
from tests.support import ROOT

SCALE = 1.0


def reads_a_global(x):
    return SCALE * x


def net(act=torch.tanh, temperature=1.0, seed=0):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 3)
            self.drop = nn.Dropout(0.1)

        def forward(self, x):
            return act(self.inner(x)) / temperature

    torch.manual_seed(seed)
    return Net()


def changed(module, change):
    change(module)
    return module


def closing_over(value):
    return lambda x: x * value


def counting():
    seen = []

    def count(x):
        seen.append(len(x))
        return x

    return count


class Weigh:
    def __init__(self, power):
        self.power = power

    def __call__(self, x):
        return x**self.power


@dataclass(frozen=True)
class Weights:
    values: object
    power: float = 1.0


class Kind(Enum):
    ONE = 1
    TWO = 2


def fitted(kind, y):
    x = np.random.default_rng(0).normal(size=(30, 2))
    return kind().fit(x, (x[:, 0] > y).astype(int))


ALIKE = {
    "tensors": lambda: torch.arange(6.0).reshape(2, 3),
    "a strided view and a copy": lambda: torch.arange(6.0).reshape(2, 3).T,
    "modules": net,
    "functions": lambda: closing_over(2.0),
    "lambdas over tensors": lambda: closing_over(torch.ones(3)),
    "partials": lambda: functools.partial(functional.kl_div, reduction="sum"),
    "objects": lambda: Weigh(2.0),
    "records": lambda: Weights(torch.ones(2)),
    "dictionaries": lambda: {"a": 1, "b": [1, 2.0, None]},
    "sets of text": lambda: {"alpha", "beta", "gamma"},
    "classifiers": lambda: fitted(LogisticRegression, 0.0),
    "trees": lambda: fitted(DecisionTreeClassifier, 0.0),
    "generators of chance": lambda: torch.Generator().manual_seed(3),
    "rules of the library": lambda: kd.weights.Unified(
        token=kd.weights.EntropyDecay(), polytope=kd.WeightPolytope(2, lower=0.1)
    ),
    "locks, of which nothing can be told": threading.Lock,
}


@pytest.mark.parametrize("what", ALIKE)
def test_what_behaves_alike_has_one_fingerprint(what):
    assert fingerprint(ALIKE[what]()) == fingerprint(ALIKE[what]())


DIFFERENT = {
    "a last digit": (torch.tensor([1.0]), torch.tensor([1.0000001])),
    "zero and minus zero": (0.0, -0.0),
    "type": (torch.ones(2), torch.ones(2).double()),
    "shape": (torch.ones(2, 3), torch.ones(3, 2)),
    "a whole number and one with a point": (1, 1.0),
    "truth": (True, 1),
    "weights": (net(seed=0), net(seed=1)),
    "activation": (net(), net(torch.relu)),
    "a number in forward": (net(), net(temperature=2.0)),
    "dropout": (net(), changed(net(), lambda m: setattr(m.drop, "p", 0.2))),
    "a frozen layer": (net(), changed(net(), lambda m: m.inner.requires_grad_(False))),
    "eval mode": (net(), changed(net(), lambda m: m.drop.eval())),
    "a buffer": (net(), changed(net(), lambda m: m.register_buffer("b", torch.ones(1)))),
    "a hook": (net(), changed(net(), lambda m: m.register_forward_hook(lambda m, i, o: 2 * o))),
    "an attribute": (net(), changed(net(), lambda m: setattr(m, "gain", 2.0))),
    "a closure": (closing_over(1.0), closing_over(2.0)),
    "a closure over a tensor": (closing_over(torch.ones(2)), closing_over(torch.zeros(2))),
    "a closure over floats": (closing_over([1.0, 2.0]), closing_over([1.0, 3.0])),
    "a default": (lambda x, t=1.0: x / t, lambda x, t=2.0: x / t),
    "a keyword default": (lambda x, *, t=1.0: x / t, lambda x, *, t=2.0: x / t),
    "code": (lambda x: x + 1, lambda x: x + 2),
    "a function inside": (lambda x: [(lambda y: y + 1)(x)], lambda x: [(lambda y: y + 2)(x)]),
    "functions of a library": (torch.tanh, torch.relu),
    "what a partial holds": (functools.partial(closing_over, 1.0), functools.partial(closing_over, 2.0)),
    "a method's object": (Weigh(1.0).__call__, Weigh(2.0).__call__),
    "an object's state": (Weigh(1.0), Weigh(2.0)),
    "a record's field": (Weights(torch.ones(2)), Weights(torch.zeros(2))),
    "members": (Kind.ONE, Kind.TWO),
    "what a classifier was fitted to": (fitted(LogisticRegression, 0.0), fitted(LogisticRegression, 0.5)),
    "what a tree was fitted to": (fitted(DecisionTreeClassifier, 0.0), fitted(DecisionTreeClassifier, 0.5)),
    "state of chance": (np.random.default_rng(0), np.random.default_rng(1)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_behaves_otherwise_has_another(what):
    one, other = DIFFERENT[what]
    assert fingerprint(one) != fingerprint(other)


def test_a_global_that_a_function_reads_counts(monkeypatch):
    before = fingerprint(reads_a_global)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 2.0)
    assert fingerprint(reads_a_global) != before


def test_names_comments_and_places_do_not_count():
    def one(x):
        """Say it."""
        # why
        return x + 1

    def other(x):
        return x + 1

    assert fingerprint(one) == fingerprint(other)


def test_counting_ones_calls_decides_nothing():
    function = counting()
    before = fingerprint(function)
    function([1, 2])
    assert fingerprint(function) == before


def test_what_holds_itself_has_a_fingerprint():
    ring: list[object] = [1]
    ring.append(ring)
    deep: list[object] = []
    for _ in range(10**5):
        deep = [deep]
    assert len(fingerprint(ring)) == len(fingerprint(deep)) == 12


def test_structure_is_told_apart_from_weights():
    assert fingerprint_structure(net(seed=0)) == fingerprint_structure(net(seed=1))
    assert fingerprint_structure(net()) != fingerprint_structure(net(torch.relu))
    assert fingerprint_structure(net()) == fingerprint_structure(
        changed(net(), lambda m: m.inner.requires_grad_(False))
    )


def test_a_description_is_readable():
    assert describe(0.5) == 0.5
    assert describe(None) is None
    text = describe(kd.divergences.ForwardKL(2.0))
    assert text.startswith("ForwardKL(temperature=2.0) [")
    assert " at 0x" not in describe(Weigh(1.0))
    assert len(describe(list(range(1000)))) < 100


def test_every_process_gives_the_same():
    code = (
        "from tests.safekd.fingerprints.test_content_hash import ALIKE\nfrom safekd.fingerprints import fingerprint\n"
        "print([fingerprint(make()) for make in ALIKE.values()])"
    )
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # than that of this process
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": other}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout == f"{[fingerprint(make()) for make in ALIKE.values()]}\n"
