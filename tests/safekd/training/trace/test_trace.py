"""Full passes and the table they make: gradients, averages and standard errors against autograd and numpy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import Recall
from safekd.teachers import StoredTeacher
from safekd.training import FitResult, read_full_pass
from safekd.training.trace import ConstraintReading, Trace, TracePoint
from solvers.kkt import KKTResiduals
from tests.support.problems import at_least, one_each, trainer_for


def task(examples: int = 23, positions: int | None = None) -> tuple[kd.Split, kd.Split, list[StoredTeacher]]:
    """Random data with contexts, a second split, and two teachers that disagree."""
    draw = torch.Generator().manual_seed(2)
    shape = (examples,) if positions is None else (examples, positions)

    def split(name):
        inputs = torch.randn(*shape, 4, generator=draw, dtype=torch.float64)
        labels = torch.randint(3, shape, generator=draw)
        return kd.Split(name, inputs, labels, context=torch.arange(examples) % 2)

    def stored(name):
        rows = {s: torch.softmax(torch.randn(*shape, 3, generator=draw).double(), -1) for s in ("train", "validation")}
        return StoredTeacher(name, rows)

    return split("train"), split("validation"), [stored("a"), stored("b")]


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).double()


def by_hand(student, train, validation, teachers):
    """The whole-split objective and constraint values, written out with autograd."""
    logits, labels = student(train.inputs), train.labels
    q = (teachers[0]._rows["train"] + teachers[1]._rows["train"]) / 2
    log_p = torch.log_softmax(logits, -1)
    loss = (q * (q.log() - log_p)).sum(-1).mean()
    p0 = log_p.exp()[..., 0][labels == 0]
    inside = (train.context == 1).reshape(-1, *[1] * (labels.ndim - 1)).expand_as(labels)
    truth = log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1).exp()
    p_there = truth[inside & (labels == 1)]
    log_a = torch.log_softmax(student(validation.inputs), -1)
    odds = (4 * log_a[..., 2] - torch.logsumexp(4 * log_a[..., :2], -1))[validation.labels == 2]
    recall = (1 / (1 + torch.nn.functional.softplus(-odds) / math.log(2))).mean()
    hit = (log_a.argmax(-1) == 2)[validation.labels == 2].double()
    return loss, [p0.mean(), p_there.mean(), recall], [p0, p_there, hit]


def rules():
    return [
        at_least(0.5, "zero"),
        at_least(0.5, "there", critical=1, contexts=[1]),
        kd.SafetyConstraint("recall", Recall(critical=[2]), 0.75, split="validation"),
    ]


@pytest.mark.parametrize("positions", [None, 3])
@pytest.mark.parametrize("chunk", [4096, 4, 1])
def test_a_full_pass_is_autograd_of_the_whole_split(chunk, positions):
    train, validation, teachers = task(positions=positions)
    student = net().train()
    trainer = kd.ConstrainedTrainer(
        student, teachers, constraints=rules(), optimizer=torch.optim.SGD(student.parameters(), 0.1)
    )
    trainer.objective.rows = chunk
    full = read_full_pass(
        trainer.objective, train, {"validation": validation}, trainer.constraints, with_gradients=True
    )
    assert student.training  # handed back as it was
    student.eval()
    loss, surrogates, values = by_hand(student, train, validation, teachers)

    def gradient(scalar):
        parts = torch.autograd.grad(scalar, list(student.parameters()), retain_graph=True)
        return torch.cat([part.reshape(-1) for part in parts])

    assert full.loss == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(full.gradient_n, gradient(loss), rtol=1e-10, atol=1e-14)
    expected_Mn = torch.stack([-gradient(one) for one in surrogates])  # g = required - safety
    torch.testing.assert_close(full.jacobian_Mn, expected_Mn, rtol=1e-10, atol=1e-14)
    for reading, smooth, value in zip(full.readings, surrogates, values, strict=True):
        numbers = value.detach().numpy()
        assert reading.surrogate == pytest.approx(smooth.item(), rel=1e-12)
        assert reading.measured == pytest.approx(numbers.mean(), rel=1e-12)
        assert reading.count == len(numbers) > 1
        assert reading.standard_error == pytest.approx(numbers.std(ddof=1) / math.sqrt(len(numbers)), rel=1e-10)
    without = read_full_pass(
        trainer.objective, train, {"validation": validation}, trainer.constraints, with_gradients=False
    )
    assert without.readings == full.readings
    assert without.loss == full.loss


def run() -> tuple[FitResult, kd.Split, kd.Split, list[StoredTeacher]]:
    train, validation, teachers = task()
    student = net()
    trainer = kd.ConstrainedTrainer(
        student, teachers, constraints=rules(), optimizer=torch.optim.SGD(student.parameters(), 0.1)
    )
    return trainer.fit(train, validation, epochs=20, trace_every=5), train, validation, teachers


COLUMNS = ["step", "epoch", "distillation_loss", "se_distillation_loss"]
WHATS = (
    "safety",
    "surrogate",
    "required",
    "violation",
    "se",
    "split",
    "ema",
    "lambda",
    "rho",
    "peak_weight",
    "multiplier_scale",
    "capped",
    "gradient_norm",
)
for _name in ("zero", "there", "recall"):
    COLUMNS += [f"{what}_{_name}" for what in WHATS]
COLUMNS += ["kkt_stationarity", "kkt_stationarity_se", "kkt_primal", "kkt_dual", "kkt_complementarity"]
COLUMNS += ["gradient_norm", "gradients", "clipped_steps", "skipped_steps", "validation_distillation_loss"]
COLUMNS += [f"validation_{what}_{name}" for name in ("zero", "there", "recall") for what in ("safety", "se")]
COLUMNS += ["wall_s", "memory_bytes", "peak_memory_bytes"]


def test_the_table_holds_one_row_a_point_and_its_residuals_follow_from_the_data():
    result, train, validation, teachers = run()
    table = result.trace
    assert list(table.columns) == COLUMNS
    assert table["step"].tolist() == [0, 5, 10, 15, 20]
    assert (table["wall_s"].diff().dropna() >= 0).all()
    student = result.student
    loss, surrogates, values = by_hand(student, train, validation, teachers)
    last = table.iloc[-1]
    lam = [last["lambda_zero"], last["lambda_there"], last["lambda_recall"]]
    lagrangian = loss - sum(multiplier * s for multiplier, s in zip(lam, surrogates, strict=True))
    parameters = list(student.parameters())

    def norm(scalar):
        return math.sqrt(sum(float((g**2).sum()) for g in torch.autograd.grad(scalar, parameters, retain_graph=True)))

    counted = math.ceil(0.75 * len(values[2])) / len(values[2])  # recall is posed at a value that it can take
    g = [r - value.mean().item() for r, value in zip((0.5, 0.5, counted), values, strict=True)]
    assert last["gradient_norm"] == pytest.approx(norm(loss), rel=1e-9)
    assert last["kkt_stationarity"] == pytest.approx(norm(lagrangian) / (1 + norm(loss)), rel=1e-9)
    assert last["kkt_primal"] == pytest.approx(max(0, *g), rel=1e-9)
    assert last["kkt_dual"] == 0
    assert last["kkt_complementarity"] == pytest.approx(
        max(abs(min(multiplier, -v)) for multiplier, v in zip(lam, g, strict=True)), rel=1e-9
    )
    asked = {"zero": 0.5, "there": 0.5, "recall": 0.75}  # a violation is against what was asked
    for (name, wanted), value in zip(asked.items(), values, strict=True):
        assert last[f"violation_{name}"] == pytest.approx(max(wanted - value.mean().item(), 0), abs=1e-12)
    assert [last["split_zero"], last["split_recall"]] == ["train", "validation"]
    for name, smooth in zip(("zero", "there", "recall"), surrogates, strict=True):
        assert last[f"gradient_norm_{name}"] == pytest.approx(norm(smooth), rel=1e-9)
    assert [last["gradients"], last["kkt_stationarity_se"]] == ["exact", 0.0]
    q = (teachers[0]._rows["train"] + teachers[1]._rows["train"]) / 2
    losses = (q * (q.log() - torch.log_softmax(student(train.inputs), -1))).sum(-1).detach().numpy()
    assert last["se_distillation_loss"] == pytest.approx(losses.std(ddof=1) / math.sqrt(len(losses)), rel=1e-9)


def test_running_averages_caps_and_memory():
    """On full batches without dropout the engine sees g as it was one step earlier; before that it saw nothing."""
    trainer = trainer_for(at_least(0.6), dual=kd.AugmentedLagrangian(cap=0.1))
    table = trainer.fit(one_each(), epochs=60, trace_every=1, tolerance=1e-12).trace
    seen = 0.6 - table["safety_first"].shift(1)
    assert math.isnan(table["ema_first"][0])
    assert table["ema_first"][1:].tolist() == pytest.approx(seen[1:].tolist(), abs=1e-12)
    assert table["capped_first"].tolist() == (table["lambda_first"] >= 0.1).tolist()
    assert table["capped_first"].nunique() == 2  # the test means something
    assert (table["memory_bytes"] > 1e7).all()  # torch alone is larger
    assert (table["peak_memory_bytes"] > 1e7).all()


def test_the_validation_columns_read_every_constraint_on_the_validation_split():
    result, _, validation, _ = run()
    last = result.trace.iloc[-1]
    with torch.no_grad():
        p = torch.softmax(result.student(validation.inputs), -1)
    assert last["validation_safety_zero"] == pytest.approx(p[validation.labels == 0, 0].mean().item(), rel=1e-12)
    assert last["validation_safety_recall"] == last["safety_recall"]  # posed there
    assert {reading.split for reading in result.point.validation} == {"validation"}


def test_no_validation_split_no_validation_columns():
    train, _, teachers = task()
    student = net()
    trainer = kd.ConstrainedTrainer(student, teachers, optimizer=torch.optim.SGD(student.parameters(), 0.1))
    table = trainer.fit(train, epochs=2).trace
    assert not [column for column in table if column.startswith("validation")]
    assert not [column for column in table if column.startswith("safety")]


def reading(measured=0.7, required=0.8, count=1, se=math.nan):
    return ConstraintReading("a", "train", measured, measured, required, count, se)


def test_a_violation_is_never_negative_and_never_hides_what_is_no_number():
    assert reading().violation == pytest.approx(0.1)
    assert reading(0.9).violation == 0
    assert math.isnan(reading(math.nan).violation)


def test_what_is_unusable_is_said():
    def point(loss=1.0, measured=0.7, stationarity=0.0):
        return TracePoint(0, 0, loss, [reading(measured)], [1.0], [10.0], KKTResiduals(stationarity, 0, 0, 0), 1.0, 0.0)

    assert point().finite
    assert point().unusable == ""
    assert point(loss=math.inf).unusable == "the distillation loss is inf"
    assert point(measured=math.nan, stationarity=math.nan).unusable == "constraint 'a' is nan, stationarity is nan"
    assert not point(stationarity=math.nan).finite
    inside = replace(point(), constraint_gradient_norms=[math.nan])
    assert inside.unusable == "the gradient of constraint 'a' is nan"
    blunt = replace(point(), readings=[replace(reading(), surrogate=math.inf)])
    assert blunt.unusable == "the surrogate of constraint 'a' is inf"


def test_a_trace_is_written_to_the_last_bit(tmp_path):
    trace = Trace()
    draw = np.random.default_rng(0)
    for step in range(20):
        multiplier, loss = (float(x) for x in draw.normal(size=2) * 10.0 ** draw.integers(-200, 200, 2))
        trace.record(
            TracePoint(step, 1, loss, [reading()], [multiplier], [10.0], KKTResiduals(0.1, 0.2, 0.0, 0.3), 0.1, 0.5)
        )
    trace.to_csv(tmp_path / "trace.csv")
    read = pd.read_csv(tmp_path / "trace.csv")
    for column in ("distillation_loss", "lambda_a", "kkt_stationarity", "safety_a"):
        assert read[column].tolist() == trace.table()[column].tolist()
    assert read["se_a"].isna().all()  # one example has no spread
    assert [path.name for path in tmp_path.iterdir()] == ["trace.csv"]
