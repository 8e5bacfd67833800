"""Recursive meta-distillation: each generation's student teaches the next one, anchored to the base teachers.

    run = recursive_distill(make_student, teachers, train, anchor=0.3, generations=10)
    run.table; run.contraction.factor_band; run.ending; run.plot("generations.svg")

``recurse_distributions`` follows the distributions alone, where closed forms are known.  For students,
``_generation_targets`` mixes what a generation learns, ``_recursive_distill`` trains it, ``_generation_trace`` says
what came of it, and ``_recursion_folder`` keeps it.
"""

from ._distribution_recursion import DistributionRecursion, Form, divergence_from, recurse_distributions
from ._generation_trace import Generation, RecursiveDistillation
from ._recursion_plot import draw_generations
from ._recursive_distill import recursive_distill

__all__ = [
    "DistributionRecursion",
    "Form",
    "Generation",
    "RecursiveDistillation",
    "divergence_from",
    "draw_generations",
    "recurse_distributions",
    "recursive_distill",
]
