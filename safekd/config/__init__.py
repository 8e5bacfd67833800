"""What a run is, in one file: data, teachers, weights, student, constraints, training, frontier.

config, folder = load_config("experiment.toml")     # strict: an unknown key is refused with the nearest known one
"""

from ._load import load_config, parse_config
from ._models import (
    ConstraintConfig,
    ContextConfig,
    DataConfig,
    ExperimentConfig,
    FittedTeacherConfig,
    FrontierConfig,
    StoredTeacherConfig,
    StudentConfig,
    TrainingConfig,
    WeightsConfig,
)

__all__ = [
    "ConstraintConfig",
    "ContextConfig",
    "DataConfig",
    "ExperimentConfig",
    "FittedTeacherConfig",
    "FrontierConfig",
    "StoredTeacherConfig",
    "StudentConfig",
    "TrainingConfig",
    "WeightsConfig",
    "load_config",
    "parse_config",
]
