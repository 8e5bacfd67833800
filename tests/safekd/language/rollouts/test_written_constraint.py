"""Constraints on what the student writes: the gradient against all texts enumerated, and what training does with it."""

from __future__ import annotations

import itertools

import pytest
import torch

import safekd as kd
from safekd.data import Batch
from safekd.errors import InvalidInput
from safekd.language import Head, LanguageStep, Logits, Rollouts, WrittenBatch, WrittenConstraint
from safekd.language.rollouts._written_text import TextRows, Written

from .small_student import make_student

V, LENGTH = 3, 2
TEXTS = [list(text) for text in itertools.product(range(V), repeat=LENGTH)]
SCORE = torch.tensor([0.1, 0.9, 0.3, 1.0, 0.0, 0.6, 0.7, 0.2, 0.5], dtype=torch.float64)


class TinyWriter(torch.nn.Module):
    """Hidden states are a table of the last two tokens; the head is another."""

    def __init__(self):
        super().__init__()
        make = torch.Generator().manual_seed(0)
        self.table = torch.nn.Parameter(torch.randn(V, V, 4, generator=make, dtype=torch.float64))
        self.weight = torch.nn.Parameter(torch.randn(V, 4, generator=make, dtype=torch.float64))

    def hidden(self, ids):
        before = torch.cat([ids[:, :1], ids[:, :-1]], 1)
        return self.table[before, ids]

    def log_p(self, ids):
        """Return log p of what follows the first token, (B,)."""
        log_p = (self.hidden(ids) @ self.weight.T).log_softmax(-1)
        return log_p[:, :-1].gather(-1, ids[:, 1:, None])[..., 0].sum(-1)


def make_batch(texts, score, baseline, context=0):
    n = len(texts)
    written = Written([[1]] * n, texts, torch.full((n,), context), torch.zeros(n, dtype=torch.long))
    rows = TextRows.stack(written, score[:, None], baseline[:, None], 0, 0)
    return rows.build_batch(0, ("polite",), "cpu")


def take_loss(student, step, batch):
    step.begin([batch])
    hidden = student.hidden(batch.inputs["input_ids"])
    teacher = Logits(torch.zeros(*batch.labels.shape, V, dtype=torch.float64))
    return step.loss(hidden, Head(student.weight), [teacher], batch)


def gradients(student, loss):
    return torch.autograd.grad(loss, [student.table, student.weight])


