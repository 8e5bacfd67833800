"""An experiment file that names a student of one's own: registered in this process, or brought by a package."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.errors import PluginFailure
from safekd.experiment import build_experiment, build_mlp, register_student
from safekd.experiment.config import load_config
from safekd.experiment.students import _student_registry
from safekd.io.folders import write_checked_json
from safekd.saved_students import StudentSpec, describe_student
from tests.support.cli_runner import run_cli

N = 200
CONFIG = """
[data]
source = "cases.csv"
label = "outcome"
[[teachers]]
name = "fitted"
kind = "logistic_regression"
[student]
STUDENT
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.5
[training]
epochs = 3
"""
PACKAGE = """
import torch
from torch import nn

def wide(inputs, classes, width=4, bias=True):
    return nn.Sequential(nn.Linear(inputs, width, bias=bias), nn.ReLU(), nn.Linear(width, classes))

def broken(inputs, classes):
    raise RuntimeError("no licence\\nfor this machine")

def number(inputs, classes):
    return 7

def narrow(inputs, classes):
    return nn.Linear(inputs, classes + 1)

table = {}
"""
POINTS = "wide = my_nets:wide\nbroken = my_nets:broken\nnumber = my_nets:number\nnarrow = my_nets:narrow\n"
POINTS += "missing = my_nets:nothing\ngone = not_there_at_all:net\ntable = my_nets:table\n"
draw = np.random.default_rng(0)
FRAME = pd.DataFrame(draw.normal(size=(N, 2)), columns=["x0", "x1"])
FRAME["outcome"] = np.where(FRAME["x0"] + draw.normal(size=N) > 0, "sick", "well")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path, as pip installs one."""
    folder = tmp_path / "site"
    info = folder / "my_nets-2.1.dist-info"
    info.mkdir(parents=True)
    (folder / "my_nets.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-nets\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(f"[safekd.students]\n{POINTS}")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("my_nets", None)


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(_student_registry, "_STUDENTS", dict(_student_registry._STUDENTS))


def write(folder, student):
    FRAME.to_csv(folder / "cases.csv", index=False)
    (folder / "mine.toml").write_text(CONFIG.replace("STUDENT", student))
    return folder / "mine.toml"


def build(folder, student):
    return build_experiment(*load_config(write(folder, student)))


def test_a_student_of_a_package_is_trained_loaded_and_asked(tmp_path, package, capsys):
    path = write(tmp_path, 'kind = "wide"\n[student.options]\nwidth = 5\nbias = false')
    ran = run_cli(capsys, "train", path, "--run-dir", tmp_path / "run")
    assert ran.code in (0, 1), ran.err
    student = kd.load(tmp_path / "run")
    assert (student.student[0].out_features, student.student[0].bias) == (5, None)
    record = json.loads((tmp_path / "run" / "student.json").read_text())
    assert (record["kind"], record["package"]) == ("wide", "my-nets 2.1")
    assert record["options"] == {"width": 5, "bias": False}
    assert student.predict(FRAME).shape == (N, 3)
    FRAME.to_csv(tmp_path / "new.csv", index=False)
    effective = (tmp_path / "run" / "effective.toml").read_text()
    assert "hidden" not in effective
    assert "[student.options]" in effective
    assert "kind wide of my-nets 2.1 (width = 5, bias = False)" in (tmp_path / "run" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("options", {"hidden": [10**9]}),
        ("options", {"hidden": [8] * 101}),
        ("options", {}),
        ("options", {"hidden": [{}]}),
        ("image_shape", [3, 4, 4]),
        ("image_shape", [2, 1, 1]),
        ("image_shape", [1, 1000, 1]),
        ("context_cuts", [0.0, 1.0]),
    ],
)
def test_a_description_that_is_none_builds_nothing(tmp_path, key, value):
    """It is read before the parameters are, and decides how much memory the student takes."""
    record = describe_student(build(tmp_path, "hidden = [3]"), tmp_path).model_dump()
    StudentSpec.model_validate(record)
    write_checked_json(record | {key: value}, tmp_path / "student.json")
    with pytest.raises(kd.InvalidInput, match=r"student\.json describes no student"):
        StudentSpec.load(tmp_path)


