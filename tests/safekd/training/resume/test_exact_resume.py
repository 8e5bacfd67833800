"""A run that was stopped goes on from its checkpoint and ends as if it had never stopped, to the last bit."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import safekd as kd
from benchmarks.survive import contents_but_clock, make_split, make_trainer
from safekd.training.loop.step import PrimalDualStep
from safekd.training.trace import Callback


class Crash(Exception):
    """Stands for a kill: nothing of the run's own code sees it."""


TRAIN, HELD = make_split("train", 70, 1), make_split("validation", 40, 2)


def fit(folder, kind="minibatches", *, start=11, trainer=None, train=TRAIN, **more):
    trainer = make_trainer(kind, start=start) if trainer is None else trainer
    given = {"epochs": 12, "trace_every": 7, "snapshots": 6, "checkpoint_every": 4} | more
    return trainer.fit(train, HELD, run_dir=folder, **given)


def crash_after(monkeypatch, steps):
    """Let the process end, as it were, once so many steps are taken."""
    real, count = PrimalDualStep.step, iter(range(steps))

    def step(self, *given):
        if next(count, None) is None:
            raise Crash
        return real(self, *given)

    monkeypatch.setattr(PrimalDualStep, "step", step)


def stop_and_go_on(folder, monkeypatch, *stops, kind="minibatches", **more):
    for number, steps in enumerate(stops):
        with monkeypatch.context() as patch:
            crash_after(patch, steps)
            with pytest.raises(Crash):
                fit(folder, kind, start=11 + number, **more)
        torch.rand(3)  # another process would be elsewhere in its random numbers
    return fit(folder, kind, start=999, **more)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Runs that nothing stopped, each of them once: its folder and its result."""
    kept = {}

    def run(name="minibatches", **more):
        if name not in kept:
            folder = tmp_path_factory.mktemp("undisturbed")
            kept[name] = folder, fit(folder, **more)
        return kept[name]

    return run


KINDS = ("minibatches", "full batches", "independent batches", "schedule", "learned rule", "microbatches", "float16")
MID_EPOCH, BOUNDARY = 13, 20  # five batches an epoch


CASES = [("minibatches", (MID_EPOCH,)), ("schedule", (BOUNDARY,)), *((kind, (6, 9, 30)) for kind in KINDS)]


@pytest.mark.parametrize(("kind", "stops"), CASES, ids=str)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(kind, stops, tmp_path, monkeypatch, undisturbed):
    more = {"epochs": 60} if kind == "full batches" else {}
    folder, whole = undisturbed(kind, kind=kind, **more)
    torch.rand(5)
    result = stop_and_go_on(tmp_path / "stopped", monkeypatch, *stops, kind=kind, **more)
    assert result.multipliers == whole.multipliers
    assert contents_but_clock(tmp_path / "stopped") == contents_but_clock(folder)
    assert kd.verify_files(tmp_path / "stopped").holds()


class Noisy(Dataset):
    """Examples with noise from torch's generator, as crops of pictures have it."""

    def __len__(self):
        return len(TRAIN)

    def __getitem__(self, place):
        return TRAIN.inputs[place] + 0.01 * torch.randn(4), TRAIN.labels[place]


class Stream(IterableDataset):
    """Examples one after the other."""

    def __iter__(self):
        return ((TRAIN.inputs[place] + 0.01 * torch.randn(4), TRAIN.labels[place]) for place in range(len(TRAIN)))


DATA = {
    "a loader that shuffles": lambda: DataLoader(Noisy(), 16, shuffle=True),
    "a loader with workers": lambda: DataLoader(Noisy(), 16, shuffle=True, num_workers=2),
    "a loader of an iterable": lambda: DataLoader(Stream(), 16),
    "a data set that is read as it is needed": lambda: kd.data.DatasetSource("train", TensorDataset(*PAIR)),
}
PAIR = (TRAIN.inputs, TRAIN.labels)


PLACES = [
    pytest.param(
        data,
        stops,
        marks=[pytest.mark.slow] * (data == "a loader with workers" and len(stops) > 1),
        id=f"{data}-{stops}",
    )
    for data in DATA
    for stops in ((MID_EPOCH,), (BOUNDARY, 7))
]


@pytest.mark.parametrize(("data", "stops"), PLACES)
def test_data_that_are_not_in_memory_go_on_at_their_place(data, stops, tmp_path, monkeypatch, undisturbed):
    kind = "minibatches" if data.startswith("a data set") else "stream"
    more = {"kind": kind, "epochs": 6, "trace_every": 10}
    folder, whole = undisturbed(data, train=DATA[data](), **more)
    again = stop_and_go_on(tmp_path / "stopped", monkeypatch, *stops, train=DATA[data](), **more)
    assert again.multipliers == whole.multipliers
    assert contents_but_clock(tmp_path / "stopped") == contents_but_clock(folder)


