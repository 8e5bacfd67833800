"""A student out of its run folder gives what it gave where it was trained, and says what it does not understand."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import safekd as kd
from safekd.experiment import build_experiment
from safekd.experiment.config import format_config, load_config

from .trained_run import make_cases


@pytest.fixture(scope="module")
def student(run):
    return kd.load(run)


def test_it_gives_the_probabilities_that_the_trained_module_gives(run, student):
    """Against the experiment built anew: its own splits, standardized there, through the saved parameters."""
    config, folder = load_config(run / "config.toml")
    experiment = build_experiment(config, folder)
    module = experiment.student()
    module.load_state_dict(student.student.state_dict())
    split = experiment.splits["certify"]
    with torch.no_grad():
        wanted_NC = torch.softmax(module(split.batch().inputs), -1).numpy()
    cases = pd.read_csv(folder / "cases.csv")
    rows = experiment.index["certify"]
    np.testing.assert_array_equal(student(cases.iloc[rows])[: len(wanted_NC)], wanted_NC)
    assert student.class_names == ["sick", "well"]
    assert student.features == ["x0", "x1", "x2"]


def test_frames_dictionaries_arrays_tensors_and_lists_are_taken_alike(student):
    cases = make_cases(20, 1)
    wanted = student(cases)
    x_NF = cases[["x0", "x1", "x2"]].to_numpy()
    shuffled = cases[["x2", "outcome", "x0", "x1"]]
    for rows in (x_NF, torch.tensor(x_NF), x_NF.tolist(), shuffled, cases.to_dict("list")):
        np.testing.assert_array_equal(student(rows), wanted)
    np.testing.assert_allclose(wanted.sum(1), 1, atol=1e-6)
    said = student.predict(cases.set_index("id"))
    assert list(said.columns) == ["predicted", "probability: sick", "probability: well"]
    assert said.index.tolist() == cases["id"].tolist()
    assert (said["predicted"] == np.where(wanted[:, 0] > 0.5, "sick", "well")).all()
    assert (said["predicted"].to_numpy() == cases["outcome"].to_numpy()).mean() > 0.7


@pytest.mark.parametrize(
    ("rows", "fragments"),
    [
        (pd.DataFrame({"x0": [1.0], "x2": [2.0]}), ["lack 1 of 3 features: x1", "they have: x0, x2"]),
        (np.zeros((2, 4)), ["shape (2, 4)", "(N, 3)", "x0, x1, x2"]),
        (np.array([[1.0, np.nan, 0.0]]), ["Row 0, feature 'x1'", "nan", "finite"]),
        ([["a", "b", "c"]], ["no number"]),
        ({"x0": 1.0, "x1": 2.0, "x2": 3.0}, ["no table", "a list of numbers a feature"]),
    ],
)
def test_rows_that_cannot_be_read_are_refused(rows, fragments, student):
    with pytest.raises(kd.InvalidInput) as error:
        student(rows)
    assert all(part in str(error.value) for part in fragments), str(error.value)


def test_a_changed_byte_is_refused(run, tmp_path):
    for name in ("student.json", "student.safetensors", "verdict.json"):
        copied = shutil.copytree(run, tmp_path / name)
        data = bytearray((copied / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copied / name).write_bytes(data)
        with pytest.raises(kd.InvalidInput):
            kd.load(copied)


def test_a_forged_description_is_refused(run, tmp_path):
    """Whole by its hashes, and yet no student: what a run folder of somebody else may hold."""
    from safekd.io.folders import read_checked_json, write_checked_json, write_manifest

    record = read_checked_json(run / "student.json")
    for change, said in (
        ({"means": record["means"][:2]}, "3 features, 2 means"),
        ({"spreads": [0.0, 1.0, 1.0]}, "spreads"),
        ({"seed": "0"}, "seed"),
        ({"more": 1}, "more"),
    ):
        copied = shutil.copytree(run, tmp_path / "".join(change))
        (copied / "manifest.json").unlink()
        write_checked_json({**record, **change}, copied / "student.json")
        write_manifest(copied, "run")
        with pytest.raises(kd.InvalidInput, match="describes no student") as error:
            kd.load(copied)
        assert said in str(error.value)


def test_a_run_that_lacks_what_a_certificate_takes_says_what_it_is(run, tmp_path):
    """What a folder that somebody put together lacks: the labels' column of its data, and its constraints."""
    from safekd.io.folders import read_checked_json, write_checked_json, write_manifest
    from safekd.saved_students import read_labeled_rows, read_run_constraints

    copied = shutil.copytree(run, tmp_path / "copied")
    (copied / "manifest.json").unlink()
    (copied / "effective.toml").unlink()
    record = read_checked_json(run / "student.json")
    write_checked_json({**record, "label": None}, copied / "student.json")
    write_manifest(copied, "run")
    student = kd.load(copied)
    make_cases(5, 1).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(kd.InvalidInput, match=r"named no column of labels; say which .* --label COLUMN, or label='COL"):
        read_labeled_rows(student, tmp_path / "new.csv")
    assert len(read_labeled_rows(student, tmp_path / "new.csv", label="outcome")) == 5
    with pytest.raises(kd.InvalidInput, match=r"copied has no effective\.toml, which says what its constraints are"):
        read_run_constraints(student)


