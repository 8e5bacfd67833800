"""Language models of a few thousand parameters and tokenizers of a few dozen tokens, made on the spot."""

from __future__ import annotations

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

V = 64
_SIZES = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_LLAMA = {**_SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2}
_GPT2 = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **_SPECIAL}


def configs():
    """One configuration of each kind of head: tied or not, with bias, scale, soft cap, learned places or none."""
    t = transformers
    return {
        "llama": t.LlamaConfig(**_LLAMA, **_SPECIAL),
        "llama tied": t.LlamaConfig(**_LLAMA, **_SPECIAL, tie_word_embeddings=True),
        "gpt2": t.GPT2Config(**_GPT2),
        "gptj with bias": t.GPTJConfig(**_GPT2, rotary_dim=8),
        "gemma2 with soft cap": t.Gemma2Config(
            **_LLAMA, **_SPECIAL, head_dim=8, final_logit_softcapping=0.5, sliding_window=8
        ),
        "cohere with scale": t.CohereConfig(**_LLAMA, **_SPECIAL, logit_scale=0.25),
        "granite with divisor": t.GraniteConfig(**_LLAMA, **_SPECIAL, logits_scaling=8.0),
        "qwen2": t.Qwen2Config(**_LLAMA),
        "qwen3": t.Qwen3Config(**_LLAMA, head_dim=8),
        "gpt-neox": t.GPTNeoXConfig(**_SIZES, intermediate_size=48, max_position_embeddings=64),
        "opt with projection": t.OPTConfig(
            **_SIZES, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=16, pad_token_id=0
        ),
        "bloom": t.BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=4, **_SPECIAL),
    }


def causal_model(kind="llama", seed=0, **changes):
    """Return a random causal model; biases and embeddings are not zero, so that nothing is right by chance."""
    config = configs()[kind]
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return model.eval()


def tokenizer(words=("the", "cat", "bomb", "is", "a", "dog"), *, extra=(), template=None):
    """Return a byte pair tokenizer that writes each word, after a space too, as one token; other text by characters."""
    letters = sorted({c for word in words for c in word} | set("abcdefghijklmnopqrstuvwxyz.Ġ"))
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    merges = []
    for word in words:
        for start in ("Ġ", ""):
            left = start or word[0]
            for right in word if start else word[1:]:
                if left + right not in vocabulary:
                    vocabulary[left + right] = len(vocabulary)
                if (left, right) not in merges:
                    merges.append((left, right))
                left += right
    for token in extra:
        vocabulary[token] = len(vocabulary)
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=template
    )
