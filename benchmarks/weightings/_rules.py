"""The rules that are compared, each made for a task and a polytope."""

from __future__ import annotations

from collections.abc import Callable

from safekd.weights import (
    Confidence,
    DomainDistance,
    EntropyComplement,
    EntropyDecay,
    EntropyInverse,
    GradientAlignment,
    GradientMinNorm,
    InverseLoss,
    InverseVariance,
    MetaTeacher,
    MinDivergence,
    MultiLevel,
    OrdinalSafety,
    PerformanceSoftmax,
    PolicyGradient,
    Rule,
    SafetyBlend,
    UncertaintyWeighting,
    Uniform,
    family_a,
    family_b,
    family_c,
)
from solvers import WeightPolytope

from ._tasks import Task

RULES: dict[str, Callable[[Task, WeightPolytope], Rule]] = {
    "Uniform": lambda task, polytope: Uniform(),
    "EntropyDecay": lambda task, polytope: EntropyDecay(),
    "EntropyInverse": lambda task, polytope: EntropyInverse(),
    "EntropyComplement": lambda task, polytope: EntropyComplement(),
    "InverseVariance": lambda task, polytope: InverseVariance(),
    "Confidence": lambda task, polytope: Confidence(),
    "SafetyBlend": lambda task, polytope: SafetyBlend(),
    "InverseLoss": lambda task, polytope: InverseLoss(),
    "PerformanceSoftmax": lambda task, polytope: PerformanceSoftmax(),
    "GradientAlignment": lambda task, polytope: GradientAlignment(),
    "GradientMinNorm": lambda task, polytope: GradientMinNorm(),
    "OrdinalSafety": lambda task, polytope: OrdinalSafety(),
    "DomainDistance": lambda task, polytope: DomainDistance(),
    "MinDivergence": lambda task, polytope: MinDivergence(),
    "UncertaintyWeighting": lambda task, polytope: UncertaintyWeighting(len(task.ensemble)),
    "MultiLevel": lambda task, polytope: MultiLevel(len(task.ensemble), task.train.inputs[0].numel()),
    "MetaTeacher": lambda task, polytope: MetaTeacher(),
    "PolicyGradient": lambda task, polytope: PolicyGradient(),
    "family A": lambda task, polytope: family_a(polytope),
    "family B": lambda task, polytope: family_b(polytope),
    "family C": lambda task, polytope: family_c(polytope),
}
