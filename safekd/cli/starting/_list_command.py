"""``safekd list``: what an experiment file can name, a line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from solvers.primal_dual import DUAL_METHODS

from ...divergences import DIVERGENCES
from ...errors import InvalidInput
from ...experiment import list_students
from ...pooling import POOLS
from ...safety import MEASURES
from ...weights import RULES
from .._exit_codes import ExitCode
from ..terminal import print_json

Names = Mapping[str, Callable[..., Any] | str]


def show_names(console: Console, kind: str | None, *, as_json: bool) -> int:
    """Print every name of a kind with what it is; return the exit code.

    Args:
        console: Where it is printed.
        kind: "rules", "measures", "divergences", "pools", "dual-methods" or "students"; None for all.
        as_json: Whether it is for a machine.
    """
    known = _find_kinds()
    if kind is not None and kind not in known:
        raise InvalidInput(f"There is no list of '{kind}'; wanted one of {', '.join(known)}.")
    chosen = known if kind is None else {kind: known[kind]}
    if as_json:
        print_json(
            {name: {key: _read_first_line(value) for key, value in names.items()} for name, names in chosen.items()}
        )
        return ExitCode.DONE
    for name, names in chosen.items():
        table = Table(box=box.SIMPLE_HEAD, title=name, title_justify="left", show_header=False)
        table.add_column(no_wrap=True)
        table.add_column()
        for key, value in names.items():
            table.add_row(key, _read_first_line(value))
        console.print(table)
    return ExitCode.DONE


def _find_kinds() -> dict[str, Names]:
    rules = {f"{scale}: {name}": rule for scale, found in RULES.items() for name, rule in found.items()}
    return {
        "rules": rules,
        "measures": MEASURES,
        "divergences": DIVERGENCES,
        "pools": POOLS,
        "dual-methods": DUAL_METHODS,
        "students": {name: f"a student of {package}" for name, package in list_students().items()},
    }


def _read_first_line(value: Callable[..., Any] | str) -> str:
    if isinstance(value, str):  # of a package that is not imported for a list
        return value
    return (inspect.getdoc(value) or "").partition("\n")[0]
