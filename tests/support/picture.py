"""The picture of docs/architecture.md, drawn from the imports.

    python -m tests.support.picture             # rewrites the picture; a test says when it is out of date

An arrow points from a room to one that it imports; where a room is reached by way of another anyway, it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import ROOT
from .source_tree import PACKAGES, imports

PAGE = ROOT / "docs" / "architecture.md"
_BEGIN, _END = "```mermaid\n", "```\n"
_LEFT_OUT = {"errors"}  # everybody imports them


def rooms() -> dict[str, set[str]]:
    """Return the rooms of both packages, ``package.room``, and the rooms that each imports."""
    graph: dict[str, set[str]] = {}
    for name, others in imports().items():
        room = _room(name)
        if room is not None:
            graph.setdefault(room, set()).update(r for other in others if (r := _room(other)) not in (None, room))
    return graph


def _room(module: str) -> str | None:
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return None if not room or room.startswith("_") or room in _LEFT_OUT else f"{package}.{room}"


def reduce_arrows(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the arrows of a graph without circles that no way by other rooms replaces."""

    def reachable(room: str) -> set[str]:
        return {further for other in graph[room] for further in {other, *reachable(other)}}

    return {
        room: {o for o in others if not any(o in reachable(p) for p in others - {o})} for room, others in graph.items()
    }


def draw() -> str:
    """Return the picture as Mermaid text."""
    graph = rooms()
    lines = ["flowchart TD"]
    for package in reversed(PACKAGES):
        inside = sorted(room for room in graph if room.startswith(f"{package}."))
        lines += [f"  subgraph {package}", *(f"    {room}[{room.partition('.')[2]}]" for room in inside), "  end"]
    lines += [
        f"  {room} --> {other}" for room, others in sorted(reduce_arrows(graph).items()) for other in sorted(others)
    ]
    return "\n".join(lines) + "\n"


def replace_picture(page: str) -> str:
    """Return the page with the picture as it is now."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + draw() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PAGE.write_text(replace_picture(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
