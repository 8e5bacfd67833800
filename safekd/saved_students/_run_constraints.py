"""The constraints of a run folder, as its experiment file stated them."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidInput
from ..experiment import ExampleTable, build_constraints
from ..experiment.config import load_config
from ..safety import SafetyConstraint
from ._run_files import EFFECTIVE_CONFIG
from ._saved_student import SavedStudent


def read_run_constraints(student: SavedStudent) -> list[SafetyConstraint]:
    """Return the constraints under which a student was trained, at the thresholds that were asked for.

    Args:
        student: Of the run of an experiment file.

    Raises:
        InvalidInput: The run was one of a module of the caller's own, or keeps no configuration.
    """
    spec = student.require_spec()
    file = student.folder / EFFECTIVE_CONFIG
    if not file.is_file():
        raise InvalidInput(f"{student.folder} has no {EFFECTIVE_CONFIG}, which says what its constraints are.")
    config, _ = load_config(file)
    none = np.zeros(0, dtype=np.int64)
    table = ExampleTable(np.zeros((0, len(spec.features))), none, none, spec.features, spec.classes, spec.context_rule)
    return [constraint for one in config.constraints for constraint in build_constraints(one, table)]
