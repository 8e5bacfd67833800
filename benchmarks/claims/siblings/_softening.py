"""Temperature (arXiv 2601.03195): ranks, entropy, limits, and what a truncated table of the top tokens keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._claim import Claim, Line, Picture, judge


def _draw(rows: int, classes: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(rows, classes, generator=g, dtype=torch.float64), -1)


def _power(p: Tensor, temperature: float) -> Tensor:
    return torch.softmax(p.log() / temperature, -1)


def _mix(p: Tensor, temperature: float) -> Tensor:
    return p / temperature + (1 - 1 / temperature) / p.shape[-1]


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1)


def softening(rows: int = 1000, classes: int = 20, seed: int = 0) -> Claim:
    """Both operators keep ranks, are the identity at T = 1, gain entropy with T, and tend to uniform."""
    p = _draw(rows, classes, seed)
    temperatures = [1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0, 1e4]
    numbers, lines = {}, []
    for name, soften in (("power", _power), ("mixture", _mix)):
        path = torch.stack([soften(p, t) for t in temperatures])
        order = p.argsort(-1)
        along = path.gather(-1, order.expand_as(path))
        numbers |= {
            f"{name}_ranks": float((along[..., 1:] - along[..., :-1]).min()),
            f"{name}_identity": float((path[0] - p).abs().max()),
            f"{name}_entropy": float((_entropy(path[1:]) - _entropy(path[:-1])).min()),
            f"{name}_uniform": float((path[-1] - 1 / classes).abs().max()),
        }
        lines.append(Line(name, temperatures, _entropy(path).mean(-1).tolist(), "o-"))
    lines.append(Line("log V", temperatures, [math.log(classes)] * len(temperatures), "k--"))
    fine = all(
        numbers[f"{n}_ranks"] >= -1e-12
        and numbers[f"{n}_identity"] < 1e-12
        and numbers[f"{n}_entropy"] >= 0
        and numbers[f"{n}_uniform"] < 1e-3
        for n in ("power", "mixture")
    )
    return Claim(
        number="2601.03195, softening",
        statement="Softening keeps ranks, is continuous, the identity at T = 1, gains entropy with T and tends to "
        "uniform.",
        reading="Operators on probabilities alone: p^(1/T) normalized, and a mixture with uniform whose share is 1 - "
        "1/T.",
        ran=f"{rows:,} random distributions over {classes} classes, T from 1 to 10,000.",
        found="Least entropy gain from one T to the next: "
        + ", ".join(f"{n} {numbers[f'{n}_entropy']:.1e}" for n in ("power", "mixture"))
        + f"; farthest from uniform at the last T: {max(numbers['power_uniform'], numbers['mixture_uniform']):.1e}.",
        verdict=judge(fine),
        tightness="The two operators differ: the axioms do not determine softening either.",
        picture=Picture("softening", "temperature T", "entropy, nats", lines, x_log=True),
        numbers=numbers,
    )


def truncated(rows: int = 1000, classes: int = 200, kept: int = 10, temperature: float = 2.0, seed: int = 1) -> Claim:
    """Softening a table of the top k tokens with one bucket for the rest."""
    p = _draw(rows, classes, seed)
    top = p.topk(kept, dim=-1)
    tail = 1 - top.values.sum(-1, keepdim=True)
    whole = _power(p, temperature).gather(-1, top.indices)
    one_bucket = _power(torch.cat([top.values, tail], -1), temperature)[:, :kept]
    spread = tail / (classes - kept)  # the tail spread evenly over its tokens before softening
    even = top.values ** (1 / temperature)
    even = even / (even.sum(-1, keepdim=True) + (classes - kept) * spread ** (1 / temperature))
    error = {
        name: float((x.sum(-1) - whole.sum(-1)).abs().max())
        for name, x in (("one bucket", one_bucket), ("spread", even))
    }
    flat = torch.cat([top.values, spread.expand(-1, classes - kept)], -1)  # a tail whose tokens are equally likely
    exact = float((_power(flat, temperature)[:, :kept] - even).abs().max())
    identity = float((_power(torch.cat([top.values, tail], -1), 1.0)[:, :kept] - top.values).abs().max())
    above = float((one_bucket.sum(-1) - whole.sum(-1)).min())
    return Claim(
        number="2601.03195, truncated tables",
        statement="Softening works on truncated top-k tables with a tail bucket, as black-box teachers give them.",
        reading="Works: the softened mass of the top tokens is that of softening the whole distribution.",
        ran=f"{rows:,} distributions over {classes} classes, top {kept}, T = {temperature:g}; the tail as one bucket, "
        "and spread evenly over its tokens before softening.",
        found=f"At T = 1 exact ({identity:.0e}). At T = {temperature:g} the mass of the top tokens is off by up to "
        f"{error['one bucket']:.3f} with one bucket, always too large, and by up to {error['spread']:.3f} with an "
        "even tail.",
        verdict=judge(max(error.values()) < 1e-6, max(identity, exact) < 1e-12),
        condition="T = 1, or a tail whose tokens are equally likely: softening does not commute with adding tokens up.",
        counterexample=f"top {kept} of {classes}, T = {temperature:g}: {error['one bucket']:.3f} too much mass on the "
        "top tokens",
        numbers={**error, "identity": identity, "exact": exact, "above": above},
    )