def test_a_run_of_a_module_of_ones_own_needs_that_module(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(80, 2)
    module = torch.nn.Linear(2, 2)
    teachers = [kd.teachers.TorchTeacher("one", torch.nn.Linear(2, 2))]
    adam = torch.optim.Adam(module.parameters(), lr=0.1)
    trainer = kd.ConstrainedTrainer(module, teachers, constraints=[], optimizer=adam)
    trainer.fit(kd.Split("train", x, (x[:, 0] > 0).long()), epochs=3, run_dir=tmp_path / "own")
    with pytest.raises(kd.InvalidInput, match=r"kd\.load\(run, student=module\)"):
        kd.load(tmp_path / "own")
    saved = kd.load(tmp_path / "own", student=torch.nn.Linear(2, 2))
    with torch.no_grad():
        np.testing.assert_array_equal(saved(x), torch.softmax(module(x), -1).numpy())
    with pytest.raises(
        kd.InvalidInput, match=r"holds no student 'best_validated'; its run kept: final, .*most_feasible"
    ):
        kd.load(tmp_path / "own", student=torch.nn.Linear(2, 2), which="best_validated")
    with pytest.raises(kd.InvalidInput, match="names no features"):
        saved.predict(x)
    with pytest.raises(kd.InvalidInput, match="DataFrame, which is no tensor"):
        saved(pd.DataFrame({"a": ["b"]}))


def test_a_label_that_is_no_class_is_refused(student):
    with pytest.raises(kd.InvalidInput, match="'ill' is no class of the student; there are: sick, well"):
        student.build_split("new", np.zeros((1, 3)), ["ill"], np.zeros(1))


def test_a_student_that_the_run_did_not_keep_is_refused(run):
    with pytest.raises(kd.InvalidInput, match="`which` is 'best'; wanted final, best_feasible"):
        kd.load(run, which="best")
    kept = kd.load(run, which="most_feasible")
    assert kept.judged.student is kept.student


def test_the_run_folder_says_which_row_was_used_for_what(run):
    table = pd.read_csv(run / "splits.csv")
    assert table["row"].tolist() == list(range(400))
    assert set(table["split"]) == {"train", "validation", "certify", "test"}
    config, folder = load_config(run / "config.toml")
    experiment = build_experiment(config, folder)
    for name, rows in experiment.index.items():
        assert table["row"][table["split"] == name].tolist() == rows.tolist()
    weights = pd.read_csv(run / "weights.csv")
    assert experiment.unified.polytope.check(weights[["weight: logistic", "weight: forest"]].to_numpy()).holds()
    assert set(weights["row"]) == set(experiment.index["train"])


def test_the_effective_configuration_says_every_default_and_is_the_same(run):
    given, effective = ((run / name).read_text() for name in ("config.toml", "effective.toml"))
    assert format_config(given) == effective == format_config(effective)
    text = (run / "effective.toml").read_text()
    for key in ("learning_rate", "dual = ", "metric = ", "confidence", "tolerance"):
        assert (key in text) == (key != "confidence")  # there is no [tighten] in it


def test_the_model_card_says_what_was_promised_shown_and_not_shown(run):
    card = (run / "MODEL_CARD.md").read_text()
    verdict = json.loads((run / "verdict.json").read_text())
    for certificate in verdict["certificates"]:
        assert f"{certificate['lower_bound']:.4f}" in card
    assert "sick: TruthProbability >= 0.7, posed on the train split" in card
    shown = {one["constraint"] for one in verdict["certificates"] if one["decision"] == "safe"}
    for name in ("sick", "old and sick"):
        assert (f"{name} is not shown on new data." in card) == (name not in shown)
