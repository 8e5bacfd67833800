"""``safekd frontier`` on a user's own CSV files: options, files, resuming, what is refused."""

from __future__ import annotations

import io
import shutil

import pytest
from rich.console import Console

import safekd as kd
from safekd.cli._frontier_command import SweepOptions, show_frontier
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config
from tests.support.cli_runner import run_cli

from .test_cli_train import CONFIG, write_case

QUICK = CONFIG.replace("epochs = 2000\ntolerance = 1e-3\n", "epochs = 120\ntolerance = 1e-2\n")


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """One sweep, through the command line's own function, on what says that it is a terminal."""
    folder = write_case(tmp_path_factory.mktemp("traced"))
    assert QUICK != CONFIG
    (folder / "mine.toml").write_text(QUICK)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    options = SweepOptions(None, None, None, None, None, resume=False, verify=True)
    code = show_frontier(console, folder / "mine.toml", folder / "f.csv", folder / "f.svg", options)
    return folder, code, console.file.getvalue()


@pytest.fixture
def folder(traced, tmp_path):
    shutil.copytree(traced[0], tmp_path / "f")
    return tmp_path / "f"


def test_traces_a_frontier_and_verifies_it(traced):
    folder, code, printed = traced
    frontier = kd.Frontier.from_csv(folder / "f.csv")
    assert code == (0 if frontier.table["feasible"].all() else 1)
    assert {0.75, 0.8} <= set(frontier.table["target"])
    assert (folder / "f.svg").read_text().lstrip().startswith("<?xml")
    assert "Pareto frontier" in printed
    assert "students evaluated anew: as their rows say, to 0" in printed
    assert "points so far" in printed  # the table that grows
    assert {"anchor", "target-0.8"} <= {path.name for path in (folder / "f.csv.points").iterdir()}


def test_resumes_and_changes_no_byte(folder, capsys):
    before = (folder / "f.csv").read_bytes()
    for name in ("done.json", "frontier.csv", "target-0.8"):
        path = folder / "f.csv.points" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run_cli(capsys, "frontier", folder / "mine.toml", "-o", folder / "f.csv").refused("--resume")
    assert (folder / "f.csv").read_bytes() == before
    ran = run_cli(capsys, "frontier", folder / "mine.toml", "-o", folder / "f.csv", "--resume")
    assert ran.code in (0, 1), ran.err
    assert (folder / "f.csv").read_bytes() == before
    assert "target 0.8000: loss" in ran.out  # plain lines where nobody looks


def test_a_student_that_changed_is_found_out(folder):
    config, base = load_config(folder / "mine.toml")
    experiment = build_experiment(config, base)
    given = (folder / "f.csv.points", experiment.trainer_at, experiment.train, experiment.validation)
    assert kd.verify(*given).holds()
    student = folder / "f.csv.points" / "target-0.8" / "student.safetensors"
    student.write_bytes(student.read_bytes()[:-1] + b"\x00")
    report = kd.verify(*given)
    assert report.failed.tolist() == (report.table["target"] == 0.8).tolist()
    assert "student.safetensors is not what was written" in str(report)


