"""Rules by a formula: signals in, raw scores out, without floor or ordering.

``_weight_rule`` says what a rule is and keeps ``RULES``, the registry by scale; ``_token_rules``, ``_task_rules``,
``_context_rules`` and ``_generic_rules`` hold the formulas, each entered by ``@register_rule``, ``_stored_rule`` reads
weights from a file; ``_rule_tree`` looks inside rules that hold others.  A new rule is a class in one of these files
and a name at the door of ``safekd.weights``.
"""

from ._rule_tree import collect_modules, load_rule_state, rule_state, walk_rule
from ._weight_rule import (
    RULES,
    SCALES,
    Rule,
    RuleWrapper,
    Scale,
    WeightRule,
    collect_needs,
    looks_at_student,
    needs_labels,
    register_rule,
    require_number,
    require_rule,
    require_scores,
)

__all__ = [
    "RULES",
    "SCALES",
    "Rule",
    "RuleWrapper",
    "Scale",
    "WeightRule",
    "collect_modules",
    "collect_needs",
    "load_rule_state",
    "looks_at_student",
    "needs_labels",
    "register_rule",
    "require_number",
    "require_rule",
    "require_scores",
    "rule_state",
    "walk_rule",
]
