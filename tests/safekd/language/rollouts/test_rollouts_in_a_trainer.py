"""The trainer of Hugging Face trains on what its student writes."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

import safekd as kd
from safekd.language import CausalTeacher, Rollouts, SafeKDTrainer

from .small_student import PROMPTS, VOCABULARY, make_student


def test_a_trainer_of_hugging_face_trains_on_what_its_student_writes(tmp_path):
    student = make_student(0)
    teachers = [CausalTeacher(make_student(seed), name=f"teacher {seed}") for seed in (1, 2)]
    trainers = []
    rollouts = Rollouts(
        PROMPTS,
        student,
        length=6,
        batch_size=4,
        every=2,
        prefetch=1,  # Accelerate's loader asks for one batch ahead
        clock=lambda: trainers[0].state.global_step,
        context=[0, 1, 0, 1, 0],
        task=[1] * 5,
        end=[],
    )
    arguments = TrainingArguments(
        tmp_path,
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainers.append(
        SafeKDTrainer(
            student,
            arguments,
            teachers=teachers,
            weights=kd.weights.Routed([0, 1]),
            divergence=kd.language.ReverseKL(),
            constraints=[kd.SafetyConstraint("kept off", kd.safety.UnsafeMass([7]), at_least=0.999, tasks=[1])],
            train_dataset=rollouts.examples(),
        )
    )
    before = [p.detach().clone() for p in student.parameters()]
    trainers[0].train()
    assert any(not torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))
    assert rollouts.counts.oldest <= 2
    assert rollouts.counts.used >= 12 * 4
    assert student.config.vocab_size == VOCABULARY
    assert float(trainers[0].trace["lambda_kept off"].iloc[-1]) > 0
