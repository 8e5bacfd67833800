"""Positions that do not count: labels of -100, a mask, and what may stand there."""

from __future__ import annotations

import pytest
import torch

from safekd.data import Split, SplitCache, find_unseen, hash_examples, require_unshared
from safekd.data.provenance import SplitUse
from safekd.errors import InvalidInput

NAN = float("nan")
IDS = torch.tensor([[5, 7, 0], [3, 2, 9], [4, 0, 0]])
LABELS = torch.tensor([[1, 0, -100], [2, 1, 0], [0, -100, -100]])
COUNTED = LABELS != -100


def test_labels_of_minus_100_stay_as_they_are_and_count_nothing_in_a_batch():
    split = Split("train", IDS, LABELS)
    assert torch.equal(split.labels, LABELS)
    assert torch.equal(split.mask, COUNTED)
    assert split.positions == 6
    batch = split.batch(torch.tensor([2, 0]))
    assert batch.labels.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert torch.equal(batch.mask, COUNTED[[2, 0]])
    assert batch.positions == 3
    assert [part.positions for part in split.batch().cut(2)] == [5, 1]


def test_a_mask_leaves_out_what_labels_do_not():
    split = Split("train", IDS, LABELS, mask=torch.tensor([[True, False, True]] * 3))
    assert split.mask.tolist() == [[True, False, False], [True, False, True], [True, False, False]]
    assert Split("train", IDS, IDS, mask=IDS >= 0).mask is None  # all count


@pytest.mark.parametrize("labels", [[0, -1, 2], [0, 10_000, 2]])
def test_labels_that_do_not_count_may_be_anything(labels):
    mask = torch.tensor([True, False, True])
    split = Split("train", IDS, torch.tensor(labels), class_names=["a", "b", "c"], mask=mask)
    assert split.batch().labels.tolist() == [0, 0, 2]
    assert split.part(torch.tensor([0, 2])).mask is None


def test_no_unsigned_label_is_taken_for_minus_100():
    assert Split("train", IDS, torch.tensor([156, 1, 2], dtype=torch.uint8)).mask is None


def test_names_and_minus_100():
    split = Split("train", IDS, [["b", "a", -100], ["a", "b", "b"], ["a", -100, -100]])
    assert split.class_names == ("a", "b")
    assert torch.equal(split.mask, COUNTED)
    with pytest.raises(InvalidInput, match="context holds names, but -100 at place 1"):
        Split("train", IDS, LABELS, context=["day", -100, "day"])


def test_inputs_that_do_not_count_may_be_anything():
    inputs = IDS.float().masked_fill(~COUNTED, NAN)
    assert torch.equal(Split("train", inputs, LABELS).inputs, IDS.float() * COUNTED)
    deep = inputs.unsqueeze(-1).expand(3, 3, 2).clone()
    assert bool(torch.isfinite(Split("train", {"x": deep}, LABELS).inputs["x"]).all())
    inputs[1, 1] = NAN
    with pytest.raises(InvalidInput, match="inputs of row 1 are not finite"):
        Split("train", inputs, LABELS)
    with pytest.raises(InvalidInput, match="inputs of row 0 are not finite"):  # which positions these are is not known
        Split("train", deep.flatten(1), LABELS)


def test_a_part_without_a_position_that_counts_is_refused():
    split = Split("train", IDS, torch.tensor([0, 1, -100]))
    assert split.part(torch.tensor([0, 2])).positions == 1
    with pytest.raises(InvalidInput, match="no position that counts: of 1 all have label -100"):
        split.part(torch.tensor([2]))


def test_examples_are_known_again_by_what_counts():
    """The label under a mask is not read, so data that differ there alone are the same."""
    whole = Split("train", IDS, LABELS)
    masked = Split("other", IDS, LABELS.masked_fill(~COUNTED, 7), mask=COUNTED)
    assert hash_examples(whole).tolist() == hash_examples(masked).tolist()
    assert hash_examples(whole).tolist() != hash_examples(Split("other", IDS, LABELS.clamp_min(0))).tolist()
    with pytest.raises(InvalidInput, match="shares 3 of its 3 examples"):
        require_unshared(masked, {"train": whole})


def test_dictionaries_of_inputs_are_known_again_whatever_their_order():
    first, second = {"ids": IDS, "types": IDS + 1}, {"types": IDS + 1, "ids": IDS}
    split = Split("train", first, LABELS)
    assert hash_examples(split).tolist() == hash_examples(Split("copy", second, LABELS)).tolist()
    swapped = Split("other", {"ids": IDS + 1, "types": IDS}, LABELS)
    assert find_unseen(swapped, [SplitUse(split, ("training",))]).tolist() == [True] * 3
    with pytest.raises(InvalidInput, match="3 shared examples"):
        find_unseen(Split("copy", second, LABELS), [SplitUse(split, ("training",))])


def test_what_is_kept_belongs_to_mask_and_inputs_too():
    cache, asked = SplitCache(), []

    def compute(batch):
        asked.append(len(batch))
        return batch.labels

    for split in [
        Split("train", {"ids": IDS}, LABELS),
        Split("train", {"ids": IDS}, LABELS),
        Split("train", {"other": IDS}, LABELS),
        Split("train", {"ids": IDS}, LABELS, mask=IDS != 7),
    ]:
        cache.rows(split, split.batch(), compute)
    assert asked == [3, 3, 3]
