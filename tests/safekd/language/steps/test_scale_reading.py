"""Multiplier scales from hidden states, against autograd."""

from __future__ import annotations

import torch

import safekd as kd
from safekd.language import LanguageStep, Logits
from safekd.safety import Margin, TruthProbability

from .test_language_step import CRITICAL, Model, make_batch


def test_sums_of_gradients_in_hidden_states_are_those_of_autograd():
    rules = [
        kd.SafetyConstraint("truth", TruthProbability(CRITICAL), 0.9),
        kd.SafetyConstraint("margin", Margin([1, 2]), 0.9, contexts=[0]),
    ]
    step, model, batch = LanguageStep(3, constraints=rules), Model(), make_batch()
    for _ in range(2):  # in the second step multipliers are above 0, and what constraints add has to come off
        hidden = model.hidden(batch).detach().requires_grad_()
        step.begin([batch])
        step.loss(hidden, model.head, model.outputs(batch), batch)
        found = step._scales
        step.finish()
    log_s_V = torch.log_softmax(hidden @ model.weight.t(), dim=-1)
    p_V = torch.stack([torch.softmax(o.logits, -1) for o in model.outputs(batch)]).mean(0)
    loss = batch.average_positions((p_V * (p_V.log() - log_s_V)).sum(-1))
    (of_loss,) = torch.autograd.grad(loss, hidden, create_graph=True)
    assert abs(float(found.squares[1] - of_loss.detach().square().sum())) < 1e-12
    for m, rule in enumerate(rules):
        sums = rule.sums(log_s_V, batch)
        (g,) = torch.autograd.grad(sums.surrogate_G.sum() / sums.count_G.sum(), hidden, retain_graph=True)
        (bent,) = torch.autograd.grad(of_loss, hidden, g, retain_graph=True)
        wanted = torch.stack([g.square().sum(), (g * bent).sum(), (g * of_loss).sum()]).detach()
        torch.testing.assert_close(found.rows[:, m], wanted, rtol=1e-5, atol=1e-12)


def test_a_row_without_gradient_waits():
    """A fresh student over a large vocabulary: p(y) is flat, and the multiplier does not wind up."""
    torch.manual_seed(0)
    vocabulary, rows = 5000, 64
    hidden = torch.zeros(4, 16, rows, dtype=torch.float64, requires_grad=True)
    head = kd.language.Head(torch.randn(vocabulary, rows, dtype=torch.float64) * 0.1)
    labels = torch.full((4, 16), 3)
    number = torch.arange(4)
    batch = kd.data.Batch(labels, labels, number * 0, number * 0, number)
    step = LanguageStep(1, constraints=[kd.SafetyConstraint("truth", TruthProbability([3]), 0.8)], horizon=1000)
    teacher = Logits(torch.randn(4, 16, vocabulary))
    for _ in range(30):  # the student does not move at all
        step.begin([batch])
        step.loss(hidden, head, [teacher], batch)
        record = step.finish()
    assert float(record.violation) > 0.79
    assert float(record.multipliers) < 10