def test_a_run_whose_package_is_gone_says_so(tmp_path, package, capsys, monkeypatch):
    run_cli(capsys, "train", write(tmp_path, 'kind = "wide"'), "--run-dir", tmp_path / "run")
    (package / "my_nets-2.1.dist-info" / "entry_points.txt").unlink()
    monkeypatch.syspath_prepend(str(tmp_path))  # what was cached of the path is read anew
    with pytest.raises(kd.InvalidInput, match=r"one of student 'wide' of my-nets 2\.1, which cannot be built here: Th"):
        kd.load(tmp_path / "run")
    own = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    assert kd.load(tmp_path / "run", student=own).predict(FRAME).shape == (N, 3)


def test_a_student_registered_in_this_process(tmp_path):
    @register_student("line")
    def make_line(inputs, classes, scale=1.0):
        layer = nn.Linear(inputs, classes)
        layer.weight.data *= scale
        return layer

    experiment = build(tmp_path, 'kind = "line"\noptions = { scale = 2.0 }')
    one, again, other = experiment.student(), experiment.student(), experiment.student(seed=1)
    assert torch.equal(one.weight, again.weight)
    assert not torch.equal(one.weight, other.weight)
    torch.manual_seed(0)
    assert torch.equal(one.weight, 2 * nn.Linear(2, 2).weight)
    assert register_student("line")(make_line) is make_line
    with pytest.raises(kd.InvalidConfig, match="There is a student 'line' already, of tests"):
        register_student("line")(lambda inputs, classes: nn.Linear(inputs, classes))


def test_the_default_is_the_perceptron(tmp_path):
    experiment = build(tmp_path, "hidden = [3]")
    wanted = build_mlp(2, [3], 2, 0).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in experiment.student().state_dict().items())


REFUSED = {
    "an unknown name": ('kind = "wid"', kd.InvalidConfig, "no student of that name; did you mean 'wide'.* mlp, .*wide"),
    "a path": ('kind = "my_nets.wide"', kd.InvalidConfig, "there is no student of that name"),
    "it raises": (
        'kind = "broken"',
        PluginFailure,
        r"'broken' of my-nets 2\.1 cannot be built: RuntimeError: no licence",
    ),
    "no module": ('kind = "number"', PluginFailure, r"of my-nets 2\.1 .*it returned a int; wanted a torch\.nn\.Module"),
    "other outputs": ('kind = "narrow"', PluginFailure, r"two rows give \(2, 3\); wanted logits of shape \(2, 2\)"),
    "no such attribute": ('kind = "missing"', PluginFailure, r"of my-nets 2\.1 cannot be imported \(my_nets:nothing\)"),
    "no such module": ('kind = "gone"', PluginFailure, r"of my-nets 2\.1 cannot be imported .*ModuleNotFoundError"),
    "no function": ('kind = "table"', PluginFailure, r"'table' of my-nets 2\.1 is a dict .* wanted a function"),
    "an unknown option": (
        'kind = "wide"\noptions = { widht = 3 }',
        kd.InvalidConfig,
        r"do not fit student 'wide' of my-nets 2\.1: got an unexpected .*'widht'\. It takes: width, bias",
    ),
    "hidden of another": (
        'kind = "wide"\nhidden = [3]',
        kd.InvalidConfig,
        "`hidden` is of kind mlp, and the kind is wi",
    ),
    "options of none": ("options = { width = 3 }", kd.InvalidConfig, "`options` are of another kind of student"),
    "no images": ('kind = "cnn"', kd.InvalidConfig, "'cnn', which reads images, and the data are none; take 'mlp'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(tmp_path, package, case):
    student, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        build(tmp_path, student).student()


def test_two_packages_with_one_name(tmp_path, package):
    other = package / "their_nets-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: their-nets\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[safekd.students]\nwide = their_nets:wide\n")
    with pytest.raises(PluginFailure, match=r"'wide' is brought by .*my-nets 2\.1.*; uninstall all but one"):
        build(tmp_path, 'kind = "wide"')


def test_a_package_that_fails_is_one_message_on_the_command_line(tmp_path, package, capsys):
    ran = run_cli(capsys, "train", write(tmp_path, 'kind = "broken"'), "--run-dir", tmp_path / "run")
    assert ran.refused("Student 'broken' of my-nets 2.1 cannot be built: RuntimeError: no licence")
