"""Fits on data that are not in memory: the same numbers as on a Split, and what cannot be is told."""

from __future__ import annotations

import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import safekd as kd
from safekd.data import DatasetSource, Split, StreamSource
from safekd.errors import InvalidInput, SafekdWarning
from safekd.training.loop._point_reader import mix_seed

N, SIZE = 300, 32
draw = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=draw).double()
Y = (X[:, 0] + 0.3 * torch.randn(N, generator=draw).double() > 0).long()
V = torch.randn(90, 3, generator=draw).double()
W = (V[:, 0] > 0).long()


class Order:
    """Batches in the order that a trainer of seed 0 takes examples in, so that a stream can be held against a Split."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(mix_seed(0, self.epoch)))
        for index in order.split(SIZE):
            yield X[index], Y[index], index


class Lazy(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, place):
        return X[place], Y[place]


def answer(x):
    return torch.stack([-x[:, 0], x[:, 0] + 0.2 * x[:, 1]], -1)


def trainer(batch_size=SIZE, at_least=0.8, teacher=None, worst=None, split="train", **settings):
    torch.manual_seed(0)
    student = torch.nn.Linear(3, 2).double()
    measure = kd.safety.TruthProbability([1])
    rules = [
        kd.SafetyConstraint("smooth", measure, at_least, split=split),
        kd.SafetyConstraint("counted", kd.safety.Recall([0]), 0.7),
    ]
    teacher = teacher or kd.teachers.CallableTeacher("t", answer, gives="logits")
    sgd = torch.optim.SGD(student.parameters(), lr=0.05)
    return kd.ConstrainedTrainer(
        student, [teacher], constraints=rules, optimizer=sgd, batch_size=batch_size, **settings
    )


def numbers(result):
    """Every number of the trace, the machine's own left out."""
    table = result.trace.drop(columns=list(kd.training.trace.MACHINE_COLUMNS), errors="ignore")
    return table.select_dtypes("number").to_numpy(dtype=float)


@pytest.fixture(scope="module")
def of_a_split():
    return trainer().fit(Split("train", X, Y), Split("validation", V, W), epochs=4, trace_every=7)


