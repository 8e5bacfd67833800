"""Tiny students with random weights, and prompts for them."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY, END = 40, 2


def make_student(seed: int = 0, vocabulary: int = VOCABULARY, hidden: int = 16, dtype=torch.float32):
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
        attention_dropout=0.3,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(dtype)


PROMPTS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14], [15, 16]]
