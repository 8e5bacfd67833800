"""Routing of prompts to teachers (MOPD) is one-hot weights: the same loss and gradients as from each teacher alone."""

from __future__ import annotations

import itertools

import pytest
import torch

import safekd as kd
from safekd.language import Head, Hidden, Rollouts, distillation_loss
from safekd.weights import Conforming, EntropyDecay, Routed, Unified

from .small_student import PROMPTS, make_student

K, TABLE = 3, [2, 0, 1, 0, 1]


@pytest.fixture(scope="module")
def rolled():
    """A batch that the student wrote, the student and three teachers, float64."""
    student = make_student(0, dtype=torch.float64)
    teachers = [make_student(seed, dtype=torch.float64).eval() for seed in (1, 2, 3)]
    rollouts = Rollouts(PROMPTS, student, length=6, batch_size=10, context=range(5))
    return next(iter(rollouts)), student.eval(), teachers


def read(model, batch):
    return model.model(**batch.inputs).last_hidden_state


def lose(student, teachers, batch, **how):
    outputs = [Hidden(read(t, batch).detach(), Head.of(t)) for t in teachers]
    groups = {"labels": batch.labels, "mask": batch.mask, "context": batch.context, "task": batch.task}
    out = distillation_loss(read(student, batch), Head.of(student), outputs, **groups, **how)
    return out, torch.autograd.grad(out.loss, list(student.parameters()))


@pytest.mark.parametrize("divergence", [kd.language.ForwardKL(), kd.language.ReverseKL(), kd.language.JSD(0.3)])
@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_prompt_that_is_routed_is_distilled_from_its_teacher_alone(rolled, divergence, pool):
    batch, student, teachers = rolled
    settings = {"divergence": divergence, "pool": pool}
    out, gradient = lose(student, teachers, batch, weights=Routed(TABLE), **settings)
    assert set(out.weights.unique().tolist()) == {0.0, 1.0}
    total, sums = 0.0, [torch.zeros_like(g) for g in gradient]
    for k in range(K):
        own = batch.select(torch.isin(batch.context, torch.tensor([c for c in range(5) if TABLE[c] == k])))
        alone, part = lose(student, [teachers[k]], own, count=batch.positions, **settings)
        total += float(alone.loss.detach())
        sums = [a + b for a, b in zip(sums, part, strict=True)]
    assert float(out.loss.detach()) == pytest.approx(total, rel=1e-12)
    for ours, theirs in zip(gradient, sums, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_loss_of_each_position_is_that_of_its_teacher_to_the_last_bit(rolled):
    batch, student, teachers = rolled
    for row in range(len(batch)):
        one = batch.select(torch.tensor([row]))
        routed, _ = lose(student, teachers, one, weights=Routed(TABLE))
        alone, _ = lose(student, [teachers[TABLE[int(one.context)]]], one)
        torch.testing.assert_close(routed.loss, alone.loss, rtol=1e-13, atol=0)


def test_routing_by_task_is_the_same_with_tasks(rolled):
    batch, student, teachers = rolled
    by_context, _ = lose(student, teachers, batch, weights=Routed(TABLE))
    from dataclasses import replace

    moved = replace(batch, task=batch.context, context=torch.zeros_like(batch.context))
    by_task, _ = lose(student, teachers, moved, weights=Routed(TABLE, by="task"))
    assert torch.equal(by_context.loss, by_task.loss)


def test_a_projection_with_a_lower_bound_mixes_in_the_other_teachers(rolled):
    batch, student, teachers = rolled
    rule = Conforming(Routed(TABLE), kd.WeightPolytope(K, lower=0.1))
    out, _ = lose(student, teachers, batch, weights=rule)
    torch.testing.assert_close(out.weights.amax(-1), torch.full_like(out.weights[:, 0], 0.8))
    torch.testing.assert_close(out.weights.amin(-1), torch.full_like(out.weights[:, 0], 0.1))
    mixed = 0.7 * torch.nn.functional.one_hot(torch.tensor(TABLE), K).double() + 0.1
    given = mixed[batch.context][:, None].expand(*batch.labels.shape, K)
    expected, _ = lose(student, teachers, batch, weights=given)
    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-12, atol=0)


def test_a_routed_teacher_is_one_of_several_scales(rolled):
    batch, student, teachers = rolled
    polytope = kd.WeightPolytope(K, lower=0.05)
    out, _ = lose(
        student, teachers, batch, weights=Unified(token=EntropyDecay(), context=Routed(TABLE), polytope=polytope)
    )
    torch.testing.assert_close(out.weights.amax(-1), torch.full_like(out.weights[:, 0], 0.9))


@pytest.mark.parametrize("divergence", [kd.language.ForwardKL(), kd.language.ReverseKL()])
def test_a_student_that_writes_comes_nearer_to_the_teachers_that_its_prompts_are_routed_to(divergence):
    student = kd.language.CausalStudent(make_student(0))
    teachers = [kd.language.CausalTeacher(make_student(seed), name=f"t{seed}") for seed in (1, 2)]
    rollouts = Rollouts(PROMPTS, student.model, length=6, batch_size=8, context=[0, 1, 0, 1, 0], every=2, seed=1)
    step = kd.language.LanguageStep(2, weights=Routed([0, 1]), divergence=divergence)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    losses = []
    for batch in itertools.islice(rollouts, 60):
        step.begin([batch])
        optimizer.zero_grad()
        outputs = [teacher(batch) for teacher in teachers]
        step.loss(student.hidden(batch.inputs), student.head, outputs, batch).backward()
        optimizer.step()
        losses.append(step.finish().loss)
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    assert rollouts.counts.oldest == 1
