"""Rules by a formula: signals in, raw scores out, without floor or ordering.

``_weight_rule`` says what a rule is and keeps ``RULES``, the registry by scale; ``_token_rules``, ``_task_rules``,
``_context_rules`` and ``_generic_rules`` hold the formulas, each entered by ``@register_rule``; ``_rule_tree`` looks
inside
rules that hold others.  A new rule is a class in one of these files and a name at the door of ``safekd.weights``.
"""

from ._rule_tree import load_rule_state, modules_of, rule_state, walk
from ._weight_rule import (
    RULES,
    SCALES,
    OfRule,
    Rule,
    Scale,
    WeightRule,
    looks_at_student,
    needs_labels,
    needs_of,
    register_rule,
    require_number,
    require_rule,
    require_scores,
)

__all__ = [
    "RULES",
    "SCALES",
    "OfRule",
    "Rule",
    "Scale",
    "WeightRule",
    "load_rule_state",
    "looks_at_student",
    "modules_of",
    "needs_labels",
    "needs_of",
    "register_rule",
    "require_number",
    "require_rule",
    "require_scores",
    "rule_state",
    "walk",
]
