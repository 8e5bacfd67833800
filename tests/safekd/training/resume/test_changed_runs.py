"""A run goes on only with what it was begun with; what has changed is named, and may be accepted knowingly."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

import safekd as kd
from benchmarks.survive import make_split, make_teachers, make_trainer
from safekd.training.loop.step import PrimalDualStep

from .test_checkpoint_store import restate

TRAIN, HELD = make_split("train", 70, 1), make_split("validation", 40, 2)


class Crash(Exception):
    """Stands for a kill."""


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a run that was stopped at step 12."""
    real, count = PrimalDualStep.step, iter(range(12))

    def step(self, *given):
        if next(count, None) is None:
            raise Crash
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(PrimalDualStep, "step", step)
        with pytest.raises(Crash):
            fit(tmp_path)
    return tmp_path


def fit(folder, trainer=None, data=TRAIN, **more):
    trainer = make_trainer() if trainer is None else trainer
    return trainer.fit(data, HELD, run_dir=folder, **{"epochs": 8, "trace_every": 7, "checkpoint_every": 4} | more)


def another_example():
    inputs = TRAIN.inputs.clone()
    inputs[69, 3] += 1e-3
    return kd.Split("train", inputs, TRAIN.labels)


def calling(factor):
    return kd.teachers.CallableTeacher("rule", lambda x: torch.softmax(x[:, :3] * factor, -1))


