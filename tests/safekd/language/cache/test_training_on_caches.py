"""Losses and training runs on cached teachers, beside the same on the teachers themselves."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

import safekd as kd
from safekd.language import CausalTeacher, Head, TokenBatches, distillation_loss, write_cache
from tests.safekd.language.hugging_face.tiny_run import flatten, make_model, make_rows, make_teachers, make_trainer
from tests.safekd.language.tiny_models import causal_model

from .token_teachers import H, RecurrentTeacher, V, make_split


def read_loss(teachers, batch):
    draw = torch.Generator().manual_seed(5)
    hidden = torch.randn(*batch.labels.shape, H, generator=draw).requires_grad_()
    out = distillation_loss(
        hidden,
        Head(torch.randn(V, H, generator=draw)),
        [t(batch) for t in teachers],
        labels=batch.labels,
        mask=batch.mask,
    )
    out.loss.backward()
    return float(out.loss.detach()), hidden.grad


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dtype": "float32"}, 1e-6),
        ({}, 0.01),
        ({"dtype": "float16"}, 0.002),
        ({"kind": "topk", "k": V}, 0.002),
        ({"kind": "topk", "k": 48}, 0.05),
    ],
)
def test_gradients_are_those_of_the_teachers_up_to_what_was_not_kept(options, error, tmp_path):
    teachers, data = [RecurrentTeacher("a"), RecurrentTeacher("b", seed=1)], make_split()
    cached = write_cache(tmp_path, teachers, data, **options)
    batch = data.batch(torch.tensor([4, 1, 19]))
    loss, gradient = read_loss(teachers, batch)
    told, found = read_loss(cached, batch)
    assert float((found - gradient).norm() / gradient.norm()) < error
    assert told == pytest.approx(loss, rel=20 * error, abs=1e-5)


def test_a_mix_of_cached_and_live_teachers(tmp_path):
    teachers, data = [RecurrentTeacher("a"), RecurrentTeacher("b", seed=1)], make_split()
    (first,) = write_cache(tmp_path, teachers[0], data, dtype="float32")
    batch = data.batch()
    assert read_loss([first, teachers[1]], batch)[0] == pytest.approx(read_loss(teachers, batch)[0], rel=1e-6)


def test_a_trainer_of_transformers_takes_cached_teachers(tmp_path):
    rows, teachers = make_rows(), make_teachers()
    sequences = [{"input_ids": row["input_ids"]} for row in rows]
    loader = DataLoader(sequences, batch_size=5, collate_fn=TokenBatches(pad=0))
    cached = write_cache(tmp_path / "cache", teachers, loader, dtype="float32")
    students = [make_model(seed=7), make_model(seed=7)]
    live = make_trainer(tmp_path / "live", student=students[0], teachers=teachers, rows=rows)
    stored = make_trainer(tmp_path / "stored", student=students[1], teachers=list(cached), rows=rows)
    live.train()
    asked = [teacher.asked for teacher in teachers]
    stored.train()
    assert [teacher.asked for teacher in teachers] == asked
    torch.testing.assert_close(flatten(students[1]), flatten(students[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama tied", "gemma2 with soft cap", "cohere with scale", "gptj with bias"])
@pytest.mark.parametrize("park", [None, "disk"])
def test_models_of_transformers_are_cached_with_their_heads(kind, park, tmp_path):
    teacher = CausalTeacher(causal_model(kind), name="t", park=park)
    ids = torch.randint(3, 64, (6, 7), generator=torch.Generator().manual_seed(0))
    data = kd.Split("train", {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, kd.language.shift_labels(ids))
    (cached,) = write_cache(tmp_path, teacher, data, dtype="float32", batch_size=2)
    cached.require(teacher.manifest())
    batch = data.batch(torch.tensor([3, 0]))
    said, wanted = cached(batch), causal_model(kind)(input_ids=batch.inputs["input_ids"]).logits
    torch.testing.assert_close(
        said.head.logits(said.hidden)[batch.mask], wanted.detach()[batch.mask], rtol=1e-4, atol=1e-4
    )
