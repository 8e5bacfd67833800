"""What the trainer is given and cannot use is refused in words of its own, before transformers fails on it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import IterableDataset

import safekd as kd
from safekd.language import SafeKDTrainer

from .tiny_run import make_arguments, make_constraints, make_model, make_rows, make_teachers, make_trainer

torch.set_num_threads(1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(make_rows(contexts=None))


@pytest.fixture(scope="module")
def student():
    return make_model()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rows": []}, "`train_dataset` is empty, 0 rows; wanted at least one"),
        ({"eval_dataset": {"one": []}}, r"`eval_dataset\['one'\]` is empty"),
        ({"rows": (row for row in make_rows())}, "`train_dataset` is a generator; wanted rows by number with a length"),
        ({"rows": "corpus.txt"}, "`train_dataset` is a str; wanted rows by number"),
        ({"rows": Stream(), "arguments": {"max_steps": -1}}, r"is a stream.* max_steps of the arguments is -1; wanted"),
        ({"pool": "mean"}, "`pool` is 'mean'"),
        ({"temperature": [1.0]}, "1 numbers for 2 teachers"),
        ({"cross_entropy": 2}, "`cross_entropy` is 2"),
        ({"budget": "much"}, "`budget` is 'much'"),
        ({"divergence": "kl"}, "`divergence` is 'kl'"),
        ({"weights": torch.ones(3) / 3}, r"`weights` has shape \(3,\); wanted \(2,\)"),
        ({"trace_steps": 0}, "`trace_steps` is 0; wanted a whole number of at least 1"),
        ({"trace_sequences": None}, "`trace_sequences` is None"),
        ({"tolerance": -1}, "`tolerance` is -1"),
        ({"dual": "pi"}, "`dual` is 'pi'; wanted how multipliers move"),
        ({"weights_optimizer": "adam"}, "`weights_optimizer` is 'adam'"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_trainer_is_made(tmp_path, student, changed, said):
    with pytest.raises(kd.InvalidInput, match=said):
        make_trainer(tmp_path, student=student, **{"constraints": [], **changed})


def test_training_without_data_says_where_they_go(tmp_path, student):
    trainer = SafeKDTrainer(student, make_arguments(tmp_path), teachers=make_teachers())
    with pytest.raises(kd.InvalidInput, match=r"no `train_dataset`.*SafeKDTrainer\(\.\.\., train_dataset=rows\)"):
        trainer.train()


def test_a_student_that_is_not_finite_is_not_certified(tmp_path):
    trainer = make_trainer(tmp_path, student=make_model(), constraints=make_constraints()[1:])
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(
        kd.SafekdError, match="The student's 'all' is not finite on held-out text; mend the student first"
    ):
        trainer.certify(make_rows(8, seed=50))


def test_a_folder_is_no_arguments_and_settings_of_transformers_are_told(tmp_path, student):
    with pytest.raises(kd.InvalidInput, match=r"`args` is a str; wanted transformers\.TrainingArguments\(output_dir, "):
        SafeKDTrainer(student, str(tmp_path), teachers=make_teachers(), train_dataset=make_rows())
    with pytest.raises(kd.InvalidInput, match="`compute_metrics` was given: logits of a whole data set are never held"):
        make_trainer(tmp_path, student=student, compute_metrics=len)


class Nothing(IterableDataset):
    def __iter__(self):
        return iter([])


ROWS = {
    "lists": ({"rows": [[1, 2, 3]] * 4}, "A row of the data set is a list; wanted columns by name"),
    "half a context": (
        {"rows": [{"input_ids": [1, 2, 3], "context": 1.5}] * 4},
        "Column 'context' of a row is 1.5; wanted a whole number or a name",
    ),
    "text for a model": (
        {
            "rows": [{"input_ids": [1, 2, 3], "inputs_embeds": "x"}] * 4,
            "arguments": {"remove_unused_columns": False},
        },
        "Column 'inputs_embeds' of a row is 'x', which no model reads; leave it out",
    ),
    "no rows of a stream": ({"rows": Nothing()}, "`train_dataset` is empty; wanted at least one row"),
    "names in a text": ({"context_names": "news"}, "`context_names` is 'news'; wanted a list of different names"),
    "names twice": ({"context_names": ["a", "a"]}, r"`context_names` is \['a', 'a'\]; wanted a list of different"),
    "a collator of its own": (
        {"data_collator": lambda rows: {"ids": torch.zeros(len(rows), 3)}},
        r"The data collator gave \['ids'\]; wanted a tensor `input_ids` among them",
    ),
    "an optimizer of nothing": (
        {"weights_optimizer": torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)},
        "`weights_optimizer` was given, and nothing learns in `weights`; leave it out",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_and_settings_that_a_run_cannot_use_are_refused(case, tmp_path, student):
    changed, said = ROWS[case]
    with pytest.raises(kd.InvalidInput, match=said):
        make_trainer(tmp_path, student=student, **{"constraints": [], **changed}).train()


def test_what_a_run_shows_is_not_there_before_it(tmp_path, student):
    trainer = make_trainer(tmp_path, student=student)
    assert trainer.multipliers == {"news": 0.0, "all": 0.0}
    with pytest.raises(kd.InvalidInput, match=r"has had no run.*call trainer\.train\(\) first"):
        trainer.result()
    trainer.start_multipliers = [1.0]
    with pytest.raises(kd.InvalidInput, match="1 multipliers were given; wanted 2, one a constraint"):
        trainer.train()


def test_held_out_text_that_a_constraint_does_not_cover_certifies_nothing(tmp_path, student):
    trainer = make_trainer(tmp_path, student=student, arguments={"max_steps": 1})
    with pytest.raises(
        kd.InvalidInput, match="'news' covers no position of the held-out text; nothing can be certified"
    ):
        trainer.certify([row for row in make_rows(8, seed=50) if row["context"] == "code"])


@pytest.mark.parametrize("name", ["fsdp", "deepspeed", "torch_compile", "fp16_full_eval"])
def test_arguments_under_which_no_step_is_right_are_refused_by_their_name(name, tmp_path, student):
    arguments = make_arguments(tmp_path)
    setattr(arguments, name, True)  # as a launcher's configuration does
    with pytest.raises(kd.InvalidInput, match=f"`{name}` of the arguments is True: "):
        SafeKDTrainer(student, arguments, teachers=make_teachers(), train_dataset=make_rows())


def test_several_gpus_of_one_process_are_refused_with_what_to_start(tmp_path, student, monkeypatch):
    arguments = make_arguments(tmp_path)
    monkeypatch.setattr(type(arguments), "n_gpu", 2)
    with pytest.raises(kd.InvalidInput, match=r"One process sees 2 GPUs.* torchrun --nproc-per-node=2 script.py"):
        SafeKDTrainer(student, arguments, teachers=make_teachers(), train_dataset=make_rows())
