"""What a configuration can name, by its name in snake case: safety measures, and weighting rules by scale."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from .. import safety, weights


def _by_name(classes: Iterable[type[Any]]) -> dict[str, Any]:
    return {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", one.__name__).lower(): one for one in classes}


MEASURES: dict[str, type[safety.SafetyMeasure]] = getattr(safety, "MEASURES", None) or _by_name(
    [
        safety.TruthProbability,
        safety.Margin,
        safety.OneMinusBrier,
        safety.UnsafeMass,
        safety.Calibration,
        safety.Recall,
        safety.TopK,
        safety.Avoids,
    ]
)
RULES: dict[str, dict[str, Callable[..., weights.Rule]]] = getattr(weights, "RULES", None) or {
    "token": _by_name(
        [
            weights.Uniform,
            weights.EntropyDecay,
            weights.EntropyInverse,
            weights.EntropyComplement,
            weights.Confidence,
            weights.SafetyBlend,
        ]
    ),
    "task": _by_name([weights.Uniform, weights.InverseLoss, weights.PerformanceSoftmax]),
    "context": _by_name([weights.Uniform, weights.OrdinalSafety]),
}
