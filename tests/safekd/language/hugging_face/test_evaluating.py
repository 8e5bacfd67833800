"""What evaluations, the trace, the verdict and certificates say, beside references computed from whole logits."""

from __future__ import annotations

import math

import pytest
import torch

import safekd as kd
from safekd.language.hugging_face.passes import SequenceMoments
from solvers.statuses import STATUS_MEANINGS

from .test_training import reference_loss
from .tiny_run import CRITICAL, make_constraints, make_model, make_rows, make_teachers, make_trainer

torch.set_num_threads(1)


def read_safety(model, rows, contexts=None):
    """p(y) at critical labels, sequence by sequence."""
    values = []
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            p = torch.softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
        label = ids[0, 1:]
        here = p.gather(-1, label[:, None])[:, 0][torch.isin(label, torch.tensor(CRITICAL))]
        if contexts is None or row["context"] in contexts:
            values.append(here)
    return values


def clustered_error(values):
    """The ratio estimator's standard error, written down from its definition."""
    totals = torch.tensor([float(v.sum()) for v in values if len(v)], dtype=torch.float64)
    counts = torch.tensor([float(len(v)) for v in values if len(v)], dtype=torch.float64)
    ratio, n = totals.sum() / counts.sum(), len(counts)
    return math.sqrt(float(n / (n - 1) * ((totals - ratio * counts) / counts.sum()).square().sum()))


def test_an_evaluation_reads_loss_perplexity_and_safety(tmp_path):
    teachers, rows = make_teachers(), make_rows(21, seed=8)
    trainer = make_trainer(tmp_path, teachers=teachers, eval_dataset=rows)
    metrics = trainer.evaluate()
    with torch.no_grad():
        assert metrics["eval_loss"] == pytest.approx(float(reference_loss(trainer.model, teachers, rows)), rel=1e-5)
    losses = [
        float(trainer.model(input_ids=ids, labels=ids).loss.detach()) * (ids.shape[1] - 1)
        for ids in (torch.tensor([row["input_ids"]]) for row in rows)
    ]
    truth = sum(losses) / sum(len(row["input_ids"]) - 1 for row in rows)
    assert metrics["eval_cross_entropy"] == pytest.approx(truth, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(truth), rel=1e-4)
    for name, contexts in (("all", None), ("news", ["news"])):
        values = read_safety(trainer.model, rows, contexts)
        mean = float(torch.cat(values).mean())
        assert metrics[f"eval_safety_{name}"] == pytest.approx(mean, rel=1e-5)
        assert metrics[f"eval_safety_se_{name}"] == pytest.approx(clustered_error(values), rel=1e-4)
        assert metrics[f"eval_violation_{name}"] == pytest.approx(0.3 - mean, rel=1e-5)


def test_several_data_sets_are_evaluated_by_name(tmp_path):
    trainer = make_trainer(tmp_path, eval_dataset={"near": make_rows(4), "far": make_rows(4, seed=3)})
    metrics = trainer.evaluate()
    assert metrics["eval_near_loss"] != metrics["eval_far_loss"]
    assert {"eval_near_safety_all", "eval_far_safety_se_news"} <= set(metrics)


def test_evaluations_within_a_run_choose_the_best_model(tmp_path):
    rows = make_rows()
    trainer = make_trainer(
        tmp_path,
        rows=rows,
        eval_dataset=rows,
        arguments={
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_strategy": "steps",
            "save_steps": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "safety_all",
            "greater_is_better": True,
        },
    )
    trainer.train()
    told = [log["eval_safety_all"] for log in trainer.state.log_history if "eval_safety_all" in log]
    assert len(told) == 3
    assert trainer.state.best_metric == pytest.approx(max(told))
    assert trainer.trace["safety_all"].iloc[-1] == pytest.approx(max(told), rel=1e-4)


def test_an_evaluation_of_padding_alone_is_refused(tmp_path):
    with pytest.raises(kd.InvalidInput, match="No position of the 2 sequences"):
        make_trainer(tmp_path).evaluate([{"input_ids": [1], "context": "news"}] * 2)


