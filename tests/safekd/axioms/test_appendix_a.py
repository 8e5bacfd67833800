"""The toy of the paper's Appendix A: two teachers, three tokens, the truth is token a.

The paper weighs by 1/H with entropies 0.68 and 1.52 and reports q(a) = 0.68.  Those numbers are no entropies of its
own distributions, neither in nats (0.6129, 1.0805) nor in bits (0.8842, 1.5589), nor is their ratio, which is all that
1/H depends on: 0.447 in the paper, 0.567 in truth.  So both results are reproduced here, and they differ:

    entropies       weights          q(a)
    none            (.500, .500)     .600     uniform
    of the paper    (.691, .309)     .676     printed there as 0.69, 0.31 and 0.68
    true            (.638, .362)     .655
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy

from safekd.pooling import arithmetic_pool
from safekd.weights import EntropyInverse, Signals, Unified, Uniform
from solvers.polytope import WeightPolytope

P_KV = torch.tensor([[0.80, 0.15, 0.05], [0.40, 0.35, 0.25]], dtype=torch.float64)
PRINTED = torch.tensor([0.68, 1.52], dtype=torch.float64)
SIMPLEX = WeightPolytope(2)


def weights_and_pool(rule, signals):
    w_K = Unified(token=rule, polytope=SIMPLEX)(signals)
    return w_K.tolist(), arithmetic_pool(P_KV.log(), w_K).exp().tolist()


def test_the_printed_entropies_are_neither_nats_nor_bits():
    nats = Signals(log_p=P_KV.log()).entropy
    assert nats.tolist() == pytest.approx([0.6129, 1.0805], abs=5e-5)
    assert nats.tolist() == pytest.approx(entropy(P_KV.numpy(), axis=-1).tolist())
    bits = nats / math.log(2)
    assert bits.tolist() == pytest.approx([0.8842, 1.5589], abs=5e-5)
    assert (nats - PRINTED).abs().min() > 0.06
    assert (bits - PRINTED).abs().min() > 0.03


def test_no_unit_explains_them():
    """A unit scales both entropies alike, and the rule 1/H does not see it."""
    true = Signals(log_p=P_KV.log()).entropy
    assert float(PRINTED[0] / PRINTED[1]) == pytest.approx(0.447, abs=5e-4)
    assert float(true[0] / true[1]) == pytest.approx(0.567, abs=5e-4)


def test_uniform():
    w, q = weights_and_pool(Uniform(), Signals(log_p=P_KV.log()))
    assert w == [0.5, 0.5]
    assert q == pytest.approx([0.60, 0.25, 0.15])


def test_adaptive_with_the_true_entropies():
    w, q = weights_and_pool(EntropyInverse(), Signals(log_p=P_KV.log()))
    assert w == pytest.approx([0.638, 0.362], abs=5e-4)
    assert q[0] == pytest.approx(0.655, abs=5e-4)


def test_adaptive_with_the_entropies_of_the_paper():
    w, q = weights_and_pool(EntropyInverse(), Signals(log_p=P_KV.log(), entropy=PRINTED))
    assert w == pytest.approx([0.691, 0.309], abs=5e-4)
    assert q == pytest.approx([0.68, 0.21, 0.11], abs=5e-3)  # as printed
    assert q[0] == pytest.approx(0.676, abs=5e-4)
