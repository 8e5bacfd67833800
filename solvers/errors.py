"""The exceptions that safekd raises, all under one base.

``solvers`` is the lower of the two packages, so the base lives here and ``safekd.errors`` hands it on.
"""

import re

# what a terminal obeys instead of showing it, or shows elsewhere: control characters, marks that turn the direction of
# text, separators of lines; and halves of characters, which no file or terminal takes
_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def escape_controls(text: object, keep: str = "") -> str:
    """Return text in which every character that a terminal would obey stands as its escape in Python.

    Names of columns, classes, files come from anywhere; whatever shows one must not let it move the cursor, recolor
    the screen or turn the direction of what follows.

    Args:
        text: What is shown.
        keep: Characters that stay nevertheless, such as line feeds.
    """
    return _HIDDEN.sub(lambda hit: hit[0] if hit[0] in keep else hit[0].encode("unicode_escape").decode(), str(text))


class SafekdError(Exception):
    """Base of every exception that safekd or solvers raises on purpose."""

    def __str__(self) -> str:
        """Return the message, safe to print whatever names it quotes."""
        return escape_controls(super().__str__(), keep="\n\t")


class SafekdWarning(UserWarning):
    """Something goes on that will hardly come out as it is meant to; the message says what, why, and what to do."""


class InvalidInput(SafekdError, ValueError):
    """What was passed in cannot be used; the message says what was found, what is wanted, what to do."""


class InfeasiblePolytope(InvalidInput):
    """No weights satisfy the rules; the message names the conflicting ones and the least change that makes room."""


class SolverFailure(SafekdError, RuntimeError):
    """A numerical back end gave no usable answer; the message says which one and what to try."""
