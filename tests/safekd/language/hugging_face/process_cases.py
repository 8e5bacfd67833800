"""What each of two processes does in ``test_two_processes``; each function is called in both."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from .tiny_run import flatten, make_constraints, make_model, make_rows, make_teachers, make_trainer

FOLDER = "SAFEKD_TEST_FOLDER"


def train(folder, processes, *, dtype=torch.float64, stop=None, resume=None, **arguments):
    """Eight rows a step whatever the number of processes: two microbatches of each."""
    arguments = {
        "per_device_train_batch_size": 4 // processes,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        **({"ddp_backend": "gloo"} if processes > 1 else {}),
        **arguments,
    }
    trainer = make_trainer(
        folder,
        student=make_model(dtype=dtype),
        teachers=make_teachers(dtype),
        rows=make_rows(32),
        constraints=make_constraints(0.5),
        eval_dataset=make_rows(11, seed=7),
        arguments=arguments,
        trace_steps=2,
        trace_sequences=32,
    )
    if stop is not None:
        trainer.add_callback(stop)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def report(trainer):
    certificates = trainer.certify(make_rows(9, seed=40))
    return {
        "weights": flatten(trainer.model),
        "multipliers": torch.tensor(list(trainer.multipliers.values()), dtype=torch.float64),
        "evaluation": {k: v for k, v in trainer.evaluate().items() if "safety" in k or "loss" in k},
        "residuals": trainer.trace[["kkt_stationarity", "safety_all", "distillation_loss"]].to_dict("records"),
        "certificates": [(c.estimate, c.lower_bound, c.count) for c in certificates],
    }


def train_on_both(ranks):
    return report(train(Path(os.environ[FOLDER]) / "whole", 2))


def train_on_both_in_float32(ranks):
    return report(train(Path(os.environ[FOLDER]) / "single", 2, dtype=torch.float32, save_strategy="no"))


def stop_and_go_on(ranks):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    folder = Path(os.environ[FOLDER]) / "stopped"
    with suppress(KeyboardInterrupt):
        train(folder, 2, stop=Stop())
    return report(train(folder, 2, resume=True))


def write_and_go_on(ranks):
    """Each process trains on texts of its own; whole, and stopped and gone on."""
    from .test_on_policy_training import make_rollouts, make_student, start

    def run(name, resume=None, steps=4):
        student = make_student(0)
        rollouts = make_rollouts(student, ranks=ranks, accumulation=1, batch_size=2)
        arguments = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 4}
        arguments |= {"save_strategy": "steps", "save_steps": 2, "ddp_backend": "gloo"}
        folder = Path(os.environ[FOLDER]) / name
        trainer = start(folder, student=student, rollouts=rollouts, arguments=arguments, trace_steps=2)
        trainer.train(resume_from_checkpoint=resume)
        safety = trainer.trace[["safety_quiet", "safety_spread", "distillation_loss"]].to_dict("records")
        return flatten(trainer.model), list(trainer.multipliers.values()), safety, rollouts.state_dict()["waiting.ids"]

    whole = run("written")
    return whole, run("again", resume=str(Path(os.environ[FOLDER]) / "written" / "checkpoint-2"))


def train_alone(dtype=torch.float64):
    with tempfile.TemporaryDirectory() as folder:
        return report(train(Path(folder), 1, dtype=dtype))
