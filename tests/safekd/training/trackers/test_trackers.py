"""Runs told to trackers: what arrives, and that a tracker can do no harm."""

from __future__ import annotations

import math
import random
import sys
import types
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import safekd as kd
from safekd.training.trace import MACHINE_COLUMNS
from safekd.training.trackers import MLflow, TensorBoard, TrackedRun, WeightsAndBiases
from tests.support.problems import agreeing, at_least, one_each


class Drops(torch.nn.Module):
    """Draws from torch's global generator in every step, so that a tracker that drew from it would show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))

    def forward(self, inputs):
        return self.layers(inputs)


def fit(*callbacks, **more):
    student = Drops()
    trainer = kd.ConstrainedTrainer(
        student,
        agreeing(),
        constraints=[at_least(0.6, "class 0")],
        optimizer=torch.optim.SGD(student.parameters(), lr=0.05),
    )
    return trainer.fit(one_each(), **{"epochs": 20, "trace_every": 10} | more, callbacks=callbacks)


@pytest.fixture(scope="module")
def untracked():
    return fit()


def same_run(one, other):
    for name, tensor in one.student.state_dict().items():
        assert torch.equal(tensor, other.student.state_dict()[name])
    traces = [result.trace.drop(columns=list(MACHINE_COLUMNS), errors="ignore") for result in (one, other)]
    pd.testing.assert_frame_equal(*traces, check_exact=True)
    assert (one.status, one.message) == (other.status, other.message)


class Notebook:
    """Writes down what it is told, draws random numbers, and fails where it is asked to."""

    def __init__(self, fails_in=(), error: BaseException | None = None) -> None:
        self.calls, self.fails_in, self.error = [], fails_in, error or ConnectionError("the server is away")

    def _note(self, method, *told):
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
        self.calls.append((method, *told))
        if method in self.fails_in:
            raise self.error

    def start(self, run_name, config):
        self._note("start", run_name, config)

    def log(self, step, numbers):
        self._note("log", step, numbers)
        numbers.clear()

    def finish(self, status, message):
        self._note("finish", status, message)

    def methods(self):
        return [call[0] for call in self.calls]


def test_a_tracker_is_told_settings_numbers_and_verdict(untracked):
    notebook, kept = Notebook(), {}
    log = notebook.log
    notebook.log = lambda step, numbers: (kept.update({step: dict(numbers)}), log(step, numbers))
    result = fit(TrackedRun(notebook, "first", {"lr": 0.05}))
    same_run(result, untracked)
    assert notebook.methods() == ["start", "log", "log", "log", "finish"]
    _, name, config = notebook.calls[0]
    assert name == "first"
    assert (config["lr"], config["epochs"], config["constraints"]) == (0.05, 20, {"class 0": 0.6})
    assert notebook.calls[-1] == ("finish", result.status, result.message)
    for _, row in result.trace.iterrows():
        numbers = kept[row["step"]]
        assert numbers["distillation_loss"] == row["distillation_loss"]
        assert numbers["safety_class 0"] == row["safety_class 0"]
        assert all(type(number) is float and not math.isnan(number) for number in numbers.values())
    assert "ema_class 0" not in kept[0]  # no number before the first step


@pytest.mark.parametrize("fails_in", [("start",), ("log",), ("finish",), ("log", "finish")], ids="+".join)
@pytest.mark.parametrize("error", [ConnectionError("away"), kd.training.trace.StopTraining("me"), AssertionError()])
def test_a_tracker_that_fails_is_warned_of_once_and_changes_nothing(untracked, fails_in, error):
    notebook = Notebook(fails_in, error)
    with pytest.warns(
        kd.SafekdWarning, match=f"Tracker Notebook failed in {fails_in[0]}: {type(error).__name__}"
    ) as told:
        result = fit(TrackedRun(notebook))
    assert len(told) == 1
    same_run(result, untracked)
    expected = {
        "start": ["start"],
        "log": ["start", "log", "finish"],
        "finish": ["start", "log", "log", "log", "finish"],
    }
    assert notebook.methods() == expected[fails_in[0]]


@pytest.mark.parametrize("method", ["start", "log", "finish"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_goes_through_a_tracker(method, error):
    with pytest.raises(error):
        fit(TrackedRun(Notebook((method,), error())))


def test_settings_that_cannot_be_copied_are_a_failure_of_the_tracker_too(untracked):
    with pytest.warns(kd.SafekdWarning, match="failed in start: TypeError"):
        same_run(fit(TrackedRun(Notebook(), config={"lock": types.ModuleType, "stream": sys.stdout})), untracked)


def test_several_trainings_of_one_fit_are_runs_of_their_own():
    notebook = Notebook()
    tracked = TrackedRun(notebook, "digits")
    fit(tracked, epochs=1)
    fit(tracked, epochs=1)
    assert [call[1] for call in notebook.calls if call[0] == "start"] == ["digits", "digits-2"]


def test_a_run_that_goes_on_is_tracked_from_its_first_point(tmp_path):
    class Stop(kd.training.trace.Callback):
        def on_trace(self, point):
            if point.step == 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Stop(), run_dir=tmp_path / "run")
    notebook = Notebook()
    result = fit(TrackedRun(notebook), run_dir=tmp_path / "run")
    assert [call[1] for call in notebook.calls if call[0] == "log"] == result.trace["step"].tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("visdom", "No tracker is called 'visdom'; wanted one of tensorboard, wandb, mlflow"),
        (object(), r"Tracker object has no method start; wanted an object with start\(run_name, config\)"),
    ],
)
def test_what_is_no_tracker_is_refused_before_anything_is_trained(tracker, message):
    with pytest.raises(kd.InvalidInput, match=message):
        TrackedRun(tracker)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(kd.InvalidInput, match=rf"The tracker '{name}' needs .*pip install 'safekd\[{name}\]'"):
        TrackedRun(name)


# ------------------------------------------------------------------------------------------------- the three packages


def test_tensorboard_files_hold_the_trace(tmp_path, untracked):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with warnings.catch_warnings():
        warnings.simplefilter("error", kd.SafekdWarning)
        result = fit(TrackedRun(TensorBoard(tmp_path), "a/b: 1"))
    same_run(result, untracked)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "a_b_ 1"
    events = EventAccumulator(str(folder)).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("distillation_loss")]
    assert scalars == [(step, np.float32(loss)) for step, loss in result.trace[["step", "distillation_loss"]].values]
    tags = events.Tags()
    assert len([tag for tag in tags["scalars"] if "lambda" in tag]) == 1
    assert {"config/text_summary", "verdict/text_summary"} <= set(tags["tensors"])


class StandIn(types.ModuleType):
    """Stands in for a package: every function that is called, on whatever it returns, is noted."""

    def __init__(self, name, calls=None):
        super().__init__(name)
        self.calls = [] if calls is None else calls

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}", self.calls)

    def __call__(self, *told, **more):
        self.calls.append((self.__name__, told, more))
        return told if self.__name__.endswith("Metric") else StandIn(f"{self.__name__}()", self.calls)


def test_weights_and_biases_is_called_as_it_is_documented(monkeypatch, untracked):
    wandb = StandIn("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    result = fit(TrackedRun(WeightsAndBiases("mine", mode="offline"), "first"))
    same_run(result, untracked)
    name, _, init = wandb.calls[0]
    assert name == "wandb.init"
    assert (init["project"], init["name"], init["mode"], init["reinit"]) == ("mine", "first", "offline", "create_new")
    assert init["config"]["seed"] == 0
    logged = [(more["step"], told[0]) for name, told, more in wandb.calls if name == "wandb.init().log"]
    assert [step for step, _ in logged] == [0, 10, 20]
    assert [numbers["distillation_loss"] for _, numbers in logged] == result.trace["distillation_loss"].tolist()
    assert wandb.calls[-2] == (
        "wandb.init().summary.update",
        ({"status": result.status, "message": result.message},),
        {},
    )
    assert wandb.calls[-1][0] == "wandb.init().finish"


def test_mlflow_is_called_with_names_that_it_takes(monkeypatch, untracked):
    mlflow = StandIn("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    tracker = MLflow("mine", "sqlite:///tracked.db")
    result = fit(TrackedRun(tracker, "first"))
    same_run(result, untracked)
    names = [name.rpartition(".")[2] for name, _, _ in mlflow.calls]
    assert names[:2] == ["MlflowClient", "get_experiment_by_name"]
    assert (names.count("log_batch"), names[-1]) == (3, "set_terminated")
    assert mlflow.calls[-1][1][1] == "FINISHED"
    batches = [more["metrics"] for name, _, more in mlflow.calls if name.endswith("log_batch")]
    assert [batch[0][3] for batch in batches] == [0, 10, 20]
    losses = [number for batch in batches for name, number, *_ in batch if name == "distillation_loss"]
    assert losses == result.trace["distillation_loss"].tolist()

    mlflow.calls.clear()
    tracker.log(0, {"safety_=": 1.0, "safety_é": 2.0, "safety_?": 3.0})
    (sent,) = [more["metrics"] for name, _, more in mlflow.calls if name.endswith("log_batch")]
    assert [name for name, *_ in sent] == ["safety__", "safety____2", "safety____3"]


def test_the_real_weights_and_biases_keeps_a_run_offline(tmp_path, monkeypatch, untracked):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", kd.SafekdWarning)
        same_run(fit(TrackedRun(WeightsAndBiases(mode="offline", dir=tmp_path))), untracked)
    assert list(tmp_path.glob("**/*.wandb"))


def test_the_real_mlflow_keeps_a_run_in_a_file(tmp_path, untracked):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'tracked.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", kd.SafekdWarning)
        result = fit(TrackedRun(MLflow("mine", uri), "first"))
    same_run(result, untracked)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    kept = client.get_metric_history(run.info.run_id, "distillation_loss")
    assert [metric.value for metric in sorted(kept, key=lambda m: m.step)] == result.trace["distillation_loss"].tolist()
    assert run.data.tags["safekd.status"] == result.status
