"""The parts of an experiment that a configuration names one by one.

``_configured_teachers`` fits or reads the teachers, ``_configured_constraints`` states the constraints, and
``_configured_tracker`` says who else is told of the run.
"""

from ._configured_constraints import build_constraints
from ._configured_teachers import fit_configured_teacher, read_stored_teacher
from ._configured_tracker import build_tracked_run

__all__ = ["build_constraints", "build_tracked_run", "fit_configured_teacher", "read_stored_teacher"]
