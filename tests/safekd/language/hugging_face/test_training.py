"""What a step of the trainer does, beside plain autograd; accumulation, types of number, names."""

from __future__ import annotations

import json

import pytest
import tokenizers
import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback

import safekd as kd

from .tiny_run import (
    CRITICAL,
    flatten,
    make_arguments,
    make_constraints,
    make_model,
    make_rows,
    make_teachers,
    make_trainer,
)

torch.set_num_threads(1)


def reference_loss(student, teachers, rows, cross_entropy=0.0, multiplier=0.0):
    """Forward KL of the mean teacher, sequence by sequence, by logits and autograd."""
    total, truth, safe, positions, critical = 0.0, 0.0, 0.0, 0, 0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        log_s = torch.log_softmax(student(input_ids=ids).logits[0, :-1], -1)
        with torch.no_grad():
            q = sum(torch.softmax(t.model(input_ids=ids).logits[0, :-1], -1) for t in teachers) / len(teachers)
        label = ids[0, 1:]
        total = total + (q * (q.log() - log_s)).sum()
        log_truth = log_s.gather(-1, label[:, None])[:, 0]
        truth = truth - log_truth.sum()
        inside = torch.isin(label, torch.tensor(CRITICAL))
        safe, critical = safe + log_truth.exp()[inside].sum(), critical + int(inside.sum())
        positions += len(label)
    loss = (1 - cross_entropy) * total / positions + cross_entropy * truth / positions
    return loss - multiplier * safe / critical


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_follows_the_gradient_of_the_plain_loss(tmp_path, tied, accumulation):
    student, rows = make_model(0, tied=tied, dtype=torch.float64), make_rows(8)
    teachers = make_teachers(torch.float64)
    before = make_model(0, tied=tied, dtype=torch.float64)
    loss = reference_loss(before, teachers, rows, cross_entropy=0.25)
    loss.backward()
    loss = loss.detach()
    arguments = {
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": 8 // accumulation,
        "gradient_accumulation_steps": accumulation,
    }
    trainer = make_trainer(
        tmp_path, student=student, teachers=teachers, rows=rows, arguments=arguments, cross_entropy=0.25
    )
    out = trainer.train()
    assert out.training_loss == pytest.approx(float(loss), rel=1e-6)  # transformers adds losses up in float32
    moved = dict(student.named_parameters())
    for name, p in before.named_parameters():
        assert torch.allclose(p - p.grad, moved[name], atol=1e-10), name


def test_four_times_two_is_eight(tmp_path):
    """Unequal lengths, masks, constraints that some microbatches do not speak of: the same weights and multipliers."""
    runs = []
    for size, accumulation in ((8, 1), (2, 4)):
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 6}
        trainer = make_trainer(tmp_path / str(size), arguments=arguments, constraints=make_constraints(0.6))
        trainer.train()
        runs.append((flatten(trainer.model), torch.tensor(list(trainer.multipliers.values()))))
    assert torch.allclose(runs[0][0], runs[1][0], atol=1e-6)
    assert torch.allclose(runs[0][1], runs[1][1], atol=1e-6)
    assert bool((runs[0][1] > 0).all())


def test_the_last_step_of_an_epoch_may_have_fewer_microbatches(tmp_path):
    rows, runs = make_rows(10), []
    for size, accumulation in ((8, 1), (2, 4)):  # the second step of each epoch has 2 rows
        arguments = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "max_steps": -1,
            "num_train_epochs": 2,
        }
        student = make_model(dtype=torch.float64)
        trainer = make_trainer(
            tmp_path / str(size), student=student, teachers=make_teachers(torch.float64), rows=rows, arguments=arguments
        )
        trainer.train()
        assert trainer.state.global_step == 4
        runs.append((flatten(student), trainer.multipliers))
    assert torch.allclose(runs[0][0], runs[1][0], atol=1e-9)
    assert runs[0][1] == pytest.approx(runs[1][1], rel=1e-9)


