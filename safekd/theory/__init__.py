"""What the theory says of a user's own teachers and runs, measured.

ensembles       what several teachers are worth together: ``ensemble_report``
"""

from . import ensembles

__all__ = ["ensembles"]
