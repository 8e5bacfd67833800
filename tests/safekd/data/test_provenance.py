"""A result knows the data it used: certificates refuse them, in whatever guise."""

from __future__ import annotations

import json

import pytest
import torch

import safekd as kd
from safekd.data import SplitUse, find_unseen, hash_examples
from safekd.errors import InvalidInput
from tests.support.problems import FreeLogits, agreeing, at_least, one_each, trainer_for

N = 60


def drawn(seed: int, name: str = "train", size: int = N) -> kd.Split:
    draw = torch.Generator().manual_seed(seed)
    return kd.Split(name, torch.randn(size, 3, generator=draw), torch.randint(3, (size,), generator=draw))


def seen_of(data: kd.Split, *used: kd.Split) -> list[int]:
    """Numbers of the examples that are left out."""
    return (~find_unseen(data, [SplitUse(split, ("gradient steps",)) for split in used])).nonzero().squeeze(-1).tolist()


def glued(*splits: kd.Split, name: str = "held_out") -> kd.Split:
    return kd.Split(name, torch.cat([s.inputs for s in splits]), torch.cat([s.labels for s in splits]))


GUISES = {
    "itself": lambda s: s,
    "another name": lambda s: kd.Split("certify", s.inputs, s.labels),
    "a copy": lambda s: kd.Split("certify", s.inputs.clone(), s.labels.clone()),
    "shuffled": lambda s: s.part(torch.randperm(N, generator=torch.Generator().manual_seed(1))),
    "a part": lambda s: s.part(torch.arange(7, 20)),
    "another dtype": lambda s: kd.Split("certify", s.inputs.double(), s.labels.int()),
    "with contexts": lambda s: kd.Split("certify", s.inputs, s.labels, context=s.labels),
}


@pytest.mark.parametrize("guise", GUISES)
def test_used_data_are_found_in_every_guise(guise):
    used = drawn(0)
    with pytest.raises(InvalidInput, match="holds the data that this run used as 'train' for gradient steps"):
        seen_of(GUISES[guise](used), used)


def test_new_data_pass_and_mixed_data_lose_what_was_seen():
    used, new = drawn(0), drawn(1)
    assert seen_of(new, used) == []
    assert seen_of(glued(new, used.part(torch.arange(9))), used) == list(range(N, N + 9))


def test_two_uses_that_cover_all_between_them_leave_nothing():
    one, two = drawn(0), drawn(1, "validation")
    with pytest.raises(
        InvalidInput, match=r"Every example of 'held_out' was used .* train \(60 examples\): .* validation"
    ):
        seen_of(glued(one, two), one, two)


def test_inputs_that_recur_by_nature_are_no_evidence():
    """Two yes-or-no questions have four answers: a shared answer is not a shared case, unless all data are the same."""
    draw = torch.Generator().manual_seed(0)
    ask = lambda n: kd.Split(  # noqa: E731
        "q", torch.randint(2, (n, 2), generator=draw).float(), torch.randint(2, (n,), generator=draw)
    )
    used, new = ask(200), ask(100)
    assert seen_of(new, used) == []
    with pytest.raises(InvalidInput, match="proves nothing new"):
        seen_of(used.part(torch.arange(199, -1, -1)), used)


def test_keys_differ_where_examples_differ():
    split = drawn(0, size=2000)
    assert len(set(hash_examples(split).tolist())) == 2000
    moved = split.inputs.clone()
    moved[0, 0] = torch.nextafter(moved[0, 0], torch.tensor(9.0))  # the last bit
    swapped = split.inputs.clone()
    swapped[1, :2] = swapped[1, :2].flip(0)
    relabeled = split.labels.clone()
    relabeled[2] += 1
    before = hash_examples(split)
    for changed, row in [(moved, 0), (swapped, 1)]:
        assert (hash_examples(kd.Split("x", changed, split.labels)) != before).nonzero()[0].tolist() == [row]
    assert (hash_examples(kd.Split("x", split.inputs, relabeled)) != before).nonzero()[0].tolist() == [2]


def test_minus_zero_is_zero_and_whole_numbers_count():
    keys = hash_examples(kd.Split("x", torch.tensor([[0.0], [-0.0]]), torch.tensor([1, 1])))
    assert keys[0] == keys[1]
    tokens = torch.tensor([[5, 2**40], [5, 2**41]])
    first, second = hash_examples(kd.Split("x", tokens, torch.tensor([[0, 1], [0, 1]])))
    assert first != second