def test_labels_and_padding_leave_positions_out(tmp_path):
    """A position whose label is -100 is none, wherever padding is put."""
    rows = [{**row, "labels": [-100, -100, *row["input_ids"][2:]], "context": "news"} for row in make_rows(8)]
    constraint = kd.SafetyConstraint("all", kd.safety.TruthProbability(), 0.5)
    seen = []
    for side in ("right", "left"):
        trainer = make_trainer(tmp_path / side, rows=rows, constraints=[constraint])
        trainer.data_collator.side = side
        trainer.train_dataset, trainer.eval_dataset = trainer.train_dataset, rows
        seen.append(trainer.evaluate())
    counted = sum(len(row["input_ids"]) - 2 for row in rows)
    ids = [row["input_ids"] for row in rows]
    with torch.no_grad():
        log_p = [torch.log_softmax(trainer.model(input_ids=torch.tensor([i])).logits[0], -1) for i in ids]
    values = [log_p[n][t - 1, i[t]] for n, i in enumerate(ids) for t in range(2, len(i))]
    assert len(values) == counted
    assert seen[0]["eval_cross_entropy"] == pytest.approx(-float(sum(values)) / counted, rel=1e-5)
    assert seen[0]["eval_safety_all"] == pytest.approx(float(sum(v.exp() for v in values)) / counted, rel=1e-5)


