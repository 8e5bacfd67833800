"""Hostile inputs: a slice of what ``benchmarks.hostile`` runs whole, and proof that its judge can say no."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import safekd as kd
import safekd.cli._file_commands as file_commands
from benchmarks.hostile.__main__ import main
from benchmarks.hostile._folder_inputs import FolderReader, FolderTarget, draw_folder_input
from benchmarks.hostile._good_folders import TARGETS
from benchmarks.hostile._input import ACCEPTED, EITHER, REFUSED, HostileInput
from benchmarks.hostile._judge import KINDS, compare_with_a_shell, draw_input, judge_input
from benchmarks.hostile._table_inputs import draw_table_input
from safekd.io.arrays import RawRows
from safekd.weight_files import ProjectionSummary

SEED, SLICE = 7, 200
WEIGHTS = {"in.csv": b"a,b\n0.9,0.1\n", "other": b"as it was"}
PROJECT = ("project", "in.csv", "-o", "out.csv", "--upper", "0.6")


@pytest.mark.parametrize("start", range(0, SLICE, 50))
def test_no_hostile_input_of_a_slice_does_harm(start, tmp_path):
    faults = {}
    for number in range(start, start + 50):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = draw_input(SEED, number)
        judged = judge_input(one, folder)
        if judged.faults:
            faults[number, one.kind, one.story] = judged.faults
    assert faults == {}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_hostile_input_of_twenty_thousand_does_harm():
    assert main(["--inputs", "20000", "--seed", str(SEED)]) == 0


def test_inputs_are_of_every_kind_and_the_same_for_the_same_seed():
    drawn = [draw_input(SEED, number) for number in range(SLICE)]
    counts = Counter(one.kind for one in drawn)
    assert set(counts) == set(KINDS)
    assert min(counts.values()) > SLICE / 50
    assert {one.wanted for one in drawn} == {ACCEPTED, REFUSED, EITHER}
    assert [(one.story, dict(one.files), one.arguments) for one in drawn[:50] if one.kind != "api"] == [
        (one.story, dict(one.files), one.arguments)
        for one in (draw_input(SEED, number) for number in range(50))
        if one.kind != "api"
    ]


def judge(tmp_path, one=None, **changes):
    folder = tmp_path / "judged"
    folder.mkdir()
    good = {
        "kind": "csv",
        "story": "",
        "wanted": ACCEPTED,
        "files": WEIGHTS,
        "arguments": PROJECT,
        "appears": ("out.csv",),
    }
    return judge_input(one or HostileInput(**{**good, **changes}), folder)


def test_what_is_right_is_found_right(tmp_path):
    assert judge(tmp_path).faults == []


def raise_raw(folder: Path) -> str:
    raise TypeError("raw")


WRONG = {
    "accepted, should be refused": ({"wanted": REFUSED}, "was accepted, should be refused"),
    "refused, should be accepted": ({"files": {"in.csv": b"a,b\n0.9,x\n"}}, "was refused, should be accepted"),
    "the wrong exit code": ({"code": 1}, "exit code 0, wanted 1"),
    "nothing appeared": ({"appears": ("out.csv", "more.csv")}, "missing: ['more.csv']"),
    "something was left behind": ({"appears": ()}, "left behind: ['out.csv']"),
    "a wrong answer": ({"look": lambda folder: "weights are off by 1"}, "weights are off by 1"),
    "an answer that cannot be read": ({"look": raise_raw}, "the answer cannot be read: TypeError: raw"),
    "a raw exception": ({"call": raise_raw}, "raw TypeError: raw"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_judge_can_say_no(kind, tmp_path):
    changes, fault = WRONG[kind]
    assert fault in judge(tmp_path, **changes).faults


def test_the_judge_sees_a_projection_that_is_wrong(tmp_path, monkeypatch):
    """The numbers of every input's own author disagree with one that copies the weights as they are."""

    def copy(path, output, rules, **options):
        Path(output).write_bytes(Path(path).read_bytes())
        done = ProjectionSummary(("a",))
        done.rows, done.before, done.after = 1, ([0.0], [0.0]), ([0.0], [0.0])
        return done

    monkeypatch.setattr(file_commands, "project_file", copy)
    found = []
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = draw_input(SEED, number)
        if one.kind in ("csv", "parquet") and one.arguments[:1] == ("project",):
            found += judge_input(one, folder).faults
    assert any("weights are off" in fault for fault in found)
    assert any("was accepted, should be refused" in fault for fault in found)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda path, output: (_ for _ in ()).throw(RuntimeError("broken")), "broke: "),
        (lambda path, output: Path("other").unlink(), "other was lost or changed"),
        (lambda path, output: Path("other").write_text("changed"), "other was lost or changed"),
        (lambda path, output: Path(".tmp").write_text("half"), "left behind: "),
    ],
)
def test_the_judge_sees_harm(spoil, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(file_commands, "project_file", lambda path, output, rules, **options: spoil(path, output))
    assert any(found.startswith(fault) for found in judge(tmp_path).faults)


def make_plain_folder(folder, seed):
    """What any format is: a folder with JSON that knows no hash, and bytes."""
    folder.mkdir()
    (folder / "a.json").write_text(f'{{"rows": [0.5, {seed}], "name": "x"}}')
    (folder / "b.bin").write_bytes(bytes(range(200)) + bytes([seed]))


def read_carelessly(folder):
    """Reads as nobody should: whatever is a pickle is unpickled, what is JSON is taken at its word."""
    for path in (folder / "a.json", folder / "b.bin"):
        if path.is_file():
            with path.open("rb") as stream:
                data = stream.read(10_000)
            with contextlib.suppress(Exception):
                pickle.loads(data)
            if path.suffix == ".json":
                sum(json.loads(data)["rows"])
    return ""


def find_faults(target, tmp_path, draws=120):
    found = []
    for number in range(draws):
        folder = tmp_path / f"{target.kind}{number}"
        folder.mkdir()
        found += judge_input(draw_folder_input(np.random.default_rng([SEED, number]), target), folder).faults
    return found


def test_a_careless_reader_of_any_folder_is_caught(tmp_path):
    target = FolderTarget("plain", make_plain_folder, (FolderReader("a careless reader", read_carelessly),))
    found = find_faults(target, tmp_path)
    for fault in (
        "raw JSONDecodeError",
        "raw TypeError",
        "was accepted, should be refused",
        "left behind: ['exploded']",
    ):
        assert any(fault in one for one in found), fault


def test_a_reader_that_names_no_file_or_takes_too_much_is_caught(tmp_path, monkeypatch):
    def refuse(folder):
        bytearray(b"x" * (100 << 20))
        raise kd.InvalidInput("no")

    monkeypatch.setattr("benchmarks.hostile._judge.MEMORY", 50 << 20)
    target = FolderTarget("plain", make_plain_folder, (FolderReader("a curt reader", refuse),))
    found = find_faults(target, tmp_path, draws=5)
    assert any("names none of" in one for one in found)
    assert any("MiB of memory" in one for one in found)


def test_a_manifest_that_checks_nothing_is_caught(tmp_path, monkeypatch):
    run = next(target for target in TARGETS if target.kind == "run")
    assert find_faults(run, tmp_path, draws=20) == []
    (again := tmp_path / "again").mkdir()
    monkeypatch.setattr("safekd.io.folders._manifest.is_as_written", lambda path, stated: True)
    assert any("was accepted, should be refused" in one for one in find_faults(run, again, draws=40))


def test_a_reader_that_unpickles_arrays_is_caught(tmp_path, monkeypatch):
    def read(file):
        array = np.load(file.path, allow_pickle=True)
        return RawRows(file, 0, torch.float32, array.shape)

    monkeypatch.setattr("safekd.io.arrays._row_tables.read_npy_header", read)
    found = []
    for number in range(80):
        (folder := tmp_path / str(number)).mkdir()
        found += judge_input(draw_table_input(np.random.default_rng([SEED, number])), folder).faults
    assert any("left behind: ['exploded']" in one for one in found)
    assert any("raw " in one for one in found)


def test_a_shell_says_the_same(tmp_path):
    one = HostileInput("csv", "", ACCEPTED, WEIGHTS, PROJECT, appears=("out.csv",))
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    assert compare_with_a_shell(one, here, there) == []
    assert (there / "out.csv").read_text() == "a,b\n0.6,0.4\n"