def test_checkpoints_change_nothing(tmp_path):
    torch.manual_seed(0)
    trainer = make_trainer()
    without = trainer.fit(TRAIN, HELD, epochs=12, trace_every=7, snapshots=6)
    whole = fit(tmp_path / "a", checkpoint_every=1)
    other = fit(tmp_path / "b", checkpoint_every=1000)
    assert contents_but_clock(tmp_path / "a") == contents_but_clock(tmp_path / "b")
    assert without.multipliers == whole.multipliers == other.multipliers


@pytest.mark.parametrize("every", [1, 5, 11])
def test_when_checkpoints_were_taken_does_not_matter(every, tmp_path, monkeypatch, undisturbed):
    stop_and_go_on(tmp_path, monkeypatch, 23, checkpoint_every=every)
    assert contents_but_clock(tmp_path) == contents_but_clock(undisturbed()[0])


def test_a_finished_run_leaves_no_checkpoints_and_the_next_one_begins_anew(tmp_path):
    fit(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    assert fit(tmp_path, epochs=2).point.step == 10
    with pytest.raises(kd.InvalidInput, match="holds no checkpoint to go on from"):
        fit(tmp_path, resume="must")


def test_the_growing_trace_holds_each_line_once(tmp_path, monkeypatch):
    def look(point):
        steps = [json.loads(line)["step"] for line in (tmp_path / "trace.jsonl").open()]
        assert steps == [*range(0, point.step + 1, 7)]

    result = stop_and_go_on(tmp_path, monkeypatch, 16, 9, epochs=7, on_trace=look)  # 35 steps
    assert result.point.step == 35


def test_the_clock_goes_on_from_the_checkpoint(tmp_path, monkeypatch):
    result = stop_and_go_on(tmp_path, monkeypatch, 30)
    wall = result.trace["wall_s"]
    assert (wall.diff().dropna() >= 0).all()


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(tmp_path, monkeypatch, undisturbed):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        crash_after(patch, 30)
        with pytest.raises(Crash):
            fit(folder)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000024", "step-000028"]
    (folder / "checkpoints" / "step-000028" / "student.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"goes on from step 24, the last that is whole\. .*student\.safetensors"):
        fit(folder, start=5)
    assert contents_but_clock(folder) == contents_but_clock(undisturbed()[0])


def test_callbacks_go_on_with_their_run(tmp_path, monkeypatch):
    class Counter(Callback):
        def __init__(self):
            self.points = 0

        def on_trace(self, point):
            self.points += 1

        def state_dict(self):
            return {"points": self.points}

        def load_state_dict(self, state):
            self.points = state["points"]

    with monkeypatch.context() as patch:
        crash_after(patch, 30)
        with pytest.raises(Crash):
            fit(tmp_path, callbacks=[Counter()])
    counter = Counter()
    result = fit(tmp_path, callbacks=[counter])
    assert counter.points == len(result.trace)


def test_a_teacher_that_moves_goes_on_where_it_was(tmp_path, monkeypatch):
    def run(folder, start):
        trainer = make_trainer(start=start)
        average = torch.nn.Linear(4, 3)
        teachers = [kd.teachers.TorchTeacher("ema", average, moving=True)]
        trainer = make_trainer(start=start, teachers=teachers)
        trainer.problem.optimizer.register_step_post_hook(lambda *_: average.weight.data.mul_(0.99))
        return fit(folder, trainer=trainer)

    torch.manual_seed(3)
    run(tmp_path / "whole", 11)
    with monkeypatch.context() as patch:
        crash_after(patch, 21)
        torch.manual_seed(3)
        with pytest.raises(Crash):
            run(tmp_path / "stopped", 11)
    run(tmp_path / "stopped", 12)
    assert contents_but_clock(tmp_path / "stopped") == contents_but_clock(tmp_path / "whole")


def test_an_optimizer_that_keeps_wider_numbers_than_its_parameters_loses_no_bit(tmp_path, monkeypatch):
    class Wide(torch.optim.Optimizer):
        """Keeps a float64 copy of each parameter."""

        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.01})

        @torch.no_grad()
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                wide = self.state[p].setdefault("wide", p.double().clone())
                wide -= 0.01 * p.grad.double()
                p.copy_(wide)

    def run(folder, start):
        trainer = make_trainer(start=start)
        student = trainer.student
        trainer = kd.ConstrainedTrainer(
            student,
            trainer.problem.objective.ensemble,
            optimizer=Wide(student.parameters()),
            constraints=trainer.constraints,
            batch_size=16,
        )
        return fit(folder, trainer=trainer)

    run(tmp_path / "whole", 11)
    with monkeypatch.context() as patch:
        crash_after(patch, 21)
        with pytest.raises(Crash):
            run(tmp_path / "stopped", 11)
    run(tmp_path / "stopped", 12)
    assert contents_but_clock(tmp_path / "stopped") == contents_but_clock(tmp_path / "whole")
