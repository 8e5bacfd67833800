"""Weights from a file or a tensor: each example gets its own row by number, each teacher its own column by name."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.weights import Conforming, Signals, Stored, Unified

N = 6
X = torch.randn(N, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 2
W_NK = torch.rand(N, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
W_NK = W_NK / W_NK.sum(-1, keepdim=True)
TEACHERS = ("expert", "fast")


def split(index=None, name="train", *, numbered=False) -> kd.Split:
    index = torch.arange(N) if index is None else torch.as_tensor(index)
    inputs = X[index] + (name != "train")  # other examples
    return kd.Split(name, inputs, Y[index], numbers=index if numbered else None)


def ask(rule, index=None, teachers=TEACHERS, **more):
    index = torch.arange(N) if index is None else torch.as_tensor(index)
    entropy = torch.ones(len(index), len(teachers or TEACHERS), dtype=torch.float64)
    return rule(Signals(entropy=entropy, index=index, teachers=teachers, **more))


def write(path, columns=TEACHERS, order=None, **more):
    order = range(N) if order is None else order
    frame = pd.DataFrame({name: W_NK[list(order), TEACHERS.index(name)].numpy() for name in columns})
    frame.assign(**more).to_parquet(path) if str(path).endswith("parquet") else frame.assign(**more).to_csv(
        path, index=False, float_format="%.17g"
    )
    return path


class Recorder:
    """A rule that remembers the weights of the rule inside."""

    def __init__(self, rule):
        self.rule, self.needs, self.seen = rule, rule.needs, {}

    def __call__(self, signals):
        w_K = self.rule(signals)
        self.seen |= {(signals.split, int(i)): w for i, w in zip(signals.index, w_K.tolist(), strict=True)}
        return w_K


def fit(rule, data, names=TEACHERS, **more):
    torch.manual_seed(0)
    student = nn.Linear(2, 2)
    teachers = [kd.teachers.CallableTeacher(n, lambda x, k=k: (k + 1) * x, gives="logits") for k, n in enumerate(names)]
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    trainer = kd.ConstrainedTrainer(student, teachers, weights=rule, optimizer=sgd, batch_size=2)
    return trainer.fit(data, epochs=2, **more)


# rows and columns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_each_example_gets_its_row_to_the_last_bit(tmp_path, suffix):
    rule = Stored(write(tmp_path / f"w.{suffix}", note="as it was"))
    index = torch.tensor([4, 0, 4])
    assert torch.equal(ask(rule, index), W_NK[index])


def test_columns_are_found_by_name_in_whatever_order(tmp_path):
    rule = Stored(write(tmp_path / "w.csv", columns=("fast", "expert")))
    assert torch.equal(ask(rule), W_NK)
    assert torch.equal(ask(rule, teachers=("fast", "expert")), W_NK.flip(-1))


def test_rows_are_found_by_a_column_of_numbers_in_whatever_order(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    rule = Stored(write(tmp_path / "w.csv", order=order, case=[f"{i:03d}" for i in order]), by="case")
    assert torch.equal(ask(rule), W_NK)


def test_a_tensor_has_the_teachers_order_or_names():
    assert torch.equal(ask(Stored(W_NK)), W_NK)
    assert torch.equal(ask(Stored(W_NK.flip(-1), teachers=["fast", "expert"])), W_NK)


def test_sequences_get_a_row_for_all_positions_or_one_for_each():
    entropy, index = torch.ones(2, 3, 2, dtype=torch.float64), torch.tensor([5, 1])
    signals = Signals(entropy=entropy, index=index)
    assert torch.equal(Stored(W_NK)(signals), W_NK[index].unsqueeze(1).expand(2, 3, 2))
    each = torch.rand(N, 3, 2, dtype=torch.float64)
    assert torch.equal(Stored(each)(signals), each[index])


# in training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", ["raw", "conforming", "unified"])
def test_a_student_is_trained_with_the_rows_of_its_examples(tmp_path, wrap):
    polytope = kd.WeightPolytope(2, lower=0.3)
    stored = Stored(write(tmp_path / "w.csv"))
    rule = {
        "raw": stored,
        "conforming": Conforming(stored, polytope),
        "unified": Unified(token=stored, polytope=polytope),
    }
    expected = W_NK if wrap == "raw" else kd.project(W_NK, polytope)
    recorder = Recorder(rule[wrap])
    result = fit(recorder, split())
    assert result.point.finite
    assert len(recorder.seen) == N
    for (_, i), w in recorder.seen.items():
        assert w == pytest.approx(expected[i].tolist(), abs=1e-6)


def test_weights_of_a_file_move_the_student_to_the_teacher_that_they_name(tmp_path):
    (tmp_path / "w.csv").write_text("fast,expert\n" + "0,1\n" * N)
    ones = torch.tensor([[1.0, 0.0]]).expand(N, 2)
    from_file, by_hand = fit(Stored(tmp_path / "w.csv"), split()), fit(Stored(ones), split())
    assert torch.equal(from_file.student.weight, by_hand.student.weight)


def test_one_table_for_several_splits_by_numbers(tmp_path):
    recorder = Recorder(Stored(write(tmp_path / "w.csv")))
    train, validation = split([5, 0, 3], numbered=True), split([1, 4], "validation", numbered=True)
    fit(recorder, train, validation=validation)
    assert set(recorder.seen) == {("train", 5), ("train", 0), ("train", 3), ("validation", 1), ("validation", 4)}
    assert recorder.seen["validation", 4] == pytest.approx(W_NK[4].tolist(), abs=1e-6)


def test_a_table_for_each_split():
    recorder = Recorder(Stored({"train": W_NK[:4], "validation": W_NK[4:]}))
    fit(recorder, split(range(4)), validation=split([4, 5], "validation"))
    assert recorder.seen["validation", 1] == pytest.approx(W_NK[5].tolist(), abs=1e-6)


def test_folds_keep_their_rows():
    rule = kd.SafetyConstraint("truth", kd.safety.TruthProbability(), at_least=0.05)
    student = nn.Linear(2, 2)
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    recorder = Recorder(Stored(W_NK))
    trainer = kd.ConstrainedTrainer(
        student,
        [kd.teachers.CallableTeacher(n, lambda x: x, gives="logits") for n in TEACHERS],
        weights=recorder,
        optimizer=sgd,
        constraints=[rule],
    )
    trainer.fit(split(), epochs=5, tighten=kd.CrossFit(folds=2, rounds=2))
    for (_, i), w in recorder.seen.items():
        assert w == pytest.approx(W_NK[i].tolist(), abs=1e-6)


def test_a_file_that_was_changed_is_read_anew_by_the_next_fit(tmp_path):
    path = write(tmp_path / "w.csv")
    recorder = Recorder(Stored(path))
    fit(recorder, split())
    write(path, order=range(N - 1, -1, -1))
    fit(recorder, split())
    assert recorder.seen["train", 0] == pytest.approx(W_NK[N - 1].tolist(), abs=1e-6)


def test_the_text_of_the_rule_says_which_content_it_has(tmp_path):
    path = write(tmp_path / "w.csv")
    before = repr(Stored(path))
    assert before == repr(Stored(path))
    write(path, order=range(N - 1, -1, -1))
    assert repr(Stored(path)) != before
    assert repr(Stored(W_NK)) != repr(Stored(W_NK.flip(0)))


# refusals -----------------------------------------------------------------------------------------------------------


def test_names_that_no_column_has(tmp_path):
    path = write(tmp_path / "w.csv")
    with pytest.raises(
        kd.InvalidInput, match=r"w.csv has no column for teacher 'slow'; it has: expert, fast. Name its"
    ):
        fit(Stored(path), split(), names=("expert", "slow"))
    with pytest.raises(kd.InvalidInput, match="are about teachers a, b; the trainer has expert, fast"):
        fit(Stored(W_NK, teachers=["a", "b"]), split())


def test_a_teacher_of_the_file_that_the_trainer_does_not_have(tmp_path):
    (tmp_path / "w.csv").write_text("expert,fast,cheap\n" + "0.5,0.2,0.3\n" * N)
    with pytest.raises(kd.InvalidInput, match=r"sum to 0\.7, to 1 only with column 'cheap'"):
        fit(Conforming(Stored(tmp_path / "w.csv"), kd.WeightPolytope(2)), split())


def test_examples_without_a_row(tmp_path):
    rule = Stored(write(tmp_path / "w.csv"))
    with pytest.raises(kd.InvalidInput, match=r"no row for example 6 of split 'train': 1 of 3 are missing among"):
        fit(rule, kd.Split("train", X[:3], Y[:3], numbers=torch.tensor([0, 6, 5])))
    with pytest.raises(kd.InvalidInput, match=r"have 6 rows, split 'train' has 4 examples; wanted one row"):
        fit(rule, split(range(4)))


def test_a_column_of_numbers_without_an_example(tmp_path):
    rule = Stored(write(tmp_path / "w.csv", case=[0, 1, 2, 3, 4, 99]), by="case")
    with pytest.raises(kd.InvalidInput, match=r"no row for example 5 of split 'train'.*by column 'case'"):
        fit(rule, split())


def test_rows_that_two_splits_would_share(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"splits 'train' and 'validation' both number their examples from 0"):
        fit(Stored(write(tmp_path / "w.csv")), split(), validation=split(None, "validation"))


def test_a_split_without_a_table():
    with pytest.raises(kd.InvalidInput, match=r"no stored weights for split 'validation'; there are for \['train'\]"):
        fit(Stored({"train": W_NK}), split(), validation=split([0], "validation"))


BAD_COLUMNS = {
    "twice": ([0, 1, 2, 3, 4, 4], "column 'case' has example 4 twice"),
    "halves": ([0, 1, 2, 3, 4, 4.5], "line 7, column 'case': found '4.5', wanted the number of an example"),
    "below 0": ([0, 1, 2, 3, 4, -1], "line 7, column 'case': found '-1', wanted the number of an example"),
    "text": (list("abcdef"), "line 2, column 'case': found 'a'"),
}


@pytest.mark.parametrize("case", BAD_COLUMNS)
def test_example_numbers_that_are_none(tmp_path, case):
    numbers, message = BAD_COLUMNS[case]
    rule = Stored(write(tmp_path / "w.csv", case=numbers), by="case")
    with pytest.raises(kd.InvalidInput, match=message):
        fit(rule, split())


MADE = {
    "no file": (lambda folder: Stored(folder / "none.csv"), "none.csv"),
    "no such column": (
        lambda folder: Stored(write(folder / "w.csv"), by="id"),
        "has no column 'id' of example numbers",
    ),
    "a list": (lambda folder: Stored([[0.5, 0.5]]), "Stored weights are a list; wanted the path"),
    "integers": (lambda folder: Stored(torch.ones(3, 2, dtype=torch.long)), r"shape \(3, 2\) \(torch.int64\)"),
    "nan": (lambda folder: Stored(W_NK * torch.nan), "wanted finite floats"),
    "one axis": (lambda folder: Stored(W_NK[0]), r"shape \(2,\)"),
    "names": (lambda folder: Stored(W_NK, teachers=["a"]), "have 2 columns for 1 `teachers`"),
    "a column of a tensor": (lambda folder: Stored(W_NK, by="id"), "a tensor has no columns of names"),
}


@pytest.mark.parametrize("case", MADE)
def test_sources_that_are_none(tmp_path, case):
    make, message = MADE[case]
    with pytest.raises(kd.InvalidInput, match=message):
        make(tmp_path)


def test_a_cell_that_is_no_number_is_named(tmp_path):
    (tmp_path / "w.csv").write_text("expert,fast\n0.5,0.5\n0.5,x\n" + "1,0\n" * 4)
    with pytest.raises(kd.InvalidInput, match="line 3, column 'fast': found 'x'"):
        fit(Stored(tmp_path / "w.csv"), split())


def test_signals_that_do_not_say_what_they_are_about(tmp_path):
    with pytest.raises(kd.MissingSignal, match="pass `index`"):
        Stored(W_NK)(Signals(entropy=torch.ones(2, 2)))
    with pytest.raises(kd.MissingSignal, match="pass `teachers`"):
        ask(Stored(write(tmp_path / "w.csv")), teachers=None)


def test_another_number_of_teachers():
    with pytest.raises(kd.InvalidInput, match="are about 2 teachers, there are 3"):
        ask(Stored(W_NK), teachers=("a", "b", "c"))
