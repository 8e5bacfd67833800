"""Theory that runs: what the papers say of weights, students and generations, measured on one's own.

    run = recursive_distill(make_student, teachers, train, anchor=0.3)    # generations of students: run.contraction
    stability(trainer, train, delta=0.05)                # how far student and loss move with the weights
    recurse_distributions(start, base, anchor=0.3)       # the same of distributions alone, where bounds are known
    measure_contraction(update, polytope)                # factor and fixed point of a map that updates weights
    compare_gradient_schemes(jacobian, schemes, polytope)    # PCGrad, MGDA, UPGrad with conforming weights
    fit_power(x, y), fit_factor(y)                       # a rate or a factor, with its confidence band
    ensembles.ensemble_report(teachers, split)           # what several teachers are worth together

Rooms above training look at it from outside: nothing of training knows of them.
"""

from . import ensembles
from ._rate_fits import RateFit, fit_factor, fit_power
from ._weight_contraction import Contraction, measure_contraction
from ._weight_stability import PerturbedRule, Stability, stability
from .gradient_schemes import (
    GradientScheme,
    compare_gradient_schemes,
    find_conforming_descent,
    make_dual_cone_projector,
)
from .recursion import (
    DistributionRecursion,
    Generation,
    RecursiveDistillation,
    divergence_from,
    draw_generations,
    recurse_distributions,
    recursive_distill,
)

__all__ = [
    "Contraction",
    "DistributionRecursion",
    "Generation",
    "GradientScheme",
    "PerturbedRule",
    "RateFit",
    "RecursiveDistillation",
    "Stability",
    "compare_gradient_schemes",
    "divergence_from",
    "draw_generations",
    "ensembles",
    "find_conforming_descent",
    "fit_factor",
    "fit_power",
    "make_dual_cone_projector",
    "measure_contraction",
    "recurse_distributions",
    "recursive_distill",
    "stability",
]