def test_an_evaluation_leaves_the_run_as_it_is(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.model.train()
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.evaluate(make_rows(4))
    assert trainer.model.training
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert all(p.grad is None for p in trainer.model.parameters())


# -------------------------------------------------------------------------------------------------------------- trace


def test_residuals_of_the_trace_are_those_of_autograd(tmp_path):
    """Stationarity from whole logits and autograd, at the multipliers of the last point."""
    rows, teachers = make_rows(8), make_teachers(torch.float64)
    trainer = make_trainer(
        tmp_path,
        student=make_model(dtype=torch.float64),
        teachers=teachers,
        rows=rows,
        constraints=make_constraints(0.5)[1:],
        arguments={"max_steps": 8},
    )
    trainer.train()
    point, lam = trainer.result().point, trainer.multipliers["all"]
    assert lam > 0
    gradients = []
    for multiplier in (0.0, lam):
        trainer.model.zero_grad()
        loss = reference_loss(trainer.model, teachers, rows, multiplier=multiplier)
        gradients.append(
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(trainer.model.parameters()))])
        )
    assert point.gradient_norm == pytest.approx(float(gradients[0].norm()), rel=1e-9)
    wanted = float(gradients[1].norm() / (1 + gradients[0].norm()))
    assert point.residuals.stationarity == pytest.approx(wanted, rel=1e-9)
    safety = float(torch.cat(read_safety(trainer.model, rows)).mean())
    assert point.residuals.primal == pytest.approx(0.5 - safety, rel=1e-9)
    assert point.residuals.complementarity == pytest.approx(min(abs(lam), 0.5 - safety), rel=1e-9)
    assert not point.sampled


def test_the_trace_has_the_columns_of_every_trace(tmp_path):
    trainer = make_trainer(tmp_path, trace_steps=3)
    trainer.train()
    assert trainer.trace["step"].tolist() == [0, 3, 6]
    wanted = ["distillation_loss", "safety_news", "violation_news", "lambda_news", "rho_news", "kkt_stationarity"]
    assert {*wanted, "kkt_primal", "kkt_dual", "kkt_complementarity", "se_news"} <= set(trainer.trace.columns)
    trainer.trace.to_csv(tmp_path / "trace.csv", index=False)


def test_a_trace_on_a_sample_says_so_and_how_far_it_is_off(tmp_path):
    exact = make_trainer(tmp_path / "exact", rows=make_rows(64), trace_sequences=64, arguments={"max_steps": 1})
    sampled = make_trainer(tmp_path / "sampled", rows=make_rows(64), trace_sequences=16, arguments={"max_steps": 1})
    exact.train()
    sampled.train()
    (of, _), (on, _) = exact.trace.to_dict("records"), sampled.trace.to_dict("records")
    assert (of["gradients"], on["gradients"]) == ("exact", "sampled")
    assert of["kkt_stationarity_se"] == 0 < on["kkt_stationarity_se"]
    assert abs(of["kkt_stationarity"] - on["kkt_stationarity"]) < 4 * on["kkt_stationarity_se"]
    assert abs(of["safety_all"] - on["safety_all"]) < 4 * on["se_all"]
    assert "16 training sequences of 64" in sampled.result().message


def test_a_sample_has_a_sequence_for_every_constraint(tmp_path):
    rows = [{**row, "context": "rare" if n == 37 else "news"} for n, row in enumerate(make_rows(64))]
    measure = kd.safety.TruthProbability(critical=CRITICAL)
    rare = kd.SafetyConstraint("rare", measure, 0.3, contexts=["rare"])
    trainer = make_trainer(tmp_path, rows=rows, constraints=[rare], trace_sequences=4, arguments={"max_steps": 1})
    trainer.train()
    assert not trainer.trace["safety_rare"].isna().any()


def test_constraints_over_mixes_and_worst_mixes_are_traced(tmp_path):
    measure = kd.safety.TruthProbability(critical=CRITICAL)
    mixed = kd.SafetyConstraint("mixed", measure, 0.4, mix={"news": 0.9, "code": 0.1})
    worst = kd.SafetyConstraint("worst", measure, 0.4, mix={"news": 0.5, "code": 0.5}, worst=kd.safety.KLBall(0.1))
    trainer = make_trainer(tmp_path, constraints=[mixed, worst], arguments={"max_steps": 4})
    trainer.train()
    values = {name: torch.cat(read_safety(trainer.model, make_rows(), [name])).mean() for name in ("news", "code")}
    assert trainer.trace["safety_mixed"].iloc[-1] == pytest.approx(
        float(0.9 * values["news"] + 0.1 * values["code"]), rel=1e-5
    )
    assert trainer.trace["safety_worst"].iloc[-1] < float(values["news"] + values["code"]) / 2
    assert trainer.multipliers["worst"] > 0


# ------------------------------------------------------------------------------------------------------------ verdict


def test_a_result_has_a_status_evidence_and_a_next_move(tmp_path):
    trainer = make_trainer(tmp_path, arguments={"max_steps": 2})
    with pytest.raises(kd.InvalidInput, match=r"call trainer\.train"):
        trainer.result()
    trainer.train()
    result = trainer.result()
    assert result.status == "budget_spent"
    assert result.status in STATUS_MEANINGS
    assert "at step 2" in result.message
    assert "resume_from_checkpoint=True" in result.next_move
    assert result.verdict.evidence["multipliers"] == list(trainer.multipliers.values())
    assert not result.feasible


