"""Rules with parameters of their own, which learn beside the student.

A trainer asks ``learned_rules`` what learns inside its rule, shows each one every ``StudentStep``, and takes a step on
the loss that it returns; where it returns None, the distillation loss itself teaches it.
"""

from ._learned_rule import LearnedRule, Learner, StudentStep, learned_rules
from ._meta_teacher import MetaTeacher
from ._multi_level import MultiLevel
from ._policy_gradient import PolicyGradient
from ._uncertainty_weighting import UncertaintyWeighting

__all__ = [
    "LearnedRule",
    "Learner",
    "MetaTeacher",
    "MultiLevel",
    "PolicyGradient",
    "StudentStep",
    "UncertaintyWeighting",
    "learned_rules",
]
