"""Appendix A: two teachers, three tokens, and entropies that are neither nats nor bits."""

from __future__ import annotations

import numpy as np
import torch

from safekd.weights import EntropyInverse, Signals

from ._claim import Claim, judge

CONFIDENT, UNCERTAIN = (0.8, 0.15, 0.05), (0.4, 0.35, 0.25)
PRINTED = (0.68, 1.52)


def toy_illustration() -> Claim:
    """Both readings of the entropies: the printed numbers, and those of the printed distributions."""
    p = np.array([CONFIDENT, UNCERTAIN])
    nats = -(p * np.log(p)).sum(-1)
    bits = nats / np.log(2)
    log_p = torch.tensor(p).log()[None]
    readings = {"printed": np.array(PRINTED), "nats": nats, "bits": bits}
    weights = {}
    for name, entropy in readings.items():
        score = EntropyInverse(eps=1e-12)(Signals(log_p=log_p, entropy=torch.tensor(entropy)[None]))[0].numpy()
        weights[name] = score / score.sum()
    mass = {name: float(w @ p[:, 0]) for name, w in weights.items()}
    uniform = float(p[:, 0].mean())
    found = {
        name: abs(float(entropy[0]) - PRINTED[0]) < 0.005 and abs(float(entropy[1]) - PRINTED[1]) < 0.005
        for name, entropy in readings.items()
        if name != "printed"
    }
    better = min(mass.values()) > uniform
    reproduced = abs(mass["printed"] - 0.68) < 0.005 and abs(uniform - 0.6) < 1e-12
    return Claim(
        number="Appendix A",
        statement="Entropies 0.68 and 1.52 give weights (0.69, 0.31), q(a) = 0.68, and 13 % more than uniform weights.",
        reading="The entropies were read as printed, and worked out from the distributions printed beside them, in "
        "nats and in bits. The unit does not matter: weights proportional to 1/H do not change with it.",
        ran="Weights by `EntropyInverse`, the pool's mass on the right token, for each reading.",
        found=f"The distributions' entropies are {nats[0]:.4f} and {nats[1]:.4f} nats, {bits[0]:.4f} and {bits[1]:.4f} "
        f"bits. As printed: w = ({weights['printed'][0]:.3f}, {weights['printed'][1]:.3f}), q(a) = "
        f"{mass['printed']:.3f}, {mass['printed'] / uniform - 1:+.1%}. From the distributions: w = "
        f"({weights['nats'][0]:.3f}, {weights['nats'][1]:.3f}), q(a) = {mass['nats']:.3f}, "
        f"{mass['nats'] / uniform - 1:+.1%}.",
        verdict=judge(reproduced and better and any(found.values()), reproduced and better),
        condition="The entropies are taken as printed. From the distributions the improvement is smaller, and still "
        "there.",
        counterexample="0.68 and 1.52 are the entropies of the printed distributions in no unit: their ratio is "
        f"{PRINTED[1] / PRINTED[0]:.2f}, that of the distributions' {nats[1] / nats[0]:.2f}",
        numbers={
            "printed": mass["printed"],
            "nats": mass["nats"],
            "bits": mass["bits"],
            "weight": float(weights["nats"][0]),
            "uniform": uniform,
        },
    )
