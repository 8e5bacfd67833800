"""The third open question: conforming weights together with schemes that modify gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor
from torchjd.aggregation import (
    AlignedMTLWeighting,
    MGDAWeighting,
    PCDWeighting,
    PCGradWeighting,
    UPGradWeighting,
)

import safekd as kd
from safekd.theory import compare_gradient_schemes, find_conforming_descent, make_dual_cone_projector
from safekd.weights import Conforming, GradientAlignment

from ._claim import Claim, judge
from ._teachers import BOX, K, make_signals

SCHEMES: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "mean": lambda: lambda gram: torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype),
    "PCGrad": PCGradWeighting,
    "MGDA": lambda: MGDAWeighting(epsilon=1e-6, max_iters=2000),
    "UPGrad": lambda: UPGradWeighting(projector=make_dual_cone_projector()),
    "AlignedMTL": AlignedMTLWeighting,
    "PCD": PCDWeighting,
}
_TOLERANCE = 1e-3  # relative to |d|: MGDA is a Frank-Wolfe method and ends that near


def weights_and_gradients(problems: int = 200, seed: int = 0) -> Claim:
    """Which promises of a scheme and of conforming weights survive together?"""
    generator = torch.Generator().manual_seed(seed)
    least, moved, inequality = defaultdict(list), defaultdict(list), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # PCGrad draws an order
        for _ in range(problems):
            j_Kn = _draw_gradients(generator)
            table = compare_gradient_schemes(j_Kn, {name: make() for name, make in SCHEMES.items()}, BOX)
            for row in table.itertuples():
                least[row.scheme, row.conforming].append(row.least)
                moved[row.scheme].append(row.moved)
            w_K = find_conforming_descent(j_Kn, BOX)
            d_n = j_Kn.T @ w_K
            other_BK = kd.project(torch.randn(50, K, generator=generator, dtype=torch.float64), BOX)
            inequality.append(float((other_BK @ j_Kn @ d_n).min() - d_n @ d_n))
    rises = {key: sum(value < -_TOLERANCE for value in values) / problems for key, values in least.items()}
    promised = ("MGDA", "UPGrad")
    as_they_are = max(rises[name, False] for name in promised)
    conforming = max(rises[name, True] for name in promised)
    within = min(inequality) >= -1e-6
    signals = make_signals(8, seed)
    rule = Conforming(kd.theory.GradientScheme(SCHEMES["UPGrad"]()), BOX)
    w = rule(signals)
    conforms = bool(((w >= BOX.lower[0] - 1e-9) & (w <= BOX.upper[0] + 1e-9)).all())
    apart = float((w - Conforming(GradientAlignment(), BOX)(signals)).abs().max())
    return Claim(
        number="IX.C, gradient modification",
        statement="Open question: do adaptive weighting and gradient modification go together?",
        reading="Stated as the claim that a scheme's promise, a direction that raises no loss, survives when its "
        "weights are made conforming. Schemes are those of torchjd that weigh gradients by their Gramian.",
        ran=f"{problems} sets of {K} gradients of 10 parameters, half of them in conflict; weights of each scheme as "
        "they are, and projected into [0.1, 0.6].",
        found="Share of the problems in which some loss rises, as they are and conforming: "
        + ", ".join(f"{name} {rises[name, False]:.0%} and {rises[name, True]:.0%}" for name in SCHEMES)
        + f"; the shortest conforming direction {rises['shortest conforming direction', True]:.0%}.",
        verdict=judge(as_they_are == 0 and conforming == 0 and within, as_they_are == 0 and within and conforms),
        condition="The promise is asked of conforming weightings in place of single teachers: the shortest direction "
        "within the polytope raises the loss of no conforming weighting (`kd.theory.find_conforming_descent`).",
        counterexample=f"made conforming, MGDA raises a loss in {rises['MGDA', True]:.0%} and UPGrad in "
        f"{rises['UPGrad', True]:.0%} of the problems, where alone they raise none",
        tightness="With w_min = 0 and w_max = 1 nothing is lost: the polytope is the simplex.",
        numbers={
            "as_they_are": as_they_are,
            "conforming": conforming,
            "mean": rises["mean", False],
            "inequality": min(inequality),
            "mgda_moved": sum(moved["MGDA"]) / len(moved["MGDA"]),
            "apart": apart,
        },
    )


def _draw_gradients(generator: torch.Generator) -> Tensor:
    """Return gradients of different length, (K, 10), in conflict in half of the draws."""
    j_Kn = torch.randn(K, 10, generator=generator, dtype=torch.float64)
    if bool(torch.rand(1, generator=generator) < 0.5):
        j_Kn[2] = -0.7 * (j_Kn[0] + j_Kn[1]) + 0.5 * j_Kn[2]
    return j_Kn * torch.exp(torch.randn(K, 1, generator=generator, dtype=torch.float64))
