"""The exceptions of safekd; all descend from ``SafekdError``."""

from solvers.errors import InfeasiblePolytope, InvalidInput, SafekdError, SolverFailure

__all__ = ["InfeasiblePolytope", "InvalidConfig", "InvalidInput", "MissingSignal", "SafekdError", "SolverFailure"]


class MissingSignal(InvalidInput):
    """A weighting rule needs something that was not given; the message says what, and how to give it."""


class InvalidConfig(InvalidInput):
    """A configuration file cannot be used; the message names the key, the value, and what is wanted."""