CHANGES = {
    "a rate": (
        lambda: {"trainer": make_trainer(lr=0.02)},
        r"`optimizer\.lr` was 0\.01 and is now 0\.02",
        "optimizer.lr",
    ),
    "the kind of optimizer": (
        lambda: {"trainer": make_trainer("schedule")},
        r"`optimizer\.kind` was",
        "optimizer.kind",
    ),
    "the seed": (lambda: {"trainer": make_trainer(seed=1)}, "`seed` was 0 and is now 1", "seed"),
    "a threshold": (lambda: {"trainer": make_trainer(at_least=0.6)}, "`constraints` was", "constraints"),
    "the dual method": (lambda: {"trainer": make_trainer(dual=kd.PIGain(cap=50.0))}, r"`dual\.cap` was", "dual.cap"),
    "dropout": (lambda: {"trainer": make_trainer(dropout=0.3)}, "`student_structure` was", "student_structure"),
    "a teacher's weights": (
        lambda: {"trainer": make_trainer(teachers=make_teachers(6))},
        r"`teachers\.one\.module\.weight` was",
        "teachers.one.module.weight",
    ),
    "an example": (lambda: {"data": another_example()}, r"`data\.train` was", "data.train"),
    "epochs": (lambda: {"epochs": 9}, "`epochs` was 8 and is now 9", "epochs"),
    "rows of the trace": (lambda: {"trace_every": 5}, "`trace_every` was 7 and is now 5", "trace_every"),
    "tightening": (lambda: {"tighten": kd.CrossFit(folds=2)}, "`tighten` was null", "tighten"),
    "clipping": (lambda: {"trainer": make_trainer(clip_norm=0.5)}, "`clip_norm` was null and is now 0.5", "clip_norm"),
    "microbatches": (
        lambda: {"trainer": make_trainer(microbatch_size=4)},
        "`microbatch_size` was null",
        "microbatch_size",
    ),
    "a divergence": (lambda: {"trainer": make_trainer(divergence="reverse_kl")}, "`divergence` was", "divergence"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_named_and_nothing_is_trained(what, stopped):
    change, message, key = CHANGES[what]
    before = sorted(path.name for path in (stopped / "checkpoints").iterdir())
    seen = []
    with pytest.raises(kd.InvalidInput, match=message) as refused:
        fit(stopped, **change(), on_trace=seen.append)
    assert f"allow_change=['{key}']" in str(refused.value)
    assert "was stopped at step 12" in str(refused.value)
    assert seen == []
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == before
    fit(stopped)


def test_a_teachers_code_counts(tmp_path, monkeypatch):
    def begin(factor):
        return fit(tmp_path, trainer=make_trainer(teachers=[calling(factor)]), epochs=3)

    monkeypatch.setattr(PrimalDualStep, "step", crash_at(PrimalDualStep.step, 9))
    with pytest.raises(Crash):
        begin(1.0)
    monkeypatch.undo()
    with pytest.raises(kd.InvalidInput, match=r"`teachers\.rule\..*` was"):
        begin(1.1)


def crash_at(real, steps):
    count = iter(range(steps))

    def step(self, *given):
        if next(count, None) is None:
            raise Crash
        return real(self, *given)

    return step


def test_a_rate_that_is_accepted_holds_from_there_on(stopped):
    trainer = make_trainer(lr=0.02)
    with pytest.raises(kd.InvalidInput, match="`seed` was"):
        fit(stopped, trainer=make_trainer(lr=0.02, seed=1), allow_change=["optimizer.lr"])
    result = fit(stopped, trainer=trainer, allow_change=["optimizer.lr"])
    assert trainer.problem.optimizer.param_groups[0]["lr"] == 0.02
    assert result.point.step == 40


@pytest.mark.parametrize("allowed", [["epochs"], ["optimizer", "epochs"], ("epochs",)])
def test_more_epochs_may_be_accepted(allowed, stopped):
    assert fit(stopped, epochs=10, allow_change=allowed).point.step == 50


def test_fewer_epochs_than_were_trained_are_refused(stopped):
    with pytest.raises(kd.InvalidInput, match=r"is at step 12, and the run is to end at step 10"):
        fit(stopped, epochs=2, allow_change=["epochs"])


def test_thresholds_may_be_accepted_but_not_another_number_of_constraints(stopped):
    first, _ = make_trainer().constraints
    with pytest.raises(kd.InvalidInput, match=r"its `engine` cannot be put back\. State of another problem"):
        fit(stopped, trainer=make_trainer(constraints=[first]), allow_change=["constraints", "critical_classes"])
    assert fit(stopped, trainer=make_trainer(at_least=0.4), allow_change=["constraints"]).point.step == 40


def test_another_schedule_may_be_accepted(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(PrimalDualStep, "step", crash_at(PrimalDualStep.step, 12))
        with pytest.raises(Crash):
            fit(tmp_path, trainer=make_trainer("schedule"))
    trainer = make_trainer("schedule")
    optimizer = trainer.problem.optimizer
    other = torch.optim.lr_scheduler.StepLR(optimizer, 50)
    student = trainer.student
    again = kd.ConstrainedTrainer(
        student, trainer.objective.ensemble, optimizer=optimizer, scheduler=other, constraints=trainer.constraints,
        batch_size=16,
    )  # fmt: skip
    with pytest.raises(kd.InvalidInput, match="`scheduler` was"):
        fit(tmp_path, trainer=again)
    assert fit(tmp_path, trainer=again, allow_change=["scheduler", "optimizer"]).point.step == 40


def test_where_a_run_begins_does_not_count(stopped):
    """A program that draws first weights anew each time it is started goes on all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(stopped, trainer=make_trainer(start=77)).point.step == 40


def test_other_versions_and_threads_are_told_and_no_reason_to_stop(stopped, monkeypatch):
    monkeypatch.setattr(np, "__version__", "9.9.9")
    with pytest.warns(UserWarning, match=r"last digits may not be .*`machine\.libraries\.numpy` was"):
        fit(stopped)


def test_never_begins_anew(stopped):
    seen = []
    fit(stopped, trainer=make_trainer(lr=0.02), resume="never", on_trace=lambda point: seen.append(point.step))
    assert seen[0] == 0
    assert kd.verify_files(stopped).holds()


def test_must_goes_on_or_refuses(stopped, tmp_path):
    seen = []
    fit(stopped, resume="must", on_trace=lambda point: seen.append(point.step))
    assert seen[0] == 14
    with pytest.raises(kd.InvalidInput, match=r"holds no checkpoint to go on from\. Begin with resume='auto'"):
        fit(tmp_path / "new", resume="must")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"checkpoint_every": 0}, "`checkpoint_every` is 0; wanted at least 1 step"),
        ({"checkpoint_every": 2.5}, "`checkpoint_every` is 2.5; wanted at least 1 step"),
        ({"resume": True}, "`resume` is True; wanted 'auto', 'never' or 'must'"),
        ({"allow_change": "optimizer.lr"}, r"`allow_change` is 'optimizer\.lr'; wanted a list of keys"),
        ({"allow_change": [5]}, r"`allow_change` is \[5\]; wanted a list of keys"),
    ],
)
def test_options_that_are_none_are_refused(given, message, tmp_path):
    with pytest.raises(kd.InvalidInput, match=message):
        fit(tmp_path, **given)


def test_only_damaged_checkpoints_are_told_and_the_run_begins_anew(stopped):
    for path in (stopped / "checkpoints").glob("*/state.json"):
        path.write_text("{}")
    with pytest.warns(UserWarning, match=r"begins anew: no checkpoint is whole\. .*state\.json"):
        fit(stopped)
    assert kd.verify_files(stopped).holds()


def test_a_schedule_that_no_checkpoint_can_hold_is_told_and_stops_no_run(tmp_path):
    trainer = make_trainer("schedule")
    trainer.problem.scheduler.odd = object()
    with pytest.warns(
        UserWarning, match=r"keeps no checkpoints of this run: `loop\.scheduler\.odd` is a builtins\.object"
    ):
        result = fit(tmp_path, trainer=trainer)
    assert result.save_note == ""


def test_a_run_without_a_folder_or_checkpoints_says_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_trainer().fit(TRAIN, epochs=2).save_note == ""
        assert fit(tmp_path, checkpoint_every=None).save_note == ""


FORGED = {  # by someone who made the hashes fit
    "no run": (lambda state: state.update(run={}), r"step-0000\d\d holds no state of a run: KeyError: 'record'"),
    "a layer less": (
        lambda state: state["student"].pop("layers.4.bias"),
        "The checkpoint is of another student.*layers.4",
    ),
    "no parameters": (
        lambda state: state["optimizer"]["param_groups"][0].update(params=[0]),
        "The checkpoint is of another optimizer: loaded state dict contains a parameter group that doesn't match",
    ),
    "a point less": (
        lambda state: state["loop"]["trace"].update(count=3),
        r"its `trace` cannot be put back\. no trace that was packed: ValueError: 2 entries, wanted 3",
    ),
    "no trace": (
        lambda state: state["loop"].update(trace={"points": []}),
        r"its `trace` cannot be put back\. no trace that was packed: KeyError: 'count'",
    ),
    "sums of other groups": (
        lambda state: state["loop"]["values"]["values"].__setitem__(0, state["loop"]["engine"]["rho"]),
        r"its `values` cannot be put back\. Running sums of 'class 0' have shape \(2,\); wanted \(3, 1\)",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_state_that_does_not_fit_the_run_is_refused(what, stopped):
    forge, message = FORGED[what]
    folder = max((stopped / "checkpoints").iterdir())
    state = json.loads((folder / "state.json").read_text())
    forge(state)
    (folder / "state.json").write_text(json.dumps(state))
    restate(folder)
    with pytest.raises(kd.InvalidInput, match=message):
        fit(stopped, resume="must")
