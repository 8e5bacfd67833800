"""A run that stops and goes on gives the same bytes as one that does not; what is another run is refused by name."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch

import safekd as kd
from safekd.training.trace import MACHINE_COLUMNS

from ..tiny_models import tokenizer
from .tiny_run import Teacher, flatten, make_constraints, make_model, make_rows, make_teachers, make_trainer

torch.set_num_threads(1)
SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


def start(folder, **more):
    """A run with dropout, accumulation and a rule that learns nothing, saved every two steps."""
    more.setdefault("student", make_model(attention_dropout=0.1))
    arguments = {
        **SAVING,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        **more.pop("arguments", {}),
    }
    return make_trainer(folder, arguments=arguments, trace_steps=1, **more)


def assert_same_run(one, other):
    assert torch.equal(flatten(one.model), flatten(other.model))
    assert one.multipliers == other.multipliers
    traces = [trainer.trace.drop(columns=[*MACHINE_COLUMNS], errors="ignore") for trainer in (one, other)]
    pd.testing.assert_frame_equal(*traces, check_exact=True)
    logs = [[log for log in trainer.state.log_history if "train_loss" not in log] for trainer in (one, other)]
    assert json.dumps(logs[0], sort_keys=True) == json.dumps(logs[1], sort_keys=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = start(tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_that_goes_on_gives_the_same_bits(whole, tmp_path, step):
    """Weights, multipliers, engine, trace and logs, in an epoch and between two (eight rows, four a step)."""
    trainer = start(tmp_path)
    trainer.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{step}")
    assert_same_run(whole, trainer)


@pytest.mark.processes
def test_a_killed_run_goes_on_from_its_newest_checkpoint(whole, tmp_path):
    code = f"""
        import os, signal
        from transformers import TrainerCallback
        from tests.safekd.language.hugging_face.test_resuming import start
        class Kill(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
        start({str(tmp_path)!r}, callbacks=[Kill()]).train()
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    trainer = start(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert_same_run(whole, trainer)


def test_a_checkpoint_that_was_cut_off_is_passed_over(whole, tmp_path):
    shutil.copytree(whole.args.output_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    tensors = next((tmp_path / "checkpoint-4" / "safekd").rglob("*.safetensors"))
    held = bytearray(tensors.read_bytes())
    held[-1] ^= 1
    tensors.write_bytes(bytes(held))
    trainer = start(tmp_path)
    with pytest.warns(kd.SafekdWarning, match=r"checkpoint-6.*trainer_state|checkpoint-4.*not what was written"):
        trainer.train(resume_from_checkpoint=True)
    assert_same_run(whole, trainer)


class LearnedScores(torch.nn.Module):
    """Scores that learn from the distillation loss, wherever a teacher is."""

    def __init__(self):
        super().__init__()
        self.score_K = torch.nn.Parameter(torch.zeros(2))

    def forward(self, signals):
        return torch.softmax(self.score_K, -1).expand(signals.shape)


def test_a_rule_that_learns_goes_on_too(tmp_path):
    polytope = kd.WeightPolytope(n_teachers=2, lower=0.1)

    def learn(folder):
        return start(folder, weights=kd.weights.Conforming(LearnedScores(), polytope))

    whole = learn(tmp_path / "whole")
    whole.train()
    assert bool((whole.terms.weights.rule.score_K != 0).all())
    other = learn(tmp_path / "other")
    other.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same_run(whole, other)
    states = [kd.weights.rule_state(trainer.terms.weights) for trainer in (whole, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def change_teacher(seed=1, **changed):
    return [Teacher("teacher-1", make_model(seed, **changed.pop("config", {})), **changed), make_teachers()[1]]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"teachers": change_teacher(7)}, r"`teachers.teacher-1.weights` was"),
        ({"teachers": change_teacher(prompt="Be kind.")}, r'`teachers.teacher-1.prompt` was "" and is now "Be kind."'),
        (
            {"teachers": change_teacher(config={"dtype": torch.bfloat16})},
            r'`teachers.teacher-1.dtype` was "torch.float32" and is now "torch.bfloat16"',
        ),
        ({"teachers": make_teachers(seeds=(1, 3))}, r"`teachers.teacher-2"),
        ({"teachers": make_teachers()[::-1]}, "order_of_teachers"),
        ({"constraints": make_constraints(0.4)}, r"`constraints.news` was"),
        ({"weights": torch.tensor([0.2, 0.8])}, "`weights` was"),
        ({"divergence": kd.language.ReverseKL()}, "`divergence` was"),
        ({"cross_entropy": 0.5}, "`cross_entropy` was 0.0 and is now 0.5"),
        ({"dual": kd.PlainAscent(step=0.2)}, "`dual` was"),
        ({"rows": make_rows(24)}, r"`data.rows` was 16 and is now 24.*allow_change=\['data.rows', 'data.content'\]"),
        ({"rows": make_rows(seed=1)}, "`data.content` was"),
        ({"processing_class": tokenizer()}, "`tokenizer` was"),
        ({"arguments": {"gradient_accumulation_steps": 4}}, "`sequences_a_step` was 4 and is now 8"),
    ],
)
def test_another_run_is_refused_by_what_differs(whole, tmp_path, more, said):
    trainer = start(tmp_path, **more)
    before = flatten(trainer.model)
    with pytest.raises(kd.InvalidInput, match=said):
        trainer.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    assert torch.equal(before, flatten(trainer.model))


def test_other_rows_go_on_where_that_is_allowed(whole, tmp_path):
    trainer = start(tmp_path, rows=make_rows(seed=1))
    with pytest.warns(kd.SafekdWarning, match="goes on as another one: `data.content` was"):
        trainer.train(f"{whole.args.output_dir}/checkpoint-4", allow_change=["data"])
    assert trainer.state.global_step == 6
    with pytest.raises(kd.InvalidInput, match="`allow_change` is 'data'; wanted a list of keys"):
        start(tmp_path).train(f"{whole.args.output_dir}/checkpoint-4", allow_change="data")


def test_a_tokenizer_that_changed_is_refused(tmp_path):
    words = tokenizer()
    first = start(tmp_path / "first", processing_class=words, arguments={"max_steps": 2})
    first.train()
    checkpoint = tmp_path / "first" / "checkpoint-2"
    changed = tokenizer(words=("the", "cat", "bomb", "is", "a", "cow"))
    with pytest.raises(kd.InvalidInput, match=r"is of another run: `tokenizer` was .*allow_change=\['tokenizer'\]"):
        start(tmp_path / "other", processing_class=changed).train(str(checkpoint))
    other = start(tmp_path / "other", processing_class=tokenizer())
    other.train(str(checkpoint))
    assert other.state.global_step == 6


def test_a_checkpoint_without_multipliers_is_refused(whole, tmp_path):
    shutil.copytree(f"{whole.args.output_dir}/checkpoint-4", tmp_path / "checkpoint-4")
    shutil.rmtree(tmp_path / "checkpoint-4" / "safekd")
    trainer = start(tmp_path)
    with pytest.raises(kd.InvalidInput, match="holds no multipliers to go on with: it has no folder safekd"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    with pytest.raises(kd.InvalidInput, match=r"no whole checkpoint.*checkpoint-4: the folder safekd is missing"):
        trainer.train(resume_from_checkpoint=True)


def test_a_flipped_byte_is_seen(whole, tmp_path):
    shutil.copytree(f"{whole.args.output_dir}/checkpoint-4", tmp_path / "checkpoint-4")
    for file in sorted((tmp_path / "checkpoint-4" / "safekd").rglob("*.*")):
        held = file.read_bytes()
        file.write_bytes(held[:-2] + bytes([held[-2] ^ 1]) + held[-1:])
        with pytest.raises(kd.InvalidInput, match=r"not what was written|no readable JSON"):
            start(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        file.write_bytes(held)


def test_nothing_in_a_checkpoints_own_folder_is_pickled(whole):
    files = [path for path in Path(whole.args.output_dir, "checkpoint-4", "safekd").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_training_again_goes_on_with_the_multipliers(tmp_path):
    trainer = make_trainer(tmp_path, arguments={"max_steps": 3})
    trainer.train()
    before = trainer.multipliers
    trainer.train()
    assert trainer.trace["lambda_all"].iloc[0] == before["all"] > 0
    assert trainer.trace["step"].tolist()[0] == 0