SOURCES = {
    "dataset": lambda: (DatasetSource("train", Lazy()), DatasetSource("validation", TensorDataset(V, W)), SIZE),
    "workers": lambda: (DatasetSource("train", Lazy(), workers=2), DataLoader(TensorDataset(V, W), 16), SIZE),
    "stream": lambda: (
        StreamSource("train", Order(), fields=("inputs", "labels", "numbers")),
        StreamSource("validation", [(V[:40], W[:40]), (V[40:], W[40:])]),
        None,
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_losses_multipliers_and_residuals_are_those_of_a_split(kind, of_a_split):
    train, validation, batch_size = SOURCES[kind]()
    result = trainer(batch_size).fit(train, validation, epochs=4, trace_every=7)
    np.testing.assert_allclose(numbers(result), numbers(of_a_split), rtol=1e-11, atol=1e-12)
    assert [use.fingerprint for use in result.uses] == [use.fingerprint for use in of_a_split.uses]
    assert [use.record() for use in result.uses] == [use.record() for use in of_a_split.uses]
    assert result.status == of_a_split.status


def test_a_small_dataset_is_read_into_memory_as_ever(of_a_split):
    result = trainer().fit(Lazy(), TensorDataset(V, W), epochs=4, trace_every=7)
    assert numbers(result).tobytes() == numbers(of_a_split).tobytes()


def test_full_batches_of_a_dataset_are_those_of_a_split():
    results = [
        trainer(None).fit(data, epochs=20, trace_every=5)
        for data in (Split("train", X, Y), DatasetSource("train", Lazy()))
    ]
    np.testing.assert_allclose(numbers(results[1]), numbers(results[0]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_is_taken_as_it_is(workers):
    loader = DataLoader(TensorDataset(X, Y), SIZE, shuffle=True, num_workers=workers)
    results = [trainer(size).fit(loader, DataLoader(TensorDataset(V, W), 16), epochs=3) for size in (None, SIZE)]
    assert numbers(results[0]).tobytes() == numbers(results[1]).tobytes()
    point = results[0].point
    assert (point.step, point.epoch) == (3 * -(-N // SIZE), 3)
    assert results[0].uses[0].record()["examples"] == N


def test_workers_change_no_number():
    one, other = (
        trainer(None).fit(DataLoader(TensorDataset(X, Y), SIZE, shuffle=True, num_workers=workers), epochs=2)
        for workers in (0, 2)
    )
    assert numbers(one).tobytes() == numbers(other).tobytes()


def test_evaluations_change_no_step():
    students = [
        trainer(None).fit(DataLoader(TensorDataset(X, Y), SIZE, shuffle=True), epochs=2, trace_every=every)
        for every in (1, 1000)
    ]
    assert torch.equal(students[0].student.weight, students[1].student.weight)


def test_evaluations_read_no_more_at_a_time_than_a_step():
    seen = []

    class Student(torch.nn.Linear):
        def forward(self, inputs):
            seen.append(len(inputs))
            return super().forward(inputs)

    student = Student(3, 2).double()
    teacher = kd.teachers.CallableTeacher("t", answer, gives="logits")
    rule = kd.SafetyConstraint("c", kd.safety.TruthProbability([1]), 0.5)
    sgd = torch.optim.SGD(student.parameters(), lr=0.05)
    posed = kd.ConstrainedTrainer(student, [teacher], constraints=[rule], optimizer=sgd)
    posed.fit([(X[i : i + 8], Y[i : i + 8]) for i in range(0, N, 8)], Split("validation", V, W), epochs=1)
    assert max(seen) == 8


def test_passes_may_differ_in_how_many_batches_they_have():
    class Buckets(Order):
        def __iter__(self):
            size = 30 if self.epoch % 2 else 20  # the first pass has 15 batches, epoch 1 has 10
            for index in torch.arange(N).split(size):
                yield X[index], Y[index]

    for epochs, steps in ((1, 10), (2, 25)):
        result = trainer(None).fit(StreamSource("train", Buckets()), epochs=epochs, trace_every=4)
        assert (result.point.step, result.trace["step"].iloc[-1]) == (steps, steps)


# ---- constraints on data beside the training data ----

MORE = torch.randn(500, 3, generator=draw).double()
MORE_LABELS = (MORE[:, 0] > 0.2).long()


class Pieces:
    """A stream that counts how many of its batches somebody holds."""

    def __init__(self, batches, rows):
        self.batches, self.rows, self.held, self.most = batches, rows, weakref.WeakSet(), 0

    def __iter__(self):
        for _ in range(self.batches):
            x = torch.ones(self.rows, 3).double()
            self.held.add(x)
            self.most = max(self.most, len(self.held))
            yield x, torch.ones(self.rows, dtype=torch.long)
            del x


BESIDE = {
    "loader": lambda: DataLoader(TensorDataset(MORE, MORE_LABELS), 60),
    "shuffled": lambda: DataLoader(TensorDataset(MORE, MORE_LABELS), 60, shuffle=True),
    "dataset": lambda: DatasetSource("more", TensorDataset(MORE, MORE_LABELS)),
    "uneven": lambda: [(MORE[:7], MORE_LABELS[:7]), (MORE[7:], MORE_LABELS[7:])],
    "function": lambda: lambda: zip(MORE.split(100), MORE_LABELS.split(100), strict=True),
}


def fit_beside(more, batch_size=SIZE, epochs=3, train=None, **options):
    posed = trainer(batch_size, split="more")
    return posed.fit(train or Split("train", X, Y), splits={"more": more}, epochs=epochs, trace_every=7, **options)


@pytest.fixture(scope="module")
def beside_in_memory():
    result = fit_beside(Split("more", MORE, MORE_LABELS))
    assert result.multipliers["smooth"] > 0.01  # the constraint has a say
    return result


@pytest.mark.parametrize("kind", BESIDE)
def test_a_constraint_on_a_stream_beside_is_that_of_a_split(kind, beside_in_memory):
    result = fit_beside(BESIDE[kind]())
    np.testing.assert_allclose(numbers(result), numbers(beside_in_memory), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.student.weight, beside_in_memory.student.weight, rtol=0, atol=1e-12)
    assert result.multipliers == pytest.approx(beside_in_memory.multipliers, rel=0, abs=1e-12)
    assert result.status == beside_in_memory.status
    assert [use.record() for use in result.uses] == [use.record() for use in beside_in_memory.uses]


def test_all_data_may_stream_at_once(beside_in_memory):
    train = StreamSource("train", Order(), fields=("inputs", "labels", "numbers"))
    result = fit_beside(BESIDE["loader"](), None, train=train)
    np.testing.assert_allclose(numbers(result), numbers(beside_in_memory), rtol=1e-11, atol=1e-12)


def test_full_steps_beside_a_stream_are_those_of_a_split():
    results = [fit_beside(more, None, 10) for more in (Split("more", MORE, MORE_LABELS), BESIDE["loader"]())]
    np.testing.assert_allclose(numbers(results[1]), numbers(results[0]), rtol=1e-12, atol=1e-12)


def test_of_a_stream_beside_no_more_is_held_than_a_few_batches():
    held = []
    for batches in (10, 200):
        pieces = Pieces(batches, SIZE)
        fit_beside(pieces, batch_size=150, epochs=1)
        held.append(pieces.most)
    assert held[1] <= held[0] <= 4


@pytest.mark.processes
def test_a_killed_run_beside_a_stream_ends_as_if_it_had_not_been(tmp_path):
    def die(point):
        if point.step == 14:
            raise Killed

    options = {"checkpoint_every": 5}
    whole = fit_beside(BESIDE["shuffled"](), run_dir=tmp_path / "whole", **options)
    with pytest.raises(Killed):
        fit_beside(BESIDE["shuffled"](), run_dir=tmp_path / "killed", on_trace=die, **options)
    result = fit_beside(BESIDE["shuffled"](), run_dir=tmp_path / "killed", **options)
    assert numbers(result).tobytes() == numbers(whole).tobytes()
    assert torch.equal(result.student.weight, whole.student.weight)
    assert result.multipliers == whole.multipliers


# ---- what is not possible ----

NOISE = kd.teachers.Perturbation(passes=2)
REFUSED = {
    "another batch size": (
        lambda: trainer(16).fit(DataLoader(TensorDataset(X, Y), SIZE), epochs=1),
        "`batch_size` is 16, and `train` comes in batches of 32; leave `batch_size` out",
    ),
    "independent batches": (
        lambda: trainer(SIZE, independent_batches=True).fit(DataLoader(TensorDataset(X, Y), SIZE), epochs=1),
        "`independent_batches` reads two batches from opposite ends.*`train` is a stream",
    ),
    "a step on everything": (
        lambda: trainer(None).fit(DatasetSource("train", TensorDataset(X.repeat(20, 1), Y.repeat(20))), epochs=1),
        "`train` has 6,000 examples, read as they are needed, and each step would read all of them; .*`batch_size`",
    ),
    "judged by what trained": (
        lambda: trainer(None).fit([(X, Y)], Split("validation", X[:50], Y[:50]), epochs=1),
        "'validation' shares 50 of its 50 examples with 'train'",
    ),
    "judged by a stream of what trained": (
        lambda: trainer().fit(Split("train", X, Y), [(X[:50], Y[:50]), (V, W)], epochs=1),
        "'validation' shares 50 of its 140 examples with 'train'",
    ),
    "a table of a teacher": (
        lambda: trainer(None, teacher=kd.teachers.StoredTeacher("s", torch.full((N, 2), 0.5))).fit([(X, Y)], epochs=1),
        "Teacher 's' has 300 stored rows, and the examples of 'train' have no index.*numbers",
    ),
    "the variance of a teacher": (
        lambda: trainer(None, weights=kd.weights.InverseVariance(), perturbation=NOISE).fit([(X, Y)], epochs=1),
        "needs the variance of each teacher, which is measured over a whole split in memory; 'train' is read as it is",
    ),
    "a table of weights": (
        lambda: trainer(None, weights=kd.weights.Stored(torch.ones(N, 1))).fit([(X, Y)], epochs=1),
        "Stored weights .*the examples of 'train' have no index.*numbers",
    ),
    "a group that has no example": (
        lambda: trainer(None).fit([(X, torch.ones_like(Y))], epochs=1),
        "Constraint 'counted' covers no example of split 'train'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_trained(case):
    attempt, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        attempt()


def test_tables_are_read_by_number():
    table = torch.softmax(answer(X), -1)
    by_place = trainer(teacher=kd.teachers.StoredTeacher("s", table)).fit(Split("train", X, Y), epochs=2)
    numbered = StreamSource("train", Order(), fields=("inputs", "labels", "numbers"))
    by_number = trainer(None, teacher=kd.teachers.StoredTeacher("s", table)).fit(numbered, epochs=2)
    np.testing.assert_allclose(numbers(by_number), numbers(by_place), rtol=1e-11, atol=1e-12)
    weighed = trainer(None, weights=kd.weights.Stored(torch.ones(N, 1))).fit(numbered, epochs=1)
    assert np.isfinite(numbers(weighed)[:, 2]).all()


# ---- what a run has used ----


def test_certify_leaves_out_what_a_stream_trained_on():
    result = trainer(None).fit(DataLoader(TensorDataset(X, Y), SIZE, shuffle=True), epochs=1)
    rule = trainer().constraints[0]
    held_out = Split("held_out", torch.cat([X[:20], V]), torch.cat([Y[:20], W]))
    certificate = kd.certify(result, rule, held_out)
    assert certificate.left_out == int(Y[:20].sum())
    with pytest.raises(InvalidInput, match=r"holds the data that this run used as 'train' for gradient steps"):
        kd.certify(result, rule, Split("held_out", X[:20], Y[:20]))


def test_what_a_large_stream_held_is_known_again(monkeypatch, tmp_path):
    from safekd.data.provenance import _seen_examples

    for bytes_, known in ((2**12, True), (2**4, False)):
        monkeypatch.setattr(
            _seen_examples, "SETTINGS", _seen_examples.SeenExamplesSettings(filter_bytes=bytes_, some_keys=16)
        )
        monkeypatch.setattr(_seen_examples.SeenExamples.__init__, "__defaults__", (100,))
        result = trainer(None).fit(DataLoader(TensorDataset(X, Y), SIZE), epochs=1)
        assert not result.uses[0].seen.is_exact
        held_out, rule = Split("held_out", torch.cat([X[:20], V]), torch.cat([Y[:20], W])), trainer().constraints[0]
        if known:
            assert int(Y[:20].sum()) <= kd.certify(result, rule, held_out).left_out < int(Y[:20].sum()) + 10
            with pytest.raises(InvalidInput, match="'validation' shares 16 of 16 of its 300 examples with 'train'"):
                trainer(None).fit(
                    DataLoader(TensorDataset(X + 0, Y), SIZE), DataLoader(TensorDataset(X, Y), 7), epochs=1
                )
        else:
            with pytest.warns(SafekdWarning, match="holds examples of 'train' cannot be told: that streamed 300"):
                kd.certify(result, rule, held_out)


def test_a_saved_run_knows_what_it_streamed(tmp_path):
    result = trainer(None).fit(DataLoader(TensorDataset(X, Y), SIZE), DataLoader(TensorDataset(V, W), 9), epochs=1)
    result.save(tmp_path / "run")
    again = kd.FitResult.load(tmp_path / "run", torch.nn.Linear(3, 2).double())
    assert [use.record() for use in again.uses] == [use.record() for use in result.uses]
    with pytest.raises(InvalidInput, match="readings of the trace"):
        kd.certify(again, trainer().constraints[0], Split("held_out", V, W))
    assert pd.notna(result.trace["validation_distillation_loss"]).all()


# ---- runs that are killed ----


class Killed(Exception):
    pass


class Buckets(Order):
    """Another number of batches in each pass."""

    def __iter__(self):
        for index in torch.arange(N).split(20 + 5 * (self.epoch % 3)):
            yield X[index], Y[index]


class Noisy(Lazy):
    def __getitem__(self, place):
        return X[place] + 0.1 * torch.randn(3).double(), Y[place]


KILLED = {
    "loader": lambda: (DataLoader(TensorDataset(X, Y), SIZE, shuffle=True), None),
    "workers": lambda: (DataLoader(TensorDataset(X, Y), SIZE, shuffle=True, num_workers=2), None),
    "batches of other sizes": lambda: (StreamSource("train", Buckets()), None),
    "dataset": lambda: (DatasetSource("train", Lazy(), workers=2), SIZE),
    "noise": lambda: (Noisy(), SIZE),
    "noise and workers": lambda: (DatasetSource("train", Noisy(), workers=2), SIZE),
}


SLOW = {"workers", "dataset"}  # each pass starts workers anew; "noise and workers" has them in the default suite


@pytest.mark.processes
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KILLED])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(kind, tmp_path):
    def fit(folder, die_at=None):
        def die(point):
            if point.step == die_at:
                raise Killed

        train, batch_size = KILLED[kind]()
        torch.manual_seed(die_at or 0)
        posed = trainer(batch_size)
        validation = Split("validation", V, W)
        return posed.fit(train, validation, epochs=3, trace_every=9, run_dir=folder, checkpoint_every=5, on_trace=die)

    whole = fit(tmp_path / "whole")
    for step in (9, 18):
        with pytest.raises(Killed):
            fit(tmp_path / "killed", step)
    result = fit(tmp_path / "killed")
    assert numbers(result).tobytes() == numbers(whole).tobytes()
    assert torch.equal(result.student.weight, whole.student.weight)
    assert result.multipliers == whole.multipliers


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    def die(point):
        if point.step == 7:
            raise Killed

    def fit(labels, **more):
        loader = DataLoader(TensorDataset(X, labels), SIZE, shuffle=True)
        return trainer(None).fit(loader, epochs=2, trace_every=7, run_dir=tmp_path / "run", checkpoint_every=5, **more)

    with pytest.raises(Killed):
        fit(Y, on_trace=die)
    changed = Y.clone()
    changed[N - 1] = 1 - changed[N - 1]
    with pytest.raises(InvalidInput, match="train"):
        fit(changed)
    assert fit(Y).point.step == 20
