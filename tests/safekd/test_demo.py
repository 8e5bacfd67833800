"""The demo: what a newcomer sees first, and the numbers that it promises."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import safekd as kd
from safekd.cli import main
from safekd.demo import DemoOutcome, load_demo_config, run_demo, run_seeds
from safekd.report import tabulate_frontier, tabulate_seeds, tabulate_variants
from safekd.training.trace import MACHINE_COLUMNS, read_trace
from tests.support import ROOT

from ..support.shell import DEMO_COMMANDS, SEEDS_COMMAND, run_shell

README = ROOT / "README.md"


@dataclass
class Commands:
    """What the README's three commands left: the demo's outcome, its folder then and now, and their exit codes."""

    first: Path
    folder: Path
    steps: list[tuple[str, int, int]] = field(default_factory=list)
    outcomes: list[DemoOutcome] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def demo(self, run_dir, seed, on_progress):
        def report(*step):
            self.steps.append(step)
            on_progress(*step)

        self.outcomes.append(run_demo(run_dir, seed, report))
        return self.outcomes[-1]


# by default the demo alone; its experiment file is trained and swept again in the slow tests
@pytest.fixture(scope="module", params=[1, pytest.param(3, marks=pytest.mark.slow)])
def commands(tmp_path_factory, request):
    """The README's own commands, line by line, in this process, so that the demo runs once in all these tests."""
    lines = request.param
    folder = tmp_path_factory.mktemp("demo")
    ran = Commands(folder / "first", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("safekd.cli._demo_command.run_demo", ran.demo)
        for line in DEMO_COMMANDS.splitlines()[:lines]:
            patch.setattr(sys, "argv", line.split())
            with pytest.raises(SystemExit) as end:
                main()
            ran.codes.append(end.value.code)
            if not ran.first.exists():  # before the second command repeats it
                shutil.copytree(folder / "runs" / "demo", ran.first)
    return ran


@pytest.fixture(scope="module")
def demo(commands):
    return commands.outcomes[0], commands.first, commands.steps


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """What the README's own command writes."""
    folder = tmp_path_factory.mktemp("seeds")
    ran = run_shell(SEEDS_COMMAND, folder)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return pd.read_csv(folder / "runs" / "demo" / "seeds.csv")


def _text(table) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_a_seed_changes_one_line_of_the_experiment():
    (text, config), (other, seventh) = load_demo_config(), load_demo_config(7)
    assert (config.seed, seventh.seed) == (0, 7)
    assert seventh.model_copy(update={"seed": 0}) == config
    assert len(set(text.splitlines()) ^ set(other.splitlines())) == 2
    (constraint,) = config.constraints
    assert (constraint.at_least, constraint.split, constraint.critical) == (0.82, "train", ["malignant"])


def test_writes_every_file_that_the_readme_names(demo):
    _, folder, _ = demo
    named = set(re.findall(r"`([a-z]+\.(?:csv|png|safetensors|json|toml))`", README.read_text()))
    there = {path.name for path in folder.iterdir()}
    assert named - {"frontier.csv"} <= there
    assert {"student.safetensors", "verdict.json", "config.toml", "frontier.png"} <= named
    assert {"student.json", "splits.csv", "effective.toml", "MODEL_CARD.md", "report.html"} <= there
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_reports_progress_from_start_to_end(demo):
    _, _, steps = demo
    done = [step for _, step, _ in steps]
    assert done == sorted(done)
    assert done[0] == 0
    assert steps[-1][1] == steps[-1][2]


def test_new_cases_show_what_raised_thresholds_reach_and_nothing_else_does(demo):
    """The certificates against the students themselves, read here on the cases that nothing else read."""
    outcome, folder, _ = demo
    batch = outcome.experiment.splits["certify"].batch()
    malignant = batch.labels == 0
    said = {}
    for report in outcome.reports:
        with torch.no_grad():
            p = torch.softmax(report.result.student(batch.inputs).double(), -1)[malignant, 0]
        assert report.certificate.estimate == pytest.approx(float(p.mean()), abs=1e-6)
        assert report.certificate.count == len(p) == 86
        said[report.variant.name] = report.certificate.decision
    assert said == {**dict.fromkeys(("uniform", "adaptive", "constrained"), "not_shown"), "tightened": "safe"}
    kept = json.loads((folder / "verdict.json").read_text())["certificates"]
    assert [one["lower_bound"] for one in kept] == [outcome.reports[-1].certificate.lower_bound]


def test_the_constraint_posed_on_training_data_is_met_there(demo):
    constrained = demo[0].reports[2]
    assert constrained.result.status == "converged"
    assert constrained.readings["train"].measured >= 0.82 - 1e-3
    assert constrained.result.residuals.stationarity <= 1e-3


def test_the_residuals_are_recomputed_from_the_saved_student(demo):
    """The trace's last row against gradients taken here, by autograd, of the whole training objective."""
    outcome, folder, _ = demo
    experiment, constrained = outcome.experiment, outcome.reports[-1]
    student = experiment.student()
    student.load_state_dict(load_file(folder / "student.safetensors"))
    batch = experiment.train.batch()
    log_p = torch.log_softmax(student(batch.inputs), -1)
    signals = constrained.result and experiment.trainer().objective.signals(
        experiment.train, experiment.train.batch(batch.index)
    )
    q = (experiment.unified(signals).unsqueeze(-1) * signals.log_p.exp()).sum(-2)
    loss = (q * (q.log() - log_p)).sum(-1).mean()
    safety = log_p.exp()[batch.labels == 0, 0].mean()
    multiplier = constrained.result.multipliers["malignant"]
    flat = [torch.cat([g.flatten() for g in torch.autograd.grad(value, list(student.parameters()), retain_graph=True)])
            for value in (loss, loss - multiplier * safety)]  # fmt: skip
    last = pd.read_csv(folder / "trace.csv").iloc[-1]
    assert float(loss.detach()) == pytest.approx(last["distillation_loss"], rel=1e-4)
    assert float(safety.detach()) == pytest.approx(last["safety_malignant"], abs=1e-6)
    stationarity = float(flat[1].norm() / (1 + flat[0].norm()))
    assert stationarity == pytest.approx(last["kkt_stationarity"], abs=1e-5)


def test_weights_conform_and_say_what_was_mended(demo):
    outcome, folder, _ = demo
    table = pd.read_csv(folder / "weights.csv")
    names = outcome.experiment.ensemble.names
    w_NK = table[[f"weight: {name}" for name in names]].to_numpy()
    assert outcome.experiment.unified.polytope.check(w_NK).holds()
    adaptive, constrained = outcome.reports[1:3]
    assert constrained.violations_before > 0
    assert constrained.violations_after == 0
    assert adaptive.violations_after == constrained.violations_before
    assert (constrained.lightest, constrained.heaviest) == (w_NK.min(), w_NK.max())
    raw = table[[f"raw: {name}" for name in names]].to_numpy()
    np.testing.assert_allclose(np.linalg.norm(w_NK - raw, axis=1), table["moved"], atol=1e-12)


def test_the_four_teachers_are_different(demo):

    experiment = demo[0].experiment
    p = experiment.ensemble.cached_log_probabilities(experiment.validation, experiment.validation.batch()).exp()[..., 0]
    assert p.shape[1] == 4
    for a in range(4):
        for b in range(a):
            assert (p[:, a] - p[:, b]).abs().mean() > 0.02


def test_the_splits_share_no_case(demo):
    experiment = demo[0].experiment
    rows = [tuple(x) for split in experiment.splits.values() for x in split.inputs.tolist()]
    assert len(rows) == len(set(rows)) == 569


def test_the_frontier_keeps_every_target_and_is_monotone(demo):
    outcome, folder, _ = demo
    table = kd.Frontier.from_csv(folder / "frontier.csv").table
    assert len(table) == 11
    best = outcome.frontier.nondominated().sort_values("safety_malignant")
    assert len(best) >= 9
    assert (best["distillation_loss"].diff().dropna() > 0).all()
    assert (best["lambda_malignant"].diff().dropna() > 0).all()
    assert not table["multiplier_contradicted"].any()
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_the_frontier_costs_at_most_three_cold_runs_and_every_point_is_read_again(demo):
    outcome = demo[0]
    experiment, settings = outcome.experiment, outcome.experiment.config.frontier
    assert outcome.frontier.meta["runs"] == 11  # no run went into gaps or a reverse pass that could gain nothing
    cold = experiment.trainer().fit(
        experiment.train, experiment.validation, epochs=settings.epochs, tolerance=settings.tolerance
    )
    assert outcome.frontier.table["steps"].sum() <= 3 * cold.point.step
    assert outcome.verified.holds()
    assert outcome.verified.table["verified"].all()


def test_the_table_has_every_column_and_shows_misses(demo):
    outcome = demo[0]
    text = _text(tabulate_variants(outcome.experiment, outcome.reports))
    for words in ("uniform", "adaptive", "constrained", "tightened", "test accuracy", "small", "medium",
                  "large", "required", "certified", "lightest", "heaviest", "order broken", "status"):  # fmt: skip
        assert words in text, words
    assert "Pareto frontier" in _text(tabulate_frontier(outcome.frontier))


@pytest.fixture
def all_commands(commands):
    if len(commands.codes) < 3:
        pytest.skip("pytest -m slow runs all three commands")
    return commands


@pytest.mark.slow
def test_the_readmes_commands_end_well(all_commands):
    demo, train, frontier = all_commands.codes
    assert (demo, frontier) == (0, 0)
    assert train in (0, 1)  # the raised threshold is near the highest that can be met; the steps may end first
    assert (all_commands.folder / "frontier.html").read_text().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_the_frontier_of_the_written_config_is_the_demos_bit_for_bit(all_commands):
    folders = (all_commands.first, all_commands.folder)
    first, second = (kd.Frontier.from_csv(folder / "frontier.csv").table for folder in folders)
    pd.testing.assert_frame_equal(first.drop(columns="wall_s"), second.drop(columns="wall_s"), check_exact=True)


@pytest.mark.slow
def test_the_written_config_repeats_the_run_bit_for_bit(all_commands):
    folder, again = all_commands.first, all_commands.folder / "runs" / "demo"
    assert (again / "student.safetensors").read_bytes() == (folder / "student.safetensors").read_bytes()
    here = list(MACHINE_COLUMNS[:3])  # no CUDA here
    first, second = (read_trace(d / "trace.csv").drop(columns=here) for d in (folder, again))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_promise_over_seeds(seeds):
    of = len(seeds)
    assert set(seeds["required"]) == {0.82}
    assert (seeds["uniform_new"] < 0.82).all()
    assert (seeds["uniform_decision"] == "not_shown").all()
    assert (seeds["constrained_decision"] == "not_shown").sum() >= 0.9 * of
    assert (seeds["tightened_decision"] == "safe").sum() >= 0.9 * of
    for name in ("uniform", "constrained", "tightened"):
        assert ((seeds[f"{name}_bound"] >= 0.82) == (seeds[f"{name}_decision"] == "safe")).all()


def read_shown_seeds():
    """Return the README's table of seeds, a row each, and its counts."""
    line = r"^\| (\d) \|" + r" ([\d.]+) \|" * 7 + "$"
    shown = np.array(re.findall(line, README.read_text(), re.M), dtype=float)
    counts = re.search(r"^\| shown \| (\d+)/10 \| (\d+)/10 \| \| \| (\d+)/10 \|", README.read_text(), re.M)
    assert len(shown) == 10
    assert counts is not None
    return shown, [int(count) for count in counts.groups()]


def test_the_readmes_first_seed_is_the_demos(demo):
    uniform, _, constrained, tightened = demo[0].reports
    measured = [0.0, uniform.certificate.estimate]
    for report in (constrained, tightened):
        measured += [report.certificate.estimate, report.certificate.lower_bound, report.loss]
    np.testing.assert_allclose(read_shown_seeds()[0][0], measured, atol=0.02)  # another processor rounds differently


def test_the_readmes_counts_are_those_of_its_rows():
    shown, counts = read_shown_seeds()
    assert counts[1:] == [int((shown[:, column] >= 0.82).sum()) for column in (3, 6)]
    assert (shown[:, 1] < 0.82).all()
    assert counts[0] == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_readme_shows_these_seeds_misses_included(seeds):
    shown, counts = read_shown_seeds()
    names = ["uniform_new"]
    names += [f"{name}_{what}" for name in ("constrained", "tightened") for what in ("new", "bound", "loss")]
    np.testing.assert_allclose(shown, seeds[["seed", *names]].to_numpy(), atol=0.02)
    variants = ("uniform", "constrained", "tightened")
    assert counts == [int((seeds[f"{name}_decision"] == "safe").sum()) for name in variants]
    assert f"{counts[2]}/10" in _text(tabulate_seeds(seeds))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_promise_holds_on_seeds_that_no_choice_had_seen():
    rows = run_seeds(range(10, 20))
    assert (rows["uniform_new"] < 0.82).all()
    assert (rows["constrained_decision"] == "not_shown").all()
    assert (rows["tightened_decision"] == "safe").sum() >= 9
