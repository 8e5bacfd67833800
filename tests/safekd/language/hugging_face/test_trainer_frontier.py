"""What safety costs, traced over runs of the trainer."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch

import safekd as kd

from .test_training import reference_loss
from .tiny_run import CRITICAL, flatten, make_model, make_rows, make_teachers, make_trainer

torch.set_num_threads(1)
SAFE = kd.SafetyConstraint("safe", kd.safety.TruthProbability(critical=CRITICAL), 0.3)


def test_a_frontier_is_traced_over_thresholds(tmp_path):
    teachers, asked = make_teachers(), []

    def make(threshold):
        asked.append(threshold)
        return make_trainer(
            tmp_path,
            student=make_model(),
            teachers=teachers,
            constraints=[SAFE.with_threshold(threshold)],
            arguments={"max_steps": 60, "learning_rate": 2e-2},
        )

    rows = []
    frontier = kd.language.trace_trainer_frontier(make, targets=[0.15, 0.3], budget=3, on_point=rows.append)
    assert isinstance(frontier, kd.Frontier)
    table = frontier.table
    assert frontier.constraint == "safe"
    assert len(table) == len(rows) == 3
    anchor, *others = table.to_dict("records")
    assert anchor["status"] == "anchor"
    assert {row["target"] for row in others} == {0.15, 0.3}
    assert all(row["lambda_safe"] > 0 for row in others)
    assert table["safety_safe"].is_monotonic_increasing
    assert set(others[0]) >= {"distillation_loss", "kkt_stationarity", "feasible", "nondominated", "warm_from"}
    assert others[1]["warm_from"] == pytest.approx(0.15)
    student = frontier.students[2]
    with torch.no_grad():
        loss = float(reference_loss(student, teachers, make_rows()))
    assert loss == pytest.approx(others[1]["distillation_loss"], rel=1e-5)
    frontier.to_csv(tmp_path / "frontier.csv")
    assert kd.Frontier.from_csv(tmp_path / "frontier.csv").table["target"].tolist() == table["target"].tolist()
    frontier.plot(tmp_path / "frontier.svg")
    assert "safe" in str(frontier)


TARGETS = {"targets": [0.15, 0.3], "budget": 3}


class Swept:
    """Makes trainers of a short sweep, and counts those that train."""

    def __init__(self, folder, stop_after=None, **changed):
        self.folder, self.stop_after, self.changed, self.trained = folder, stop_after, changed, 0
        self.teachers = make_teachers()

    def __call__(self, threshold, seed=3):
        arguments = {"max_steps": 20, "learning_rate": 2e-2, "seed": seed, **self.changed.get("arguments", {})}
        rule = SAFE.with_threshold(threshold)
        rows = self.changed.get("rows", make_rows())
        trainer = make_trainer(self.folder, teachers=self.teachers, constraints=[rule], arguments=arguments, rows=rows)
        train = trainer.train

        def counted(*given, **named):
            if self.stop_after is not None and self.trained >= self.stop_after:
                raise KeyboardInterrupt
            self.trained += 1
            return train(*given, **named)

        trainer.train = counted
        return trainer


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    make = Swept(folder / "out")
    return folder / "runs", kd.language.trace_trainer_frontier(make, run_dir=folder / "runs", **TARGETS)


def test_a_sweep_that_was_stopped_goes_on_after_its_finished_runs(kept, tmp_path):
    make = Swept(tmp_path / "out", stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        kd.language.trace_trainer_frontier(make, run_dir=tmp_path / "runs", **TARGETS)
    with pytest.raises(kd.InvalidInput, match="holds 2 finished points of this sweep, which was stopped"):
        kd.language.trace_trainer_frontier(Swept(tmp_path / "out"), run_dir=tmp_path / "runs", **TARGETS)
    again = Swept(tmp_path / "out")
    frontier = kd.language.trace_trainer_frontier(again, run_dir=tmp_path / "runs", resume="auto", **TARGETS)
    assert again.trained == 1
    pd.testing.assert_frame_equal(frontier.table, kept[1].table, check_exact=True)
    done = Swept(tmp_path / "out")
    other = kd.language.trace_trainer_frontier(done, run_dir=tmp_path / "runs", resume="auto", **TARGETS)
    assert done.trained == 0
    assert torch.equal(flatten(other.students[2]), flatten(kept[1].students[2]))


def test_the_folder_of_a_sweep_is_verified_by_its_hashes(kept, tmp_path):
    shutil.copytree(kept[0], tmp_path / "runs")
    assert kd.verify_files(tmp_path / "runs").holds()
    student = next((tmp_path / "runs" / "anchor").glob("student*"))
    held = bytearray(student.read_bytes())
    held[-1] ^= 1
    student.write_bytes(bytes(held))
    assert "anchor" in str(kd.verify_files(tmp_path / "runs"))
    make = Swept(tmp_path / "out")
    frontier = kd.language.trace_trainer_frontier(make, run_dir=tmp_path / "runs", resume="auto", **TARGETS)
    assert make.trained == 1  # the damaged one
    pd.testing.assert_frame_equal(frontier.table, kept[1].table, check_exact=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": make_rows(seed=5)}, "`trainer.data.content` was"),
        ({"arguments": {"learning_rate": 1e-3}}, r"`arguments.learning_rate` was 0.02 and is now 0.001"),
    ],
)
def test_the_folder_of_another_sweep_is_refused(kept, tmp_path, changed, said):
    make = Swept(tmp_path / "out", **changed)
    with pytest.raises(kd.InvalidInput, match=f"holds points of another sweep: .*{said}"):
        kd.language.trace_trainer_frontier(make, run_dir=kept[0], resume="auto", **TARGETS)
    assert make.trained == 0


def test_every_seed_is_swept(tmp_path):
    make = Swept(tmp_path / "out")
    frontier = kd.language.trace_trainer_frontier(make, seeds=[3, 4], targets=[0.2], budget=2)
    assert frontier.table["seed"].tolist().count(3) == frontier.table["seed"].tolist().count(4) == 2
    losses = frontier.table.groupby("seed")["distillation_loss"].first()
    assert losses[3] != losses[4]


def test_students_are_what_their_rows_say(kept):
    report = kd.language.verify_trainer_frontier(kept[1], Swept(kept[0].parent / "out"))
    assert report.holds(), str(report)
    assert len(report.table) == 3
    table = kept[1].table.copy()
    table.loc[1, "safety_safe"] += 1e-3
    forged = kd.Frontier(table, "safe", kept[1].meta, kept[1].students)
    report = kd.language.verify_trainer_frontier(forged, Swept(kept[0].parent / "out"))
    assert not report.holds()
    assert "row 1" in str(report)
    assert "safety_safe" in str(report)
    bare = kd.Frontier(kept[1].table, "safe", kept[1].meta, {})
    with pytest.raises(kd.InvalidInput, match="no students of trainers"):
        kd.language.verify_trainer_frontier(bare, Swept(kept[0].parent / "out"))


def test_a_trainer_with_another_threshold_is_refused(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"asks for 0\.3; wanted the threshold"):
        kd.language.trace_trainer_frontier(lambda threshold: make_trainer(tmp_path, constraints=[SAFE]), targets=2)
    with pytest.raises(kd.InvalidInput, match="gave a LlamaForCausalLM; wanted a fresh SafeKDTrainer"):
        kd.language.trace_trainer_frontier(lambda threshold: make_model(), targets=2)


def test_a_trainer_without_a_threshold_to_sweep_is_refused(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"gave a trainer whose first constraint has no at_least to be swept"):
        kd.language.trace_trainer_frontier(lambda threshold: make_trainer(tmp_path, constraints=[]), targets=2)
