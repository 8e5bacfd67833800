"""The exceptions of safekd; all descend from ``SafekdError``."""

from solvers.errors import (
    InfeasiblePolytope,
    InvalidInput,
    SafekdError,
    SafekdWarning,
    SolverFailure,
    escape_controls,
)

__all__ = [
    "InfeasiblePolytope",
    "InvalidConfig",
    "InvalidInput",
    "MissingSignal",
    "NotFinite",
    "PluginFailure",
    "RankFailure",
    "SafekdError",
    "SafekdWarning",
    "SolverFailure",
    "escape_controls",
]


class MissingSignal(InvalidInput):
    """A weighting rule needs something that was not given; the message says what, and how to give it."""


class InvalidConfig(InvalidInput):
    """A configuration file cannot be used; the message names the key, the value, and what is wanted."""


class NotFinite(InvalidInput):
    """A teacher gave a number that is not finite; within a run this is no error but the verdict ``diverged``.

    Args:
        source: Who gave it, and for which example.
        wanted: What was expected instead.
    """

    def __init__(self, source: str, wanted: str) -> None:
        super().__init__(f"{source}; wanted {wanted}.")
        self.source = source


class PluginFailure(SafekdError, RuntimeError):
    """Code of another package, which was asked for by its name, failed; the message names name and package."""


class RankFailure(SafekdError, RuntimeError):
    """A run of several processes cannot go on; the message says which rank stopped, and why as far as it is known."""
