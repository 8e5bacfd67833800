"""Tiny students, teachers and data of this room's tests: random Llamas of 32 numbers a token, 64 tokens."""

from __future__ import annotations

import hashlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

import safekd as kd
from safekd.language.hugging_face import SafeKDTrainer

VOCABULARY = 64
CRITICAL = [3, 4, 5, 6, 7, 8]


def make_model(seed=0, *, tied=True, vocabulary=VOCABULARY, dtype=torch.float32, **config):
    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "initializer_range": 0.3,
        **config,
    }
    return LlamaForCausalLM(LlamaConfig(**settings)).to(dtype)


class Teacher:
    """A model as a teacher: the little that a trainer asks of one."""

    def __init__(self, name, model, prompt=""):
        self.name, self.model, self.prompt = name, model.eval(), prompt
        self.vocabulary = model.config.vocab_size
        self.asked = 0

    @torch.no_grad()
    def __call__(self, batch):
        self.asked += 1
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        out = self.model.model(input_ids=ids, attention_mask=mask)
        return kd.language.Hidden(out.last_hidden_state, kd.language.Head.of(self.model))

    def manifest(self):
        weights = hashlib.sha256()
        for value in self.model.state_dict().values():
            weights.update(value.double().numpy().tobytes())
        return {
            "kind": "causal",
            "weights": weights.hexdigest(),
            "dtype": str(self.model.dtype),
            "prompt": self.prompt,
        }


def make_teachers(dtype=torch.float32, seeds=(1, 2)):
    return [Teacher(f"teacher-{seed}", make_model(seed, dtype=dtype)) for seed in seeds]


def make_rows(count=16, seed=0, *, shortest=4, longest=10, contexts=("news", "code")):
    """Rows of unequal lengths; contexts take turns."""
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        length = int(torch.randint(shortest, longest + 1, (), generator=draw))
        ids = torch.randint(0, VOCABULARY, (length,), generator=draw)
        ids[1] = CRITICAL[number % len(CRITICAL)]  # each row has a critical label
        row = {"input_ids": ids.tolist()}
        if contexts:
            row["context"] = contexts[number % len(contexts)]
        rows.append(row)
    return rows


def make_constraints(at_least=0.3):
    measure = kd.safety.TruthProbability(critical=CRITICAL)
    return [
        kd.SafetyConstraint("news", measure, at_least, contexts=["news"]),
        kd.SafetyConstraint("all", measure, at_least),
    ]


def make_arguments(folder, **changed):
    settings = {
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "max_steps": 6,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 2,
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return TrainingArguments(str(folder), **{**settings, **changed})


def make_trainer(folder, *, student=None, teachers=None, rows=None, constraints=None, arguments=None, **more):
    return SafeKDTrainer(
        make_model() if student is None else student,
        make_arguments(folder, **(arguments or {})),
        teachers=make_teachers() if teachers is None else teachers,
        constraints=make_constraints() if constraints is None else constraints,
        train_dataset=make_rows() if rows is None else rows,
        **more,
    )


def flatten(model):
    return torch.cat([p.detach().reshape(-1).double() for p in model.parameters()])
