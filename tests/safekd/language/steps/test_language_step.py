"""Steps of a language model under constraints: microbatches, processes, states, and the gradient of the Lagrangian."""

from __future__ import annotations

import threading

import pytest
import torch

import safekd as kd
from safekd.data import Batch
from safekd.distributed import Ranks
from safekd.language import Head, Hidden, LanguageStep, Logits, shift_labels
from safekd.safety import KLBall, LogTruthProbability, TruthProbability, UnsafeMass
from safekd.weights import Conforming, EntropyDecay

V, H, K, T = 23, 6, 3, 7
CRITICAL = [2, 3, 5]


class Model:
    """A student of one layer, and teachers that are tables, all in float64."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn(V, H, generator=generator, dtype=torch.float64).requires_grad_()
        self.weight = torch.randn(V, H, generator=generator, dtype=torch.float64).mul_(0.3).requires_grad_()
        self.tables = torch.randn(K, V, V, generator=generator, dtype=torch.float64)
        self.optimizer = torch.optim.Adam(self.parameters, lr=0.05)

    @property
    def parameters(self):
        return [self.embedding, self.weight]

    def hidden(self, batch):
        return torch.tanh(self.embedding[batch.inputs])

    @property
    def head(self):
        return Head(self.weight)

    def outputs(self, batch):
        return [Logits(table[batch.inputs]) for table in self.tables]


def make_batch(rows=8, seed=0, contexts=2):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 8, (rows, T), generator=generator)
    labels = shift_labels(ids)
    labels[0, 2:5] = -100
    number = torch.arange(rows)
    return Batch(ids, labels.clamp_min(0), number % 1, number % contexts, number, mask=labels != -100)


def constraints():
    return [
        kd.SafetyConstraint("critical", LogTruthProbability(CRITICAL, at=0.5), at_least=0.5),
        kd.SafetyConstraint("unsafe", UnsafeMass(unsafe=[11, 12]), at_least=0.97, contexts=[1]),
    ]


def make_step(**more):
    more.setdefault("constraints", constraints())
    polytope = kd.WeightPolytope(n_teachers=K, lower=0.1, upper=0.7)
    return LanguageStep(K, weights=Conforming(EntropyDecay(), polytope), budget="1MiB", horizon=50, **more)


def take_step(step, model, parts, scale=1.0):
    step.begin(parts)
    model.optimizer.zero_grad()
    for part in parts:
        (scale * step.loss(model.hidden(part), model.head, model.outputs(part), part)).backward()
    model.optimizer.step()
    return step.finish()


def run(steps=12, rows=8, seed=0, **more):
    step, model, records = make_step(**more), Model(seed), []
    for number in range(steps):
        records.append(take_step(step, model, make_batch(seed=number).cut(rows)))
    return step, model, records


def assert_same(one, other, tolerance):
    (step, model, records), (step2, model2, records2) = one, other
    for x, y in zip(model.parameters, model2.parameters, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=tolerance)
    torch.testing.assert_close(step.multipliers, step2.multipliers, rtol=0, atol=tolerance)
    for r, s in zip(records, records2, strict=True):
        assert abs(r.loss - s.loss) <= tolerance
        assert r.positions == s.positions
        torch.testing.assert_close(r.safety, s.safety, rtol=0, atol=tolerance, equal_nan=True)
        torch.testing.assert_close(r.weights, s.weights, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_microbatches_give_the_step_of_the_whole_batch(rows):
    assert_same(run(), run(rows=rows), 1e-12)


@pytest.mark.parametrize(
    "constraint",
    [
        kd.SafetyConstraint("exact", TruthProbability(CRITICAL), exactly=0.4),
        kd.SafetyConstraint("mix", TruthProbability(CRITICAL), 0.6, mix={0: 0.3, 1: 0.7}),
        kd.SafetyConstraint("worst", TruthProbability(CRITICAL), 0.6, mix={0: 0.3, 1: 0.7}, worst=KLBall(0.1)),
        kd.SafetyConstraint("all", TruthProbability(CRITICAL), 0.9, average="all"),
    ],
    ids=lambda rule: rule.name,
)
def test_every_kind_of_constraint_moves_its_multiplier_alike_in_microbatches(constraint):
    whole = run(constraints=[constraint])
    assert_same(whole, run(rows=3, constraints=[constraint]), 1e-11)
    assert float(whole[0].multipliers.abs().max()) > 0


def test_gradient_is_that_of_loss_less_weights_times_safety():
    step, model, _ = run(steps=3)
    batch = make_batch(seed=77)
    weight_M = step.constraint_weights
    assert float(weight_M.min()) > 0
    step.begin([batch])
    step.loss(model.hidden(batch), model.head, model.outputs(batch), batch)
    found = torch.autograd.grad(
        step.loss(model.hidden(batch), model.head, model.outputs(batch), batch), model.parameters
    )
    log_s_V = torch.log_softmax(model.hidden(batch) @ model.weight.t(), dim=-1)
    log_p_KV = torch.log_softmax(torch.stack([output.logits for output in model.outputs(batch)], dim=-2), dim=-1)
    signals = kd.weights.Signals(log_p=log_p_KV, labels=batch.labels, mask=batch.mask)
    w_K = step.weights(signals)
    log_q_V = kd.pooling.arithmetic_pool(log_p_KV, w_K)
    objective = batch.average_positions((log_q_V.exp() * (log_q_V - log_s_V)).sum(-1))
    for weight, rule in zip(weight_M, step.constraints, strict=True):
        sums = rule.sums(log_s_V, batch)
        objective = objective - weight * (sums.surrogate_G / sums.count_G).sum()
    for x, y in zip(found, torch.autograd.grad(objective, model.parameters), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_a_continued_run_takes_the_same_steps_to_the_bit():
    step, model, _ = run(steps=6)
    held = {name: value.clone() for name, value in step.state_dict().items()}
    again, other = make_step(), Model()
    again.load_state_dict(held)
    other.optimizer.load_state_dict(model.optimizer.state_dict())
    for x, y in zip(other.parameters, model.parameters, strict=True):
        x.data.copy_(y.data)
    other.optimizer = torch.optim.Adam(other.parameters, lr=0.05)
    model.optimizer = torch.optim.Adam(model.parameters, lr=0.05)
    for number in range(6, 12):
        first = take_step(step, model, [make_batch(seed=number)])
        second = take_step(again, other, [make_batch(seed=number)])
        assert first.loss == second.loss
        assert torch.equal(first.multipliers, second.multipliers)
    assert all(torch.equal(x, y) for x, y in zip(model.parameters, other.parameters, strict=True))


class TwoRanks(Ranks):
    """Two processes as two threads: sums in the order of the ranks, so both see the same bits."""

    size = 2

    def __init__(self, rank, shared, barrier):
        self.rank, self._shared, self._barrier = rank, shared, barrier

    def add_up(self, compute, length):
        self._shared[self.rank] = compute()
        self._barrier.wait(60)
        total = self._shared[0] + self._shared[1]
        self._barrier.wait(60)
        return total


def test_two_processes_take_the_step_of_one_with_the_whole_batch():
    shared, barrier, results = {}, threading.Barrier(2), {}
    gradients, gate = {}, threading.Barrier(2)

    def work(rank):
        step, model, records = make_step(ranks=TwoRanks(rank, shared, barrier)), Model(), []
        for number in range(12):
            # uneven parts; the second rank has no example of context 1
            batch = make_batch(seed=number)
            own = batch.select(torch.tensor([0, 2] if rank else [1, 3, 4, 5, 6, 7]))
            step.begin([own])
            model.optimizer.zero_grad()
            step.loss(model.hidden(own), model.head, model.outputs(own), own).backward()
            gradients[rank] = [x.grad for x in model.parameters]
            gate.wait(60)
            total = [gradients[0][n] + gradients[1][n] for n in range(2)]
            gate.wait(60)
            for x, gradient in zip(model.parameters, total, strict=True):
                x.grad = gradient
            model.optimizer.step()
            records.append(step.finish())
        results[rank] = step, model, records

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(results[0][0].multipliers, results[1][0].multipliers)
    assert_same(run(), results[0], 1e-11)


def test_the_constraint_is_met_where_plain_distillation_misses_it():
    rule = kd.SafetyConstraint("critical", LogTruthProbability(CRITICAL, at=0.3), at_least=0.3)
    step, free = make_step(constraints=[rule]), make_step(constraints=[])
    model, plain = Model(), Model()
    batch = make_batch(rows=16)
    for _ in range(200):
        record = take_step(step, model, [batch])
        take_step(free, plain, [batch])
    without = float(rule.sums(torch.log_softmax(plain.hidden(batch) @ plain.weight.t(), -1), batch).means())
    assert without < 0.2
    assert abs(float(record.safety) - 0.3) < 0.02
    assert float(record.multipliers) > 0


def test_a_measure_outside_of_steps_has_no_gradient_and_moves_nothing():
    step, model, _ = run(steps=2)
    batch, before = make_batch(), step.state_dict()
    measured = step.measure(model.hidden(batch), model.head, model.outputs(batch), batch)
    assert not measured.loss.requires_grad
    assert len(measured.sums) == 2
    assert all(torch.equal(value, step.state_dict()[name]) for name, value in before.items())


def test_misuse_is_told():
    step, model, batch = make_step(), Model(), make_batch()
    with pytest.raises(kd.InvalidInput, match=r"call begin\(batches\)"):
        step.loss(model.hidden(batch), model.head, model.outputs(batch), batch)
    with pytest.raises(kd.InvalidInput, match=r"No step is under way"):
        step.finish()
    step.begin([batch])
    with pytest.raises(kd.InvalidInput, match=r"A step is under way"):
        step.begin([batch])
    step.cancel()
    nothing = Batch(batch.inputs, batch.labels, batch.task, batch.context, batch.index, mask=torch.zeros(8, T).bool())
    with pytest.raises(kd.InvalidInput, match="No position of this step counts"):
        step.begin([nothing])
    with pytest.raises(kd.InvalidInput, match="state is that of other constraints"):
        step.load_state_dict(make_step(constraints=[]).state_dict())


def test_a_state_of_other_groups_is_refused():
    measure = kd.safety.TruthProbability([1])
    one, mixed = (
        LanguageStep(1, constraints=[kd.SafetyConstraint("a", measure, 0.5, mix=mix)])
        for mix in (None, {0: 0.5, 1: 0.5})
    )
    with pytest.raises(kd.InvalidInput, match=r"Running sums of 'a' have shape \(3, 1\); wanted \(3, 2\)"):
        mixed.load_state_dict(one.state_dict())


def test_a_bad_teacher_is_named_and_the_step_can_be_cancelled():
    step = LanguageStep(["wiki", "law"], constraints=constraints())
    model, batch = Model(), make_batch()
    outputs = model.outputs(batch)[:2]
    outputs[1].logits[3, 2, 4] = torch.nan
    step.begin([batch])
    with pytest.raises(kd.errors.NotFinite, match=r"law gives no distribution at position 23"):
        step.loss(model.hidden(batch), model.head, outputs, batch)
    step.cancel()
    assert step.steps == 0


def test_heads_of_padded_vocabularies_are_cut():
    step = LanguageStep(1, vocabulary=V, constraints=constraints())
    model, batch = Model(), make_batch()
    padded = torch.cat([model.weight, torch.randn(5, H, dtype=torch.float64)])
    other = LanguageStep(1, constraints=constraints())
    hidden = model.hidden(batch)
    for one, head in ((step, Head(padded)), (other, model.head)):
        one.begin([batch])
        one.loss(hidden, head, [Hidden(hidden.detach(), Head(torch.ones(V + 9, H).double().cumsum(0)[:V]))], batch)
    first, second = step.finish(), other.finish()
    assert first.loss == second.loss
    assert torch.equal(first.multipliers, second.multipliers)
