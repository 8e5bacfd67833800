"""What the trainer is given and cannot use is refused in words of its own, before transformers fails on it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import IterableDataset

import safekd as kd
from safekd.language import SafeKDTrainer

from .tiny_run import make_arguments, make_model, make_rows, make_teachers, make_trainer

torch.set_num_threads(1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(make_rows(contexts=None))


@pytest.fixture(scope="module")
def student():
    return make_model()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": []}, "`train_dataset` is empty, 0 rows; wanted at least one"),
        ({"eval_dataset": {"one": []}}, r"`eval_dataset\['one'\]` is empty"),
        ({"rows": (row for row in make_rows())}, "`train_dataset` is a generator; wanted rows by number with a length"),
        ({"rows": "corpus.txt"}, "`train_dataset` is a str; wanted rows by number"),
        ({"rows": Stream(), "arguments": {"max_steps": -1}}, r"is a stream.* max_steps of the arguments is -1; wanted"),
        ({"pool": "mean"}, "`pool` is 'mean'"),
        ({"temperature": [1.0]}, "1 numbers for 2 teachers"),
        ({"cross_entropy": 2}, "`cross_entropy` is 2"),
        ({"budget": "much"}, "`budget` is 'much'"),
        ({"divergence": "kl"}, "`divergence` is 'kl'"),
        ({"weights": torch.ones(3) / 3}, r"`weights` has shape \(3,\); wanted \(2,\)"),
        ({"trace_steps": 0}, "`trace_steps` is 0; wanted a whole number of at least 1"),
        ({"trace_sequences": None}, "`trace_sequences` is None"),
        ({"tolerance": -1}, "`tolerance` is -1"),
        ({"dual": "pi"}, "`dual` is 'pi'; wanted how multipliers move"),
        ({"weights_optimizer": "adam"}, "`weights_optimizer` is 'adam'"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_trainer_is_made(tmp_path, student, changed, said):
    with pytest.raises(kd.InvalidInput, match=said):
        make_trainer(tmp_path, student=student, **{"constraints": [], **changed})


def test_training_without_data_says_where_they_go(tmp_path, student):
    trainer = SafeKDTrainer(student, make_arguments(tmp_path), teachers=make_teachers())
    with pytest.raises(kd.InvalidInput, match=r"no `train_dataset`.*SafeKDTrainer\(\.\.\., train_dataset=rows\)"):
        trainer.train()
