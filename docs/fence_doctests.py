"""An extension for mkdocstrings: doctests of docstrings, which Markdown would take for quotations, become code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


def fence_doctests(text: str) -> str:
    """Return a docstring with a fence around each doctest, which ends at an empty line.

    Args:
        text: Of the docstring, without indentation.
    """
    return DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)


class FenceDoctests(Extension):
    """Applied to every object that is read."""

    def on_instance(self, *, obj: Object, **more: Any) -> None:
        """Change the docstring of an object, where it has one.

        Args:
            obj: A module, class, function or attribute.
            **more: What griffe tells besides.
        """
        if obj.docstring is not None:
            obj.docstring.value = fence_doctests(obj.docstring.value)
