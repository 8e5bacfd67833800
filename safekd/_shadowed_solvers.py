"""`solvers` is a generic name: say so at once when another folder of that name is found first."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def require_our_solvers() -> None:
    """Raise ImportError naming the folder that shadows our ``solvers`` package, if one does."""
    ours = Path(__file__).resolve().parent.parent / "solvers"
    loaded = sys.modules.get("solvers")
    spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec("solvers")
    origin = getattr(spec, "origin", None)
    found = Path(origin).resolve() if origin else None
    if found is not None and found.parent == ours:
        return
    places = list(getattr(spec, "submodule_search_locations", None) or [])
    where = found or (places[0] if places else "nowhere on sys.path")
    raise ImportError(
        f"safekd brings a package named `solvers` in {ours}, but Python finds another one first: {where}. "
        "Start Python from another folder, rename that one, or move it behind site-packages in sys.path."
    )
