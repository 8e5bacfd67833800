"""What a run is, in one file: data, teachers, weights, student, constraints, training, frontier.

config, folder = load_config("experiment.toml")     # strict: an unknown key is refused with the nearest known one
rules = load_rules("rules.toml")                    # for weights in files: `safekd project`, `safekd audit`
"""

from ._config_models import (
    ExperimentConfig,
    FittedTeacherConfig,
    FrontierConfig,
    Metric,
    Option,
    StoredTeacherConfig,
    StudentConfig,
    TrackerConfig,
    TrainingConfig,
    WeightsConfig,
)
from ._constraint_config import MEASURE_KEYS, ConstraintConfig
from ._copy_config import copy_config
from ._data_config import ContextConfig, DataConfig, Strict
from ._format_config import format_config
from ._load_config import load_config, load_rules, parse_config, read_rules
from ._registered_names import suggest_name
from ._rule_set import LinearConfig, RulesConfig

__all__ = [
    "MEASURE_KEYS",
    "ConstraintConfig",
    "ContextConfig",
    "DataConfig",
    "ExperimentConfig",
    "FittedTeacherConfig",
    "FrontierConfig",
    "LinearConfig",
    "Metric",
    "Option",
    "RulesConfig",
    "StoredTeacherConfig",
    "Strict",
    "StudentConfig",
    "TrackerConfig",
    "TrainingConfig",
    "WeightsConfig",
    "copy_config",
    "format_config",
    "load_config",
    "load_rules",
    "parse_config",
    "read_rules",
    "suggest_name",
]
