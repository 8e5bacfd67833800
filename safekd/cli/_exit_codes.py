"""What a command ends with, the same for all of them."""

from __future__ import annotations

from enum import IntEnum

from solvers.statuses import Status


class ExitCode(IntEnum):
    """Exit codes of ``safekd``."""

    DONE = 0
    CHECK_FAILED = 1  # the run ended without meeting its conditions, or what was looked at does not hold
    BAD_INPUT = 2  # or a fault of safekd itself; one message
    INFEASIBLE = 3  # no student can meet what is asked for
    INTERRUPTED = 4  # Ctrl-C or SIGTERM


def rate_status(status: Status) -> ExitCode:
    """Return the exit code of a run by its status.

    Args:
        status: Of the run.
    """
    if status == "converged":
        return ExitCode.DONE
    return ExitCode.INFEASIBLE if status == "infeasible" else ExitCode.CHECK_FAILED
