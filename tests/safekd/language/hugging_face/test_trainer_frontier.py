"""What safety costs, traced over runs of the trainer."""

from __future__ import annotations

import pytest
import torch

import safekd as kd

from .test_training import reference_loss
from .tiny_run import CRITICAL, make_model, make_rows, make_teachers, make_trainer

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


def test_a_trainer_with_another_threshold_is_refused(tmp_path):
    with pytest.raises(kd.InvalidInput, match=r"asks for 0\.3; wanted the threshold"):
        kd.language.trace_trainer_frontier(lambda threshold: make_trainer(tmp_path, constraints=[SAFE]), targets=2)
    with pytest.raises(kd.InvalidInput, match="gave a LlamaForCausalLM; wanted a fresh SafeKDTrainer"):
        kd.language.trace_trainer_frontier(lambda threshold: make_model(), targets=2)
