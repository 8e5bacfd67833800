"""A loop around Hugging Face models that you have already, with two teachers and a constraint on critical tokens.

    pip install 'safekd[lm]'
    python examples/existing_hugging_face_loop.py

Models are tiny and made on the spot, so nothing is downloaded.  ``LanguageStep`` gives the loss of each microbatch and
moves the multipliers; all else is an ordinary loop.  Who uses ``transformers.Trainer`` takes
``kd.language.SafeKDTrainer``.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import safekd as kd
from safekd.data import Batch
from safekd.language import Head, Hidden, LanguageStep, shift_labels

VOCABULARY, CRITICAL = 64, list(range(3, 12))


def make_model(width: int, seed: int) -> LlamaForCausalLM:
    """Return a tiny model with weights drawn at random.

    Args:
        width: Of its hidden states.
        seed: Of the draw.
    """
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=VOCABULARY, initializer_range=0.2))


def main(steps: int = 60) -> list[object]:
    """Train.

    Args:
        steps: Optimizer steps.

    Returns:
        The record of each step: loss, safety, multipliers.
    """
    student, teachers = make_model(32, seed=0), [make_model(48, seed=1), make_model(64, seed=2)]
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, VOCABULARY, (64, 12), generator=draw)

    polytope = kd.WeightPolytope(n_teachers=2, lower=0.2)
    careful = kd.SafetyConstraint("critical tokens", kd.safety.LogTruthProbability(CRITICAL, at=0.05), at_least=0.05)
    step = LanguageStep(
        2,
        weights=kd.weights.Conforming(kd.weights.EntropyDecay(), polytope),
        constraints=[careful],
        dual=kd.PIGain(ema=0.9),
        budget="8MiB",
        horizon=steps,
    )
    records = []
    for number in range(steps):
        index = torch.randperm(len(rows), generator=draw)[:16]
        ids = rows[index]
        labels = shift_labels(ids)  # the label of a position is the token that follows it
        zero = torch.zeros(len(ids), dtype=torch.long)
        batch = Batch(ids, labels.clamp_min(0), zero, zero, index, mask=labels != -100)
        microbatches = batch.cut(8)
        step.begin(microbatches)
        optimizer.zero_grad()
        for part in microbatches:
            with torch.no_grad():
                said = [Hidden(teacher.model(part.inputs)[0], Head.of(teacher)) for teacher in teachers]
            states = student.model(part.inputs)[0]  # logits are never held whole
            step.loss(states, Head.of(student), said, part).backward()
        optimizer.step()
        records.append(step.finish())
        if number % 20 == 0:
            print(f"step {number}: loss {float(records[-1].loss):.3f}, safety {records[-1].safety}")
    return records


if __name__ == "__main__":
    print(main()[-1])
