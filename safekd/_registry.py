"""Names under which a configuration finds classes: filled by a decorator where a class stands, read by whoever
lists.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping


def snake_case(name: str) -> str:
    """Return a class name as configurations spell it: ``TopK`` is ``top_k``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def summarize_classes(registry: Mapping[str, object]) -> dict[str, str]:
    """Return the first line of each entry's docstring, by its name in the registry."""
    return {name: (inspect.getdoc(entry) or "").partition("\n")[0] for name, entry in registry.items()}
