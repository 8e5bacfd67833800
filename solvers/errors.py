"""The exceptions that safekd raises, all under one base.

``solvers`` is the lower of the two packages, so the base lives here and ``safekd.errors`` hands it on.
"""


class SafekdError(Exception):
    """Base of every exception that safekd or solvers raises on purpose."""


class SafekdWarning(UserWarning):
    """Something goes on that will hardly come out as it is meant to; the message says what, why, and what to do."""


class InvalidInput(SafekdError, ValueError):
    """What was passed in cannot be used; the message says what was found, what is wanted, what to do."""


class InfeasiblePolytope(InvalidInput):
    """No weights satisfy the rules; the message names the conflicting ones and the least change that makes room."""


class SolverFailure(SafekdError, RuntimeError):
    """A numerical back end gave no usable answer; the message says which one and what to try."""
