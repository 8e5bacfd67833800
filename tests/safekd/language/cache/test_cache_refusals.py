"""Builds of a cache that cannot go on: other answers, other inputs, and answers that are a cache's own."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.language import CachedTeacher, Logits, write_cache

from .token_teachers import RecurrentTeacher, V, make_split, make_tokens


class Changing(RecurrentTeacher):
    """Gives hidden states at first, and logits from then on."""

    def __call__(self, batch):
        said = super().__call__(batch)
        return said if len(self.asked) == 1 else Logits(torch.zeros(*batch.labels.shape, V))


def test_a_teacher_that_changes_what_it_gives_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"Teacher 't' gave .*logits.*; wanted hidden states, width 16"):
        write_cache(tmp_path, Changing(), make_split(), batch_size=8)


def test_answers_of_a_cache_are_not_cached_again(tmp_path):
    write_cache(tmp_path / "one", RecurrentTeacher(), make_split())
    with pytest.raises(InvalidInput, match="answers out of a cache already; copy its folder instead"):
        write_cache(tmp_path / "two", CachedTeacher(tmp_path / "one"), make_split())


def test_a_build_does_not_go_on_with_other_inputs(tmp_path):
    write_cache(tmp_path, RecurrentTeacher(), make_split())
    ids_NT, _, labels_NT = make_tokens(30, seed=1)
    with pytest.raises(InvalidInput, match=r"was begun with inputs \['.*attention_mask.*, and is asked to go on with"):
        write_cache(tmp_path, RecurrentTeacher(), kd.Split("train", ids_NT, labels_NT))
