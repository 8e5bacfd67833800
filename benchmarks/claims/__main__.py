"""Which claims of the papers hold, when, and how tightly?

    python -m benchmarks.claims [--out PATH] [--images FOLDER] [--only NAME ...] [--seed 0]

Prints a row a claim; with ``--out`` writes the page, with ``--images`` its pictures. The same seeds give the same
page.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .._timing import report_path
from . import (
    _appendix,
    _composition,
    _convergence,
    _gradient_schemes,
    _moving_targets,
    _perturbation,
    _safety_claims,
    siblings,
)
from ._claim import Claim
from ._claims_page import format_page, format_table
from ._drawings import draw_pictures

EXPERIMENTS: Mapping[str, Sequence[Callable[..., Claim]]] = {
    "Adaptive weighting (arXiv 2601.17910)": (
        _composition.bounded_weights,
        _composition.orderings,
        _composition.pareto_compatibility,
        _composition.product_composition,
        _composition.families,
        _convergence.almost_sure,
        _convergence.accumulation,
        _convergence.rate,
        _perturbation.estimated_weights,
        _convergence.special_case,
        _convergence.no_degradation,
        _perturbation.fixed_point,
        _perturbation.moved_student,
        _perturbation.trained_students,
        _perturbation.gradient_variance,
        _safety_claims.pareto,
        _safety_claims.multiplier,
        _safety_claims.inherited_safety,
        _safety_claims.not_concave,
        _appendix.toy_illustration,
    ),
    "Its open questions": (
        _composition.minimality,
        _gradient_schemes.weights_and_gradients,
        _moving_targets.tracking,
    ),
    "Ensembles of teachers (arXiv 2601.09165)": (
        siblings.pools.convexity_and_temperature,
        siblings.pools.variance_reduction,
        siblings.pools.jensen_gap,
        siblings.pools.unsafe_mass,
    ),
    "Recursive meta-distillation (arXiv 2601.13100)": (
        siblings.recursion.contraction,
        siblings.recursion.geometric_form,
        siblings.recursion.drift,
        siblings.recursion.capacity_gap,
        siblings.recursion.students_on_digits,
    ),
    "Temperature (arXiv 2601.03195)": (siblings.softening.softening, siblings.softening.truncated),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; return the exit status."""
    options = _read(arguments)
    torch.set_num_threads(1)  # everything here is small: threads would wait for each other
    claims = _run(options.only, options.seed)
    print(format_table([claim for group in claims.values() for claim in group]))
    if options.images is not None:
        draw_pictures([claim for group in claims.values() for claim in group], options.images)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(format_page(claims), encoding="utf-8")
    return 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=report_path, help="write the page here: docs/claims.md")
    parser.add_argument("--images", type=Path, help="write the pictures into this folder: docs/images/claims")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of experiments, such as rate")
    parser.add_argument("--seed", type=int, default=0, help="added to the seed of every experiment that draws")
    return parser.parse_args(arguments)


def _run(only: Sequence[str] | None, seed: int) -> dict[str, list[Claim]]:
    chosen = {
        group: [one for one in experiments if only is None or one.__name__ in only]
        for group, experiments in EXPERIMENTS.items()
    }
    claims: dict[str, list[Claim]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("claims", total=sum(map(len, chosen.values())))
        for group, experiments in chosen.items():
            for experiment in experiments:
                progress.update(bar, description=experiment.__name__)
                own = inspect.signature(experiment).parameters.get("seed")
                given = {} if own is None else {"seed": own.default + seed}
                claims.setdefault(group, []).append(experiment(**given))
                progress.advance(bar)
    return claims


if __name__ == "__main__":
    raise SystemExit(main())
