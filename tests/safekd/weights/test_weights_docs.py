"""docs/weights.md says of each rule what the rule says of itself."""

from __future__ import annotations

import pytest
import torch

from safekd import weights
from safekd.weights import WeightRule
from tests.support import ROOT

DOCS = ROOT / "docs" / "weights.md"
TABLE = DOCS.read_text(encoding="utf-8").split("## Rules that learn")[0]
LINES = [line for line in TABLE.splitlines() if line.startswith("| ")][2:]
MADE_WITH = {
    "UncertaintyWeighting": {"n_teachers": 3, "n_tasks": 2},
    "MultiLevel": {"n_teachers": 3, "features": 4},
    "Routed": {"table": [0, 1, 1]},
    "Stored": {"source": torch.full((1, 3), 1 / 3)},
}
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_line_is_what_the_rule_says(row):
    name, scale, needs, continuous, _ = row
    rule = getattr(weights, name)(**MADE_WITH.get(name, {}))
    assert isinstance(rule, WeightRule)
    assert scale == rule.scale
    assert needs == (", ".join(sorted(rule.needs)) or "nothing")
    assert continuous == ("yes" if rule.continuous else "no")


def test_every_rule_has_a_line():
    listed = {row[0] for row in ROWS}
    classes = {
        name: thing for name, thing in vars(weights).items() if isinstance(thing, type) and name in weights.__all__
    }
    rules = {name for name, thing in classes.items() if hasattr(thing, "needs") and hasattr(thing, "continuous")}
    assert listed == rules - {"WeightRule", "LearnedRule", "Conforming", "Normalized", "Unified", "Tracking"}
