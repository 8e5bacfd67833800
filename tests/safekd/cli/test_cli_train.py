"""``safekd train`` on a user's own CSV files, good and bad."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import safekd as kd
from safekd.io.folders import lock_folder
from safekd.training.checkpoints import _run_folder
from tests.support.cli_runner import run_cli

CONFIG = """
[data]
source = "cases.csv"
label = "outcome"
[data.context]
column = "x0"
names = ["low", "high"]
[[teachers]]
name = "fitted"
kind = "logistic_regression"
features = ["x0", "x1"]
[[teachers]]
name = "api"
kind = "stored"
path = "api.csv"
[weights]
lower = 0.1
upper = 0.9
critical_contexts = ["low"]
[student]
hidden = [8]
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.8
[training]
epochs = 2000
[frontier]
targets = [0.75, 0.8]
epochs = 2000
tolerance = 1e-3
"""


def write_case(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 3))
    sick = x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=160) > 0
    cases = pd.DataFrame(x, columns=["x0", "x1", "x2"]).assign(outcome=np.where(sick, "sick", "well"))
    cases.to_csv(tmp_path / "cases.csv", index=False)
    p = 1 / (1 + np.exp(-2 * x[:, 0]))
    pd.DataFrame({"well": 1 - p, "sick": p}).to_csv(tmp_path / "api.csv", index=False)
    (tmp_path / "mine.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_case(tmp_path)


def test_trains_on_a_csv_and_writes_a_run(folder, capsys):
    run = folder / "run"
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", run)
    assert ran.code == 0, ran.out + ran.err
    files = {"config.toml", "student.safetensors", "trace.csv", "trace.jsonl", "verdict.json", "manifest.json"}
    assert files <= {p.name for p in run.iterdir()}
    assert not [p.name for p in run.iterdir() if p.name.startswith(".")]
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["status"] == "converged"
    posed = next(r for r in verdict["readings"] if r["split"] == "train")
    assert posed["measured"] >= 0.8 - 1e-3
    first, *rest = (run / "config.toml").read_text().splitlines(keepends=True)
    assert first.startswith('folder = ".."')
    assert "".join(rest) == CONFIG
    assert set(load_file(run / "student.safetensors")) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert {"kkt_stationarity", "lambda_sick", "safety_sick"} <= set(pd.read_csv(run / "trace.csv").columns)
    assert "KKT residuals" in ran.out
    assert "trace.csv" in ran.out


def _edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "fragments"),
    [
        ("mine.toml", "[student]", "[studnet]", ["unknown key 'studnet'", "did you mean 'student'"]),
        ("mine.toml", "at_least = 0.8", "at_least = -0.8", ["at_least", "-0.8", "above 0"]),
        ("mine.toml", "at_least = 0.8", "at_least = 1.8", ["at_least", "1.8", "at most 1"]),
        ("mine.toml", "upper = 0.9", "upper = 0.4", ["upper=0.4", "0.8", "Raise `upper` to at least 0.5"]),
        ("mine.toml", 'critical = ["sick"]', 'critical = ["ill"]', ["no class 'ill'", "sick, well"]),
        ("mine.toml", 'critical_contexts = ["low"]', 'critical_contexts = ["lo"]', ["no context 'lo'", "low, high"]),
        ("mine.toml", 'features = ["x0", "x1"]', 'features = ["y*"]', ["No feature matches 'y*'", "x0, x1, x2"]),
        ("mine.toml", 'label = "outcome"', 'label = "result"', ["no label column 'result'", "outcome"]),
        ("mine.toml", 'column = "x0"', 'column = "size"', ["'size'", "x0, x1, x2"]),
        ("mine.toml", 'source = "cases.csv"', 'source = "none.csv"', ["no file", "none.csv"]),
        ("mine.toml", "[training]", '[training]\ndevice = "tpu9"', ["'tpu9'", "use 'cpu'"]),
        ("cases.csv", "x0,x1,x2,", "x0,x1,,", ["a column without a name ('')", 'data.features = ["x0", "x1"]']),
        ("cases.csv", "x0,x1,x2,", "x0,x1,Unnamed: 0,", ["a column without a name ('Unnamed: 0')"]),
        ("api.csv", "well,sick", "well,unwell", ["api.csv has columns well, unwell", "sick, well"]),
        ("cases.csv", "\n", "\nlow,1,1,sick\n", ["line 2", "column 'x0'", "'low'"]),
    ],
)
def test_bad_input_is_told(folder, file, old, new, fragments, capsys):
    _edit(folder, file, old, new)
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.refused(*fragments), ran.err
    assert not (folder / "run").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_numbers_whose_squares_no_float_holds_are_told_before_anything_is_written(suffix, folder, capsys):
    cases = pd.read_csv(folder / "cases.csv")
    cases.loc[cases.index % 2 == 0, "x1"] = 1e308
    cases.to_csv(folder / "cases.csv", index=False)
    cases.to_parquet(folder / "cases.parquet", index=False)
    config = CONFIG.replace('"cases.csv"', f'"cases.{suffix}"')
    (folder / "mine.toml").write_text(config)
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.refused("Column 'x1' holds numbers whose squares are beyond the largest float", "Divide the column")
    assert not (folder / "run").exists()


def test_a_teacher_with_other_classes_is_told(folder, capsys):
    api = pd.read_csv(folder / "api.csv")
    (api / 2).assign(unsure=0.5).to_csv(folder / "api.csv", index=False)
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.refused("Teacher 'api' gives 3 classes", "the data have 2"), ran.err
    assert not (folder / "run").exists()


def test_too_few_stored_rows_are_told(folder, capsys):
    pd.read_csv(folder / "api.csv").head(10).to_csv(folder / "api.csv", index=False)
    assert run_cli(capsys, "train", folder / "mine.toml").refused("has 10 rows, the data have 160")


def test_a_run_that_cannot_converge_exits_with_one(folder, capsys):
    _edit(folder, "mine.toml", "epochs = 2000", "epochs = 3")
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.code == 1
    assert "budget_spent" in ran.out


def test_a_run_is_loaded_and_verified(folder, capsys):
    run = folder / "run"
    assert run_cli(capsys, "train", folder / "mine.toml", "--run-dir", run).code == 0
    student = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    result = kd.FitResult.load(run, _student_of(run, student))
    assert result.status == "converged"
    assert [certificate.constraint for certificate in result.certificates] == ["sick"]
    said = run_cli(capsys, "verify", run)
    assert said.code == 0
    assert "parts are as they were written" in said.out
    (run / "config.toml").write_text(CONFIG + "# changed\n")
    said = run_cli(capsys, "verify", run)
    assert said.code == 1
    assert "config.toml is not what was written" in said.out
    assert run_cli(capsys, "verify", folder).refused("holds no finished run")


def _student_of(run, student):
    """The student of the command line, from what its folder says of it."""
    modules = json.loads((run / "verdict.json").read_text())["structure"]
    assert "Linear" in modules[1]
    return student if "Tanh" in modules[2] else torch.nn.Sequential(student[0], torch.nn.ReLU(), student[2])


def test_a_folder_that_cannot_be_written_to_is_told_before_teachers_are_fitted(folder, capsys, monkeypatch):
    monkeypatch.setattr("safekd.cli._train_command.build_experiment", lambda *_: pytest.fail("teachers were fitted"))
    (folder / "file").write_text("mine")
    assert run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "file").refused("Cannot write")
    assert run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "file" / "run").refused("Cannot write")
    with lock_folder(folder / "run", "a training run"):
        ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.refused("run is in use: process", "a training run")
    assert (folder / "file").read_text() == "mine"


def test_a_run_whose_folder_fails_in_the_end_is_written_elsewhere(folder, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    _edit(folder, "mine.toml", "epochs = 2000", "epochs = 3")
    replace = _run_folder.replace_files
    monkeypatch.setattr(
        _run_folder, "replace_files", lambda to, *more: (full if to.name == "run" else replace)(to, *more)
    )
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.code == 2
    assert "does not hold this run" in ran.out
    (elsewhere,) = folder.glob("safekd-run-*")
    assert kd.verify_files(elsewhere).holds()
    assert (elsewhere / "config.toml").is_file()
    assert not (folder / "run" / "verdict.json").exists()


QUICK = "epochs = 60\ntolerance = 0.9\n"


def run_quickly(folder: Path, **changes: str) -> None:
    """Let runs be short; what they reach is no matter."""
    _edit(folder, "mine.toml", "epochs = 2000\n", QUICK)
    for old, new in changes.items():
        _edit(folder, "mine.toml", old, new)


@pytest.mark.parametrize("target", ["run", "deep/er/run", "../elsewhere/run"])
def test_the_copied_configuration_repeats_the_run_from_wherever_it_stands(target, tmp_path, monkeypatch, capsys):
    folder = write_case(tmp_path / "mine") if (tmp_path / "mine").mkdir() is None else tmp_path
    run_quickly(folder)
    monkeypatch.chdir(folder)
    assert run_cli(capsys, "train", "mine.toml", "--run-dir", target).code in (0, 1)
    monkeypatch.chdir(tmp_path)
    again = tmp_path / "again"
    ran = run_cli(capsys, "train", folder / target / "config.toml", "--run-dir", again)
    assert ran.code in (0, 1), ran.err
    assert (again / "student.safetensors").read_bytes() == (folder / target / "student.safetensors").read_bytes()
    # and a copy of the copy, whose key is replaced
    ran = run_cli(capsys, "train", again / "config.toml", "--run-dir", tmp_path / "third")
    assert ran.code in (0, 1), ran.err
    assert (tmp_path / "third" / "config.toml").read_text().count("folder = ") == 1


def test_a_link_to_the_run_folder_is_followed(folder, tmp_path, capsys):
    run_quickly(folder)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (folder / "run").symlink_to(tmp_path / "far" / "away")
    assert run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run").code in (0, 1)
    for path in (folder / "run" / "config.toml", tmp_path / "far" / "away" / "config.toml"):
        assert run_cli(capsys, "train", path, "--run-dir", tmp_path / "again").code in (0, 1)


def test_a_folder_that_stands_on_no_line_of_its_own_is_asked_for(folder, capsys):
    text = (folder / "mine.toml").read_text()
    (folder / "mine.toml").write_text(f'"folder" = "."\n{text}')
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.refused("the key `folder` cannot be found; write it on a line of its own"), ran.err
    assert not (folder / "run").exists()


def test_an_equality_is_trained_and_said_to_be_uncertifiable(folder, capsys):
    run_quickly(folder)
    _edit(folder, "mine.toml", "at_least = 0.8", "exactly = 0.6")
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.code == 0, ran.out + ran.err
    printed = " ".join(ran.out.split())
    assert "sick: not certified. 'sick' asks for exactly 0.6; no data can show an equality." in printed
    assert (folder / "run" / "verdict.json").exists()


def test_what_cannot_be_certified_takes_nothing_from_the_run(folder, capsys):
    """No case of the constraint in the certify split: a word, not an error after hours of training."""
    run_quickly(folder)
    cases = pd.read_csv(folder / "cases.csv")
    cases.loc[cases.nsmallest(3, "x0").index, "outcome"] = "rare"  # of three, one is for training, none to certify
    cases.to_csv(folder / "cases.csv", index=False)
    pd.read_csv(folder / "api.csv").assign(rare=0.0).to_csv(folder / "api.csv", index=False)
    _edit(folder, "mine.toml", 'critical = ["sick"]', 'critical = ["rare"]')
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.code in (0, 1), ran.err
    assert "sick: not certified. No example of 'certify' is covered" in " ".join(ran.out.split())


@pytest.mark.parametrize("teachers", [1, 2])
def test_bounds_that_were_left_out_fit_the_number_of_teachers(teachers, folder, capsys):
    run_quickly(folder)
    _edit(folder, "mine.toml", "lower = 0.1\nupper = 0.9\n", "")
    if teachers == 1:
        _edit(folder, "mine.toml", '[[teachers]]\nname = "api"\nkind = "stored"\npath = "api.csv"\n', "")
    ran = run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run")
    assert ran.code in (0, 1), ran.err
    assert (folder / "run" / "verdict.json").exists()


@pytest.mark.parametrize("command", [["train", "mine.toml"], ["demo"]])
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_run_dir_is_not_the_folder_that_one_is_in(name, command, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert run_cli(capsys, *command, "--run-dir", name).refused("--run-dir is empty; wanted the name of a folder")
    assert sorted(folder.iterdir()) == before


def test_an_empty_run_dir_in_the_file_is_refused(folder, capsys):
    (folder / "mine.toml").write_text(f'run_dir = ""\n{CONFIG}')
    assert run_cli(capsys, "train", folder / "mine.toml").refused("'run_dir' is ''", "where results go")


def test_the_tracker_that_the_file_names_is_told_of_the_run(folder, capsys, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(folder)
    (folder / "mine.toml").write_text(
        CONFIG.replace("epochs = 2000", "epochs = 20")
        + '[tracker]\nkind = "tensorboard"\noptions = { log_dir = "told" }\n'
    )
    run_cli(capsys, "train", "mine.toml", "--run-dir", "runs/first")
    events = EventAccumulator(str(folder / "told" / "first")).Reload()
    trace = pd.read_csv(folder / "runs" / "first" / "trace.csv")
    assert [event.step for event in events.Scalars("distillation_loss")] == list(trace["step"])
    assert [event.value for event in events.Scalars("distillation_loss")] == list(
        trace["distillation_loss"].astype("float32")
    )
    (kept,) = events.Tensors("config/text_summary")
    assert '"epochs": 20' in kept.tensor_proto.string_val[0].decode()
    assert "[tracker]" in (folder / "runs" / "first" / "effective.toml").read_text()


@pytest.mark.parametrize(
    ("lines", "fragments"),
    [
        ('kind = "tensorbord"', ["tracker.kind", "did you mean 'tensorboard'?"]),
        ('kind = "tensorboard"\noptions = { logdir = "a" }', ["tracker.options.logdir", "did you mean 'log_dir'?"]),
        ('kind = "mlflow"\noptions = { experiment = 3 }', ["tracker.options.experiment is 3", "wanted a text"]),
        ('kind = "tensorboard"', ["safekd[tensorboard]"]),
    ],
)
def test_a_tracker_that_cannot_be_is_refused_before_anything_is_fitted(lines, fragments, folder, capsys, monkeypatch):
    if "safekd" in fragments[0]:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr("safekd.cli._train_command.build_experiment", lambda *_: pytest.fail("teachers were fitted"))
    (folder / "mine.toml").write_text(f"{CONFIG}[tracker]\n{lines}\n")
    assert run_cli(capsys, "train", folder / "mine.toml", "--run-dir", folder / "run").refused(*fragments)
    assert run_cli(capsys, "validate", folder / "mine.toml").refused(*fragments)