def test_a_student_that_is_its_teacher_is_stationary(tmp_path):
    model = make_model(1)
    trainer = make_trainer(
        tmp_path,
        student=make_model(1),
        teachers=[make_teachers(seeds=(1,))[0]],
        constraints=make_constraints(1e-6),
        arguments={"max_steps": 2},
    )
    trainer.train()
    assert trainer.result().status == "stationary_unverified"
    assert trainer.result().feasible
    assert model.config.vocab_size == 64


def test_a_multiplier_at_its_cap_is_told(tmp_path):
    trainer = make_trainer(
        tmp_path, dual=kd.PIGain(cap=0.05), constraints=make_constraints(0.9), arguments={"max_steps": 40}
    )
    trainer.train()
    assert trainer.result().status == "cap_active"
    assert "now 0.05" in trainer.result().next_move


def test_a_learning_rate_that_breaks_the_student_is_named(tmp_path):
    trainer = make_trainer(tmp_path, constraints=[], arguments={"learning_rate": 1e30, "max_steps": 3})
    with pytest.raises(kd.SafekdError, match="student"):
        trainer.train()


def test_the_best_students_of_a_run_are_kept(tmp_path):
    from transformers import AutoModelForCausalLM

    trainer = make_trainer(
        tmp_path,
        constraints=make_constraints(0.02),
        arguments={"max_steps": 8, "save_strategy": "steps", "save_steps": 4},
        trace_steps=1,
    )
    trainer.train()
    result = trainer.result()
    feasible = trainer.trace[(trainer.trace[["violation_news", "violation_all"]] <= 1e-3).all(axis=1)]
    assert len(feasible)
    best = AutoModelForCausalLM.from_pretrained(result.best_feasible)
    with torch.no_grad():
        loss = float(reference_loss(best, trainer.teachers, make_rows()))
    assert loss == pytest.approx(feasible["distillation_loss"].min(), rel=1e-5)
    assert result.most_feasible.is_dir()


# -------------------------------------------------------------------------------------------------------- certificates


def test_certificates_cluster_by_sequence_and_leave_out_what_was_used(tmp_path):
    trainer = make_trainer(tmp_path, arguments={"max_steps": 1}, eval_dataset=make_rows(4, seed=20))
    trainer.train()
    new = make_rows(30, seed=30)
    news, everything = trainer.certify([*new, *make_rows(3), *make_rows(2, seed=20)])
    assert (everything.left_out, everything.clusters) == (5, 30)
    assert "clusters" in everything.note
    values = read_safety(trainer.model, new)
    assert everything.estimate == pytest.approx(float(torch.cat(values).mean()), rel=1e-5)
    assert everything.count == sum(map(len, values))
    assert news.clusters == 15
    with pytest.raises(kd.InvalidInput, match="all 16 of its sequences"):
        trainer.certify(make_rows())
    with pytest.raises(kd.InvalidInput, match="nothing else saw"):
        trainer.certify()


def test_a_certificate_agrees_with_that_of_the_plain_model(tmp_path):
    """kd.certify on logits of equal lengths, sequences as clusters, gives the same bound."""
    rows = make_rows(40, seed=31, shortest=9, longest=9)
    trainer = make_trainer(tmp_path, constraints=make_constraints(0.01)[1:], arguments={"max_steps": 3})
    trainer.train()
    ids = torch.tensor([row["input_ids"] for row in rows])

    class Plain(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(input_ids=ids).logits[:, :-1]

    split = kd.Split("held", ids, ids[:, 1:])
    (mine,) = trainer.certify(rows)
    theirs = kd.certify(Plain(trainer.model), trainer.terms.constraints[0], split, largest_cluster=None)
    assert mine.estimate == pytest.approx(theirs.estimate, rel=1e-5)
    assert (mine.count, mine.clusters) == (theirs.count, theirs.clusters)


def test_moments_give_the_error_of_a_ratio():
    torch.manual_seed(0)
    totals, counts = torch.rand(50, 2, dtype=torch.float64), torch.randint(0, 5, (50, 2)).double()
    moments = SequenceMoments(2)
    for part in (slice(0, 20), slice(20, 50)):
        moments.add(totals[part] * (counts[part] > 0), counts[part])
    weight = torch.tensor([0.3, 0.7], dtype=torch.float64)
    used = (counts.sum(1) > 0).double()
    totals = totals * (counts > 0)
    ratio = totals.sum(0) / counts.sum(0)
    z = ((totals - ratio * counts) / counts.sum(0)) @ weight
    n = float(used.sum())
    assert moments.standard_error(weight) == pytest.approx(math.sqrt(float(n / (n - 1) * z.square().sum())), rel=1e-12)
    other = SequenceMoments(2)
    other.unpack(moments.pack())
    assert other.standard_error(weight) == moments.standard_error(weight)
