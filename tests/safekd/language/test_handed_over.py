"""What users hand over as they have it: bare models, single things in place of lists, rows that do not fit."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset, DatasetDict

import safekd as kd
from safekd.data import Batch
from safekd.errors import InvalidInput
from safekd.language import (
    CausalStudent,
    LanguageStep,
    Logits,
    Rollouts,
    TeacherSet,
    as_text_source,
    critical_tokens,
    distillation_loss,
    write_cache,
)
from safekd.safety import TruthProbability

from .hugging_face.tiny_run import make_constraints, make_model, make_rows, make_trainer
from .tiny_models import V, causal_model


def make_batch():
    ids = torch.randint(3, V, (2, 5))
    number = torch.arange(2)
    return Batch(ids, ids, number * 0, number * 0, number, mask=torch.ones(2, 5, dtype=torch.bool))


def test_models_of_transformers_are_teachers_as_they_are(tmp_path):
    models = [causal_model(seed=1), causal_model(seed=2), causal_model("gpt2", seed=3)]
    assert TeacherSet(models).names == ["LlamaForCausalLM", "LlamaForCausalLM-2", "GPT2LMHeadModel"]
    source = as_text_source([[5, 6, 7], [8, 9, 10]], length=3)
    first, second = write_cache(tmp_path / "several", models[:2], source)
    assert (first.name, second.name) == ("LlamaForCausalLM", "LlamaForCausalLM-2")
    (one,) = write_cache(tmp_path / "one", models[0], source, kind="topk", k=4)
    said = one(source.batch())
    trainer = make_trainer(tmp_path / "run", teachers=[make_model(1), make_model(2)])
    assert trainer.train().global_step > 0
    with pytest.raises(InvalidInput, match=r"Teacher 0 is CachedTeacher; it answers a batch, so pass teacher\(batch\)"):
        distillation_loss(torch.randn(*said.lead, V), None, [one])


def test_a_step_takes_one_constraint_one_batch_and_teachers_themselves():
    constraint = kd.SafetyConstraint("a", TruthProbability(), at_least=0.1)
    step, batch = LanguageStep(TeacherSet([causal_model()]), constraints=constraint), make_batch()
    assert step.names == ["LlamaForCausalLM"]
    step.begin(batch)
    step.loss(torch.randn(2, 5, V), None, [Logits(torch.randn(2, 5, V))], batch)
    assert step.finish().positions == 10
    with pytest.raises(InvalidInput, match="There are no teachers"):
        LanguageStep([])


@pytest.mark.parametrize(("calls", "read"), [(0, 0), (2, 20)])
def test_a_step_whose_losses_are_not_those_that_were_counted_is_refused(calls, read):
    step, batch = LanguageStep(1), make_batch()
    step.begin([batch])
    for _ in range(calls):
        step.loss(torch.randn(2, 5, V), None, [Logits(torch.randn(2, 5, V))], batch)
    with pytest.raises(InvalidInput, match=rf"read {read} positions, and begin\(\) counted 10; call loss\(\) once"):
        step.finish()
    step.cancel()
    assert step.steps == 0


def test_a_wrapped_student_writes_by_its_model():
    batch = next(iter(Rollouts([[5, 6]], CausalStudent(causal_model()), length=3, batch_size=2)))
    assert len(batch) == 2
    with pytest.raises(InvalidInput, match=r"`context` is \['news'\]; wanted one number from 0 a prompt"):
        Rollouts([[5, 6]], causal_model(), context=["news"])


def test_critical_words_need_a_tokenizer():
    with pytest.raises(InvalidInput, match="`tokenizer` is a NoneType; wanted that of the student"):
        critical_tokens(None, ["bomb"])


ROWS = make_rows(8)
ODD = {
    "labels too short": (
        [{**row, "labels": row["input_ids"][1:]} for row in ROWS],
        "Column 'labels' of a row has shape",
    ),
    "labels in some rows": (
        [{**row, "labels": row["input_ids"]} if i % 2 == 0 else row for i, row in enumerate(ROWS)],
        "Some rows have a column 'labels' and others have none",
    ),
    "text beside tokens": ([{**row, "text": "the cat"} for row in ROWS], "Column 'text' of a row is 'the cat'"),
}


@pytest.mark.parametrize(("rows", "said"), ODD.values(), ids=ODD)
def test_rows_that_do_not_fit_are_refused(rows, said, tmp_path):
    arguments = {"remove_unused_columns": False, "train_sampling_strategy": "sequential"}
    with pytest.raises(InvalidInput, match=said):
        make_trainer(tmp_path, rows=rows, arguments=arguments, constraints=[]).train()


def test_several_data_sets_in_place_of_one_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"A data set is a DatasetDict with \['train'\]; wanted one of them"):
        make_trainer(tmp_path, rows=DatasetDict(train=Dataset.from_list(ROWS)))


def test_a_student_that_cannot_learn_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="No parameter of the student may move"):
        make_trainer(tmp_path, student=make_model().requires_grad_(False), constraints=make_constraints())
