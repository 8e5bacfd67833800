"""Data that judge are none of those that trained: compared by what is in the examples, wherever something judges."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.data import Split, drop_shared, hash_examples, require_unshared
from safekd.errors import InvalidInput
from safekd.safety import SafetyConstraint, TruthProbability

N = 40


def drawn(seed: int, name: str = "train", size: int = N) -> Split:
    draw = torch.Generator().manual_seed(seed)
    return Split(name, torch.randn(size, 3, generator=draw), torch.arange(size) % 2)


def joined(name: str, *parts: Split) -> Split:
    return Split(name, torch.cat([p.inputs for p in parts]), torch.cat([p.labels for p in parts]))


TRAIN = drawn(0)
ORDER = torch.randperm(N, generator=torch.Generator().manual_seed(1))
SHARING = {
    "itself": (TRAIN, 40, 40),
    "copy": (Split("v", TRAIN.inputs.clone(), TRAIN.labels.clone()), 40, 40),
    "permuted": (Split("v", TRAIN.inputs[ORDER], TRAIN.labels[ORDER]), 40, 40),
    "permuted, another dtype": (Split("v", TRAIN.inputs[ORDER].double(), TRAIN.labels[ORDER].int()), 40, 40),
    "array": (Split("v", TRAIN.inputs.double().numpy(), TRAIN.labels.tolist()), 40, 40),
    "a part": (TRAIN.part(ORDER[:12]), 12, 12),
    "overlap": (joined("v", drawn(1).part(torch.arange(25)), TRAIN.part(ORDER[:9])), 9, 34),
    "one": (joined("v", drawn(1), TRAIN.part(ORDER[:1])), 1, 41),
    "with contexts": (Split("v", TRAIN.inputs, TRAIN.labels, context=TRAIN.labels), 40, 40),
}


def trainer(**more) -> kd.ConstrainedTrainer:
    torch.manual_seed(0)
    student = nn.Linear(3, 2)
    teacher = kd.teachers.CallableTeacher("t", lambda x: x[:, :2].float(), gives="logits")
    rule = SafetyConstraint("c", TruthProbability([0]), 0.5, **more)
    adam = torch.optim.Adam(student.parameters(), lr=0.01)
    return kd.ConstrainedTrainer(student, [teacher], constraints=[rule], optimizer=adam)


JUDGED = {
    "validation": lambda judge: trainer().fit(TRAIN, judge, epochs=1),
    "tighten": lambda judge: trainer().fit(
        TRAIN, epochs=1, splits={"judge": judge}, tighten=kd.Tighten(on="judge", folds=0)
    ),
    "crossfit": lambda judge: trainer().fit(
        TRAIN, epochs=1, splits={"judge": judge}, tighten=kd.CrossFit(also=["judge"])
    ),
    "frontier": lambda judge: kd.trace_frontier(
        lambda s: trainer().with_constraints([SafetyConstraint("c", TruthProbability([0]), s)]),
        TRAIN,
        judge,
        targets=[0.5, 0.6],
        epochs=1,
    ),
    "safety split": lambda judge: trainer(split="safety").fit(
        drawn(7), judge, epochs=1, splits={"safety": Split("safety", TRAIN.inputs, TRAIN.labels)}
    ),
}


@pytest.mark.parametrize("where", JUDGED)
@pytest.mark.parametrize("kind", SHARING)
def test_shared_examples_are_refused_with_their_number(kind, where):
    judge, shared, size = SHARING[kind]
    with pytest.raises(InvalidInput, match=f"shares {shared} of its {size} examples with '(train|safety)'"):
        JUDGED[where](judge)


def test_a_refused_sweep_leaves_no_folder(tmp_path):
    with pytest.raises(InvalidInput, match="shares 40 of its 40"):
        kd.trace_frontier(
            lambda s: trainer().with_constraints([SafetyConstraint("c", TruthProbability([0]), s)]),
            TRAIN,
            TRAIN,
            targets=[0.5, 0.6],
            epochs=1,
            run_dir=tmp_path / "sweep",
        )
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_certificate_says_how_many_are_shared():
    result = trainer().fit(TRAIN, epochs=1)
    rule = SafetyConstraint("c", TruthProbability([0]), 0.5)
    with pytest.raises(InvalidInput, match="40 shared examples, all it has"):
        kd.certify(result, rule, SHARING["permuted, another dtype"][0])
    assert kd.certify(result, rule, SHARING["overlap"][0]).left_out == int((TRAIN.labels[ORDER[:9]] == 0).sum())


def test_two_judges_that_are_one_are_refused():
    judges = {"a": drawn(3, "a"), "b": Split("b", drawn(3).inputs, drawn(3).labels)}
    with pytest.raises(InvalidInput, match="'b' shares 40 of its 40 examples with 'a'"):
        trainer().fit(TRAIN, epochs=1, splits=judges, tighten=kd.CrossFit(also=["a", "b"]))


def test_a_split_that_trains_judges_nothing_and_may_share():
    copy = Split("safety", TRAIN.inputs, TRAIN.labels)
    result = trainer(split="safety").fit(TRAIN, epochs=1, splits={"safety": copy})
    assert [use.name for use in result.uses] == ["train", "safety"]
    result = trainer(split="validation").fit(TRAIN, copy, epochs=1)
    assert [reading.split for reading in result.point.readings] == ["validation"]


def test_shared_examples_can_be_left_out():
    judge, shared, size = SHARING["overlap"]
    kept = drop_shared(judge, TRAIN)
    assert len(kept) == size - shared
    require_unshared(kept, {"train": TRAIN})
    assert kept.batch().index.tolist() == list(range(25))  # the numbers that they had
    assert drop_shared(drawn(1), TRAIN).name == "train"
    with pytest.raises(InvalidInput, match="All 12 examples of 'train' are also in 'train'"):
        drop_shared(TRAIN.part(ORDER[:12]), TRAIN)


@pytest.mark.parametrize("cells", [4, 64, 512])
def test_inputs_that_recur_by_nature_may_recur(cells):
    """With few values of the inputs, what validation shares with training is no more than chance."""
    draw = torch.Generator().manual_seed(0)
    ask = lambda n: Split(  # noqa: E731
        "q", torch.randint(cells, (n, 1), generator=draw).float(), torch.randint(2, (n,), generator=draw)
    )
    train = ask(400)
    require_unshared(ask(100), {"train": train})
    with pytest.raises(InvalidInput, match="shares 400 of its 400"):
        require_unshared(train.part(torch.arange(399, -1, -1)), {"train": train})


def test_a_whole_number_is_the_same_in_every_dtype():
    values = torch.tensor([[0.0, -3.0], [7.0, 200.0], [0.5, 2.0]])
    keys = {
        dtype: hash_examples(Split("x", values[:2].to(dtype), [0, 1])).tolist()
        for dtype in (torch.float32, torch.float64, torch.float16, torch.int64, torch.int16)
    }
    assert len({tuple(k) for k in keys.values()}) == 1
    half = hash_examples(Split("x", values[2:], [0]))
    assert half.tolist() == hash_examples(Split("x", values[2:].double(), [0])).tolist()


def test_a_file_with_a_row_twice_trains_all_the_same(tmp_path):
    """Where the copy fell into a split that judges, it is left out there."""
    draw = torch.Generator().manual_seed(0)
    lines = [f"{x:.6f},{y:.6f},{'ab'[int(x > 0)]}" for x, y in torch.randn(60, 2, generator=draw).tolist()]
    (tmp_path / "cases.csv").write_text("x,y,label\n" + "\n".join([*lines, *lines[:6]]) + "\n")
    config = kd.experiment.config.DataConfig(
        source="cases.csv", label="label", splits={"train": 0.5, "validation": 0.25, "certify": 0.125, "test": 0.125}
    )
    table = kd.experiment.load_examples(config, tmp_path)
    for seed in range(5):
        splits, index, _ = kd.experiment.split_examples(table, config, seed)
        for name in ("validation", "certify", "test"):
            require_unshared(splits[name], {"train": splits["train"]})
        assert sum(map(len, index.values())) == 66