REFUSED = {
    "picture": (["--plot", "f.txt"], ["must end in one of .png, .svg, .pdf, .html"]),
    "same file": (["--plot", "new.svg", "-o", "new.svg"], ["--plot and --output both name"]),
    "folder": (["-o", "."], ["is a folder; wanted the name of a CSV file"]),
    "the experiment": (["-o", "mine.toml"], ["--output mine.toml exists and is no frontier; choose another name"]),
    "the data": (["-o", "cases.csv"], ["--output cases.csv exists and is no frontier"]),
    "picture in a folder's place": (["--plot", "dir.png"], ["--plot dir.png is a folder"]),
    "picture beyond a file": (["--plot", "mine.toml/f.png"], ["Cannot write mine.toml/f.png: Not a directory"]),
    "picture where nobody writes": (["--plot", "/proc/none/f.png"], ["Cannot write /proc/none/f.png"]),
    "targets": (["--targets", "many"], ["--targets is 'many'", "0.8,0.9,0.95"]),
    "one target": (["--targets", "1"], ["`targets` is 1 up to", "at least 2 targets"]),
    "high": (["--targets", "0.8,1.5"], ["`targets` holds 1.5"]),
    "method": (["--method", "tau"], ["`method` is 'tau'"]),
    "another sweep": (["--targets", "0.7,0.8", "-o", "f.csv"], ["points of another sweep", "`sweep.targets` was"]),
    "resume another": (["--budget", "9", "--resume", "-o", "f.csv"], ["`sweep.budget` was null and is now 9"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_told_and_no_csv_is_lost(case, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    more, fragments = REFUSED[case]
    (folder / "dir.png").mkdir()
    files = [folder / name for name in ("f.csv", "mine.toml", "cases.csv")]
    before = [file.read_bytes() for file in files]
    given = [] if "-o" in more else ["-o", "new.csv"]
    ran = run_cli(capsys, "frontier", "mine.toml", *given, *more)
    assert ran.refused(*fragments), ran.err
    assert [file.read_bytes() for file in files] == before
    assert not (folder / "new.csv").exists()


@pytest.mark.parametrize(("feasible", "as_said", "code"), [(True, True, 0), (False, True, 1), (True, False, 1)])
def test_exit_codes_of_a_sweep_that_is_done(feasible, as_said, code, folder, capsys, monkeypatch):
    """1 where a row is infeasible, or --verify finds one that is not what its student is."""
    frontier = kd.Frontier.from_csv(folder / "f.csv")
    frontier.table["feasible"] = feasible
    monkeypatch.setattr("safekd.cli._frontier_command.trace_frontier", lambda *_, **more: frontier)
    monkeypatch.setattr("safekd.cli._frontier_command._verify_students", lambda *_: as_said)
    assert run_cli(capsys, "frontier", folder / "mine.toml", "-o", folder / "new.csv", "--verify").code == code


@pytest.mark.parametrize(("end", "code"), [(KeyboardInterrupt(), 4), (SystemExit(143), 4)])
def test_an_interrupt_says_how_to_go_on(end, code, folder, capsys, monkeypatch):
    def stopped(*_, **more):
        end.add_note(f"{more['run_dir']} keeps 2 finished runs; go on there with resume='auto' (--resume).")
        raise end

    monkeypatch.setattr("safekd.cli._frontier_command.trace_frontier", stopped)
    ran = run_cli(capsys, "frontier", folder / "mine.toml", "-o", folder / "new.csv")
    assert ran.code == code
    assert "new.csv.points keeps 2 finished runs; go on there with resume='auto' (--resume)." in ran.err
    assert "safekd: stopped; nothing half written was left behind." in ran.err


@pytest.mark.parametrize(
    ("line", "fragments"),
    [
        ('method = "tau"', ["'frontier.method' is 'tau'", "epsilon"]),
        ("budget = 0", ["'frontier.budget' is 0"]),
        ("seeds = 0", ["'frontier.seeds' is 0"]),
        ("jobs = -1", ["'frontier.jobs' is -1"]),
        ("held = { sick = [2.0] }", ["frontier.held", "2.0"]),
        ("held = { other = [0.5] }", ["`held` names 'other'", "besides 'sick', which is swept"]),
        ("hold = 1", ["unknown key 'frontier.hold'", "did you mean 'held'?"]),
    ],
)
def test_a_bad_key_is_told(line, fragments, folder, capsys):
    (folder / "mine.toml").write_text(QUICK.replace("[frontier]", f"[frontier]\n{line}"))
    ran = run_cli(capsys, "frontier", folder / "mine.toml", "-o", folder / "new.csv")
    assert ran.refused(*fragments), ran.err


def test_weights_seeds_and_budget_from_the_command_line(folder, capsys):
    ran = run_cli(
        capsys, "frontier", folder / "mine.toml", "-o", folder / "mu.csv",
        "--method", "mu", "--targets", "3", "--seeds", "2", "--budget", "3", "--verify",
    )  # fmt: skip
    assert ran.code in (0, 1), ran.err
    table = kd.Frontier.from_csv(folder / "mu.csv").table
    assert set(table["method"]) == {"mu"}
    assert set(table["seed"]) == {0, 1}
    assert (table["steps"] > 0).sum() <= 6
    assert "evaluated anew" in ran.out
