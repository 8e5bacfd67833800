"""Small teachers of token sequences, and sequences of unequal lengths, for tests of caches."""

from __future__ import annotations

import torch

import safekd as kd
from safekd.language import Head, Hidden, Logits, shift_labels

V, H, T = 97, 16, 9


class RecurrentTeacher:
    """A causal teacher: hidden states add up what came before.  It counts what it is asked."""

    def __init__(self, name="t", *, vocabulary=V, dtype=torch.bfloat16, gives="hidden", seed=0, **facts):
        generator = torch.Generator().manual_seed(seed)
        self.name, self.vocabulary, self.gives = name, vocabulary, gives
        self.embedding_VH = torch.randn(vocabulary, H, generator=generator)
        bias_V = torch.randn(vocabulary, generator=generator)
        self.head = Head(torch.randn(vocabulary, H, generator=generator).to(dtype), bias_V, scale=0.5, softcap=20.0)
        self.facts = {"kind": "causal", "revision": "abc", "tokenizer": "f00d", "dtype": "bfloat16"} | facts
        self.asked = []  # numbers of the examples, a list a batch

    def manifest(self):
        return self.facts

    def __call__(self, batch):
        self.asked.append(batch.index.tolist())
        ids = batch.inputs["input_ids"] if isinstance(batch.inputs, dict) else batch.inputs
        kept = torch.ones_like(ids)
        if isinstance(batch.inputs, dict) and "attention_mask" in batch.inputs:
            kept = batch.inputs["attention_mask"]
        hidden_BTH = (self.embedding_VH[ids] * kept[..., None]).cumsum(1).tanh()
        if self.gives == "hidden":
            return Hidden(hidden_BTH, self.head)
        return Logits(self.logits(hidden_BTH))

    def logits(self, hidden):
        head = self.head
        raw = 0.5 * torch.nn.functional.linear(hidden.double(), head.weight.double(), head.bias.double())
        return 20 * torch.tanh(raw / 20)


def make_tokens(examples=23, seed=0, length=T, vocabulary=V):
    """Token numbers, attention mask and labels of sequences of unequal lengths."""
    generator = torch.Generator().manual_seed(seed)
    ids_NT = torch.randint(1, vocabulary, (examples, length), generator=generator)
    length_N = torch.randint(2, length + 1, (examples,), generator=generator)
    attention_NT = (torch.arange(length) < length_N[:, None]).long()
    ids_NT = ids_NT * attention_NT
    return ids_NT, attention_NT, shift_labels(torch.where(attention_NT == 1, ids_NT, -100))


def make_split(examples=23, seed=0, **options):
    ids_NT, attention_NT, labels_NT = make_tokens(examples, seed, **options)
    return kd.Split("train", {"input_ids": ids_NT, "attention_mask": attention_NT}, labels_NT)
