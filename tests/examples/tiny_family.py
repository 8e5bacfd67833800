"""The language model example in small: a tiny base with random weights, a tokenizer of words, short texts."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from dataclasses import replace

import torch

from tests.support import ROOT

EXAMPLE = ROOT / "examples" / "language_model"
SENTENCES = """
the a of you may it is software license value object name class shall be used copied user copyright
not no never without unless cannot must only if then returns raises an error type
"""
WORDS = SENTENCES.split()
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@contextmanager
def example_modules():
    """Make the example's files importable, as running a script in their folder does."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield
    finally:
        sys.path.remove(str(EXAMPLE))


def make_tokenizer():
    import tokenizers
    import transformers

    words = {word: n for n, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *WORDS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_base(tokenizer):
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config)


def make_texts():
    chance = random.Random(0)
    return [
        [" ".join(chance.choice(WORDS[shift : shift + 24]) for _ in range(12)) for _ in range(160)] for shift in (0, 8)
    ]


def shrink(settings, **more):
    small = {"length": 8, "train": 12, "validation": 6, "held_out": 16, "adapter_steps": 2, "width": 16, "layers": 1}
    return replace(settings, **{**small, "steps": 8, "batch": 4, "keep_every": 3, **more})


def prepare(folder, **more):
    """Return first student, tokenizer, splits, live teachers and settings of the example in small."""
    from real_texts import make_splits
    from smollm_family import make_student, make_teachers, train_adapters
    from student_runs import RunSettings

    settings, tokenizer = shrink(RunSettings(), **more), make_tokenizer()
    base = make_base(tokenizer)
    sizes = {name: getattr(settings, name) for name in ("length", "train", "validation", "held_out")}
    import real_texts

    kept, real_texts.CRITICAL_WORDS = real_texts.CRITICAL_WORDS, ("not", "no", "never", "without", "unless", "cannot")
    try:
        splits = make_splits(make_texts(), tokenizer, **sizes)
    finally:
        real_texts.CRITICAL_WORDS = kept
    student = make_student(base, width=settings.width, layers=settings.layers)
    model = train_adapters(base, splits.adapter, folder / "adapters", settings.adapter_steps, lambda text: None)
    return student, tokenizer, splits, make_teachers(model, tokenizer), settings