def test_chunks_do_not_matter(monkeypatch):
    split = drawn(0)
    whole = hash_examples(split)
    monkeypatch.setattr("safekd.data.provenance._data_provenance._CHUNK", 7)
    assert (hash_examples(split) == whole).all()


# ---- runs ----


def test_a_result_refuses_its_own_data_and_says_what_for(tmp_path):
    validation = one_each(name="validation")
    new = kd.Split("certify", torch.zeros(40, 1), torch.zeros(40, dtype=torch.long))
    result = trainer_for(at_least(0.5)).fit(one_each(), validation=validation, epochs=200, run_dir=tmp_path)
    with pytest.raises(InvalidInput, match="used as 'train' for gradient steps, constraint 'first'"):
        kd.certify(result, at_least(0.3), one_each())
    assert kd.certify(result, at_least(0.3), new) == kd.certify(result.student, at_least(0.3), new)
    looks = len(result.trace)  # one a student that could have been chosen
    assert [str(use) for use in result.uses] == [
        "train (3 examples): gradient steps, constraint 'first'",
        f"validation (3 examples): readings of the trace, {looks} looks to choose the best student",
    ]
    kept = json.loads((tmp_path / "verdict.json").read_text())["data"]
    said = [(use["split"], use["examples"], use["looks"]) for use in kept]
    assert said == [("train", 3, 0), ("validation", 3, looks)]
    assert kept[0]["sha256"] == result.uses[0].fingerprint != kept[1]["sha256"]
    assert len(kept[0]["sha256"]) == 64


def test_a_constraint_posed_elsewhere_uses_that_data():
    own = kd.Split("safety", torch.zeros(4, 1), torch.tensor([0, 0, 1, 2]))
    trainer = trainer_for(at_least(0.5, split="safety"))
    result = trainer.fit(one_each(), epochs=200, splits={"safety": own, "idle": drawn(3, "idle")})
    assert {use.name: use.roles for use in result.uses} == {
        "train": ("gradient steps",),
        "safety": ("constraint 'first'",),
    }
    with pytest.raises(InvalidInput, match="'safety' for constraint 'first'"):
        kd.certify(result, at_least(0.3), own)


def test_what_was_seen_is_left_out_of_a_certificate_and_counted():
    used, new = drawn(0), drawn(1, "certify", 200)

    class Any3(FreeLogits):
        def forward(self, inputs):
            return self.logits[torch.zeros(len(inputs), dtype=torch.long)]

    result = trainer_for(at_least(0.5), student=Any3(), teachers=agreeing(examples=N)).fit(used, epochs=100)
    rule = at_least(0.3)
    found = kd.certify(result, rule, glued(new, used.part(torch.arange(30))))
    alone = kd.certify(result.student, rule, new)
    assert (found.count, found.estimate, found.lower_bound) == (alone.count, alone.estimate, alone.lower_bound)
    assert found.left_out == int((used.labels[:30] == 0).sum()) > 0
    assert f"{found.left_out} left out that its training had used" in str(found)
    assert "left out" not in str(alone)


def test_a_part_keeps_the_numbers_of_the_whole():
    """Stored rows of a teacher are found by them."""
    whole = drawn(0)
    part = whole.part(torch.tensor([5, 3, 8]))
    again = part.part(torch.tensor([2, 0]))
    assert part.batch().index.tolist() == [5, 3, 8]
    assert again.batch().index.tolist() == [8, 5]
    assert torch.equal(again.inputs, whole.inputs[[8, 5]])
    rows = torch.softmax(torch.randn(N, 3, generator=torch.Generator().manual_seed(2)), -1)
    ensemble = kd.teachers.TeacherEnsemble([kd.teachers.StoredTeacher("s", rows)])
    everything = torch.arange(3)
    assert torch.allclose(
        ensemble.cached_log_probabilities(part, part.batch(everything)).exp()[:, 0], rows[[5, 3, 8]], atol=1e-6
    )
    measured = kd.teachers.measure_teachers(ensemble, part, at_least(0.5).measure)
    assert measured.task_loss_MK.shape == (1, 1)