def weigh_only_the_constraint(batch, weight):
    """Return the gradient of ``-weight E[f]`` alone, as a step adds it."""
    student = TinyWriter()
    both = []
    for constraints in ([WrittenConstraint("kind", "polite", 0.9)], []):
        step = LanguageStep(1, constraints=constraints)
        step._weight_M.fill_(weight)
        both.append(gradients(student, take_loss(student, step, batch)))
    return [a - b for a, b in zip(*both, strict=True)]


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_the_gradient_over_all_texts_is_that_of_the_expected_score(baseline):
    student = TinyWriter()
    ids = torch.tensor([[1, *text] for text in TEXTS])
    p = student.log_p(ids).exp()
    assert float(p.detach().sum()) == pytest.approx(1, abs=1e-12)
    exact = gradients(student, -2.5 * (p * SCORE).sum())
    total = [torch.zeros_like(x) for x in exact]
    for text, score, share in zip(TEXTS, SCORE, p.detach(), strict=True):
        batch = make_batch([text], score[None], torch.tensor([baseline], dtype=torch.float64))
        for sum_, part in zip(total, weigh_only_the_constraint(batch, 2.5), strict=True):
            sum_ += share * part
    for ours, theirs in zip(total, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_texts_of_a_batch_count_alike_however_long_they_are():
    texts, score, base = [[0], [2, 1]], torch.tensor([0.2, 1.0]).double(), torch.tensor([0.6, 0.5]).double()
    whole = weigh_only_the_constraint(make_batch(texts, score, base), 1.0)
    rows = zip(texts, score, base, strict=True)
    parts = [weigh_only_the_constraint(make_batch([t], s[None], b[None]), 1.0) for t, s, b in rows]
    for ours, a, b in zip(whole, *parts, strict=True):
        torch.testing.assert_close(ours, (a + b) / 2, rtol=0, atol=1e-12)


def test_what_is_measured_is_the_mean_score_of_the_texts_that_are_covered():
    student = TinyWriter()
    step = LanguageStep(1, constraints=[WrittenConstraint("kind", "polite", 0.9, contexts=[1])])
    score = torch.tensor([0.25, 0.75]).double()
    here, there = make_batch(TEXTS[:2], score, score, 1), make_batch(TEXTS[2:4], 0 * score, score, 0)
    step.begin([here, there])
    for batch in (here, there):
        hidden = student.hidden(batch.inputs["input_ids"])
        teacher = Logits(torch.zeros(*batch.labels.shape, V, dtype=torch.float64))
        step.loss(hidden, Head(student.weight), [teacher], batch)
    record = step.finish()
    assert record.safety.tolist() == [0.5]
    assert float(record.multipliers) > 0


def test_fixed_data_say_nothing_of_it_and_its_multiplier_rests():
    student = TinyWriter()
    step = LanguageStep(1, constraints=[WrittenConstraint("kind", "polite", 0.9)])
    ids = torch.tensor([[1, 0, 2]])
    zero = torch.zeros(1, dtype=torch.long)
    fixed = Batch({"input_ids": ids}, ids.roll(-1, 1), zero, zero, zero)
    take_loss(student, step, fixed)
    record = step.finish()
    assert record.multipliers.tolist() == [0.0]
    assert bool(record.safety.isnan().all())


def test_a_constraint_that_every_other_step_speaks_of_weighs_in_its_own_steps():
    """Rollouts take turns with fixed data: what one step shows must count in the next one that speaks of it."""
    student = TinyWriter()
    step = LanguageStep(1, constraints=[WrittenConstraint("kind", "polite", 0.9)])
    own = make_batch(TEXTS, SCORE, torch.full_like(SCORE, 0.4))
    fixed = Batch(own.inputs, own.labels, own.task, own.context, own.index, mask=own.mask)
    gradient = []
    for batch in (own, fixed, own):
        gradient.append(gradients(student, take_loss(student, step, batch)))
        step.finish()
    assert float(step.multipliers) > 0
    apart = [float((a - b).abs().max()) for a, b in zip(gradient[0], gradient[2], strict=True)]
    assert min(apart) > 1e-6  # the same student and texts; the first step had no multiplier yet


def test_microbatches_add_up_to_the_gradient_of_the_step():
    student = TinyWriter()
    base = torch.full_like(SCORE, 0.4)
    whole, step = make_batch(TEXTS, SCORE, base), LanguageStep(1, constraints=[WrittenConstraint("k", "polite", 0.9)])
    step._weight_M.fill_(1.5)
    exact = gradients(student, take_loss(student, step, whole))
    parts = [whole.select(slice(0, 4)), whole.select(slice(4, 9))]
    assert all(isinstance(part, WrittenBatch) for part in parts)
    step = LanguageStep(1, constraints=[WrittenConstraint("k", "polite", 0.9)])
    step._weight_M.fill_(1.5)
    step.begin(parts)
    total = [0, 0]
    for part in parts:
        hidden = student.hidden(part.inputs["input_ids"])
        teacher = Logits(torch.zeros(*part.labels.shape, V, dtype=torch.float64))
        loss = step.loss(hidden, Head(student.weight), [teacher], part)
        total = [a + b for a, b in zip(total, gradients(student, loss), strict=True)]
    for ours, theirs in zip(total, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def train(constraints, steps=120):
    """The teacher writes token 5 all the time; a score says that this is not to be."""
    student = kd.language.CausalStudent(make_student(vocabulary=8, hidden=16))
    target = torch.full((8,), -2.0)
    target[5] = 3.0

    def count_five(written):
        return [1 - text.count(5) / len(text) for text in written.texts]

    rollouts = Rollouts([[3], [4]], student.model, length=4, batch_size=16, scores={"few fives": count_five}, end=[])
    step = LanguageStep(1, constraints=constraints, horizon=steps, divergence=kd.language.ReverseKL())
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    scores = []
    for _, batch in zip(range(steps), rollouts, strict=False):
        step.begin([batch])
        teacher = Logits(target.expand(*batch.labels.shape, 8))
        optimizer.zero_grad()
        step.loss(student.hidden(batch.inputs), student.head, [teacher], batch).backward()
        optimizer.step()
        step.finish()
        scores.append(float(batch.score.mean()))
    return sum(scores[-30:]) / 30


def test_a_student_keeps_to_the_score_that_its_teacher_does_not():
    assert train([]) < 0.25
    assert train([WrittenConstraint("few fives", "few fives", 0.6)]) == pytest.approx(0.6, abs=0.1)


def test_a_score_that_the_texts_do_not_have_is_named():
    step = LanguageStep(1, constraints=[WrittenConstraint("kind", "rude", 0.9)])
    with pytest.raises(InvalidInput, match="'kind' reads the score 'rude', and the texts have 'polite'"):
        step.begin([make_batch(TEXTS, SCORE, SCORE)])


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(InvalidInput, match="'kind': at_least is"):
        WrittenConstraint("kind", "polite", threshold)


@pytest.mark.parametrize("score", ["", None, 3])
def test_a_score_without_a_name_is_refused(score):
    with pytest.raises(InvalidInput, match=f"Constraint 'kind': score is {score!r}; wanted the name of a score"):
        WrittenConstraint("kind", score, 0.9)