def test_bfloat16_computes_the_model_and_float32_the_loss(tmp_path):
    plain = make_trainer(tmp_path / "plain", arguments={"max_steps": 4})
    half = make_trainer(tmp_path / "half", arguments={"max_steps": 4, "bf16": True})
    losses = [trainer.train().training_loss for trainer in (plain, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    assert half.multipliers == pytest.approx(plain.multipliers, rel=0.1)


def test_a_student_in_bfloat16_is_trained(tmp_path):
    trainer = make_trainer(tmp_path, student=make_model(dtype=torch.bfloat16), arguments={"max_steps": 2})
    assert trainer.train().training_loss > 0
    assert trainer.trace["distillation_loss"].is_monotonic_decreasing


def test_activation_checkpointing_changes_nothing(tmp_path):
    runs = []
    for on in (False, True):
        trainer = make_trainer(tmp_path / str(on), arguments={"max_steps": 2, "activation_checkpointing": on})
        trainer.train()
        runs.append(flatten(trainer.model))
    assert torch.allclose(*runs, atol=1e-6)


def test_logs_show_safety_beside_thresholds_and_multipliers(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    trainer = make_trainer(tmp_path, callbacks=[Watch()])
    trainer.train()
    steps = [logs for logs in seen if "loss" in logs]
    assert len(steps) == 3
    for logs in steps:
        assert {"safety_news", "required_news", "lambda_news", "safety_all", "distillation_loss"} <= set(logs)
        assert all(isinstance(value, (int, float)) for value in logs.values())
    assert steps[-1]["lambda_all"] == pytest.approx(trainer.multipliers["all"])
    assert any("kkt_stationarity" in logs for logs in seen)
    json.dumps(trainer.state.log_history)


def test_multipliers_rise_and_lift_safety(tmp_path):
    """With constraints the student is safer than without, and gives up loss for it."""
    ends = {}
    for name, constraints in (("free", []), ("safe", make_constraints(0.5))):
        trainer = make_trainer(
            tmp_path / name, constraints=constraints, arguments={"max_steps": 60, "learning_rate": 1e-2}
        )
        trainer.eval_dataset = make_rows()
        trainer.train()
        trainer.terms = make_trainer(tmp_path / "terms").terms  # both are asked the same
        ends[name] = trainer.evaluate()
    assert ends["safe"]["eval_safety_all"] > ends["free"]["eval_safety_all"] + 0.1
    assert ends["safe"]["eval_loss"] > ends["free"]["eval_loss"]


def test_contexts_are_found_by_name(tmp_path):
    trainer = make_trainer(tmp_path)
    assert trainer.columns.contexts == ("code", "news")
    (_, average), *_ = trainer.terms.constraints[0].parts
    assert average.contexts == [1]
    with pytest.raises(kd.InvalidInput, match=r"'law'.*'code', 'news'"):
        make_trainer(tmp_path, constraints=[kd.SafetyConstraint("x", kd.safety.Recall([3]), 0.5, contexts=["law"])])


def test_a_context_that_nobody_named_is_refused_with_those_that_are_known(tmp_path):
    trainer = make_trainer(tmp_path)
    with pytest.raises(kd.InvalidInput, match=r"'context'.*'law'.*known are 'code', 'news'.*context_names"):
        trainer.evaluate([{"input_ids": [1, 2, 3], "context": "law"}])


def test_columns_of_a_hugging_face_data_set_are_kept(tmp_path):
    rows = [{**row, "text": "not tokens"} for row in make_rows(8)]
    trainer = make_trainer(tmp_path, rows=Dataset.from_list(rows), arguments={"max_steps": 2})
    plain = make_trainer(tmp_path, rows=rows, arguments={"max_steps": 2})
    trainer.train()
    plain.train()
    assert trainer.multipliers == plain.multipliers
    assert torch.equal(flatten(trainer.model), flatten(plain.model))


def test_a_stream_is_trained_on(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(make_rows(64))

    trainer = make_trainer(tmp_path, rows=Stream(), arguments={"max_steps": 3}, context_names=["code", "news"])
    trainer.train()
    assert trainer.multipliers["news"] > 0
    assert set(trainer.trace["gradients"]) == {"sampled"}


def test_the_users_own_collator_and_tokenizer_work(tmp_path):
    words = {f"w{i}": i for i in range(63)} | {"[PAD]": 63}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]")
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    constraint = kd.SafetyConstraint("said", kd.safety.TruthProbability(["w3", "w4"]), 0.3, contexts=["news"])
    trainer = make_trainer(
        tmp_path,
        rows=[{**row, "input_ids": [i % 63 for i in row["input_ids"]]} for row in make_rows()],
        constraints=[constraint],
        data_collator=collator,
        processing_class=tokenizer,
        arguments={"max_steps": 2},
    )
    trainer.train()
    assert trainer.multipliers["said"] > 0
    assert trainer.terms.constraints[0].measure.critical == {3, 4}
    with pytest.raises(kd.InvalidInput, match="No single token writes 'w3 w4'"):
        make_trainer(
            tmp_path,
            constraints=[kd.SafetyConstraint("x", kd.safety.TruthProbability(["w3 w4"]), 0.3)],
            processing_class=tokenizer,
        )
    with pytest.raises(kd.InvalidInput, match="processing_class=tokenizer"):
        make_trainer(tmp_path, constraints=[kd.SafetyConstraint("x", kd.safety.TruthProbability(["w3"]), 0.3)])


def test_a_constraint_that_covers_nothing_is_refused_before_the_first_step(tmp_path):
    rows = [{"input_ids": [20 + i, 30, 40 + i]} for i in range(8)]
    trainer = make_trainer(tmp_path, rows=rows, constraints=make_constraints()[1:])
    with pytest.raises(kd.InvalidInput, match="'all' covers no position"):
        trainer.train()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
        ({"label_smoothing_factor": 0.1}, "teachers soften the labels"),
        ({"bf16_full_eval": True}, "rounds the student's weights"),
    ],
)
def test_arguments_that_cannot_be_kept_are_refused(tmp_path, changed, said):
    with pytest.raises(kd.InvalidInput, match=said):
        make_trainer(tmp_path, arguments=changed)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teachers": []}, "There are no teachers"),
        ({"teachers": [torch.nn.Linear(2, 2)]}, "is a Linear; wanted a CausalTeacher"),
        ({"teachers": make_teachers() + make_teachers()}, "Two teachers are called 'teacher-1'"),
        ({"constraints": ["safe"]}, "is a str; wanted kd.SafetyConstraint"),
        ({"constraints": [make_constraints()[1].with_split("held")]}, "posed on 'held'"),
        ({"constraints": make_constraints()[:1] * 2}, "Two constraints are called 'news'"),
        ({"weights": kd.weights.UncertaintyWeighting(2)}, "UncertaintyWeighting learns from a loss of its own"),
        ({"compute_metrics": print}, "logits of a whole data set"),
        ({"rows": [{"text": "a"}], "constraints": []}, "`input_ids` is not among them"),
        ({"rows": [{"input_ids": [1, 2, 3]}]}, "'news' is the name of a context, and column 'context'"),
        ({"student": torch.nn.Linear(2, 2)}, "Linear has no output matrix"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(tmp_path, more, said):
    with pytest.raises(kd.InvalidInput, match=said):
        make_trainer(tmp_path, **more).train()


def test_the_callers_arguments_stay_as_they_are(tmp_path):
    args = make_arguments(tmp_path)
    before = args.to_json_string()
    kd.language.SafeKDTrainer(make_model(), args, teachers=make_teachers(), train_dataset=make_rows())
    assert args.to_json_string() == before
    assert args.remove_unused_columns
