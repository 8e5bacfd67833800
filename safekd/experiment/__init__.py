"""From a configuration to something that runs: data, teachers, evidence, weights, trainers.

experiment = build(config, folder)
experiment.trainer().fit(experiment.train, experiment.audit, epochs=...)
"""

from .._threads import threads
from ._arms import Arm, ArmReport, run_arm, training_signals
from ._build import Experiment, build
from ._data import Table, load_table, split_table
from ._students import mlp

__all__ = [
    "Arm",
    "ArmReport",
    "Experiment",
    "Table",
    "build",
    "load_table",
    "mlp",
    "run_arm",
    "split_table",
    "threads",
    "training_signals",
]
