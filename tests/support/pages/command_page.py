"""Writes ``docs/command_line.md`` from the commands themselves: python -m tests.support.pages.command_page."""

from __future__ import annotations

import re

import click
import typer

from safekd.cli._app import app

from .. import ROOT

PAGE = ROOT / "docs" / "command_line.md"
HEAD = """# The command line

Written by `python -m tests.support.pages.command_page` from the commands themselves.

Every command that is given `--json` prints one object for machines on standard output and nothing else there; errors go
to standard error. `safekd --install-completion` completes commands and options in your shell.

| exit code | means |
| --- | --- |
| 0 | done: a run converged, a check holds |
| 1 | a check failed: a run ended without meeting its conditions, a certificate is not shown, a file was changed |
| 2 | bad input, in one message: what was found, what is wanted, what to do; or a fault of safekd, which says so |
| 3 | infeasible: no student can meet what is asked for |
| 4 | interrupted by Ctrl-C or SIGTERM; what was there is there still, and the message says how to go on |
"""


def write_page() -> str:
    """Return the text of the page."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group | typer.core.TyperGroup)
    return HEAD + "".join(_describe(name, command) for name, command in group.commands.items())


def _describe(name: str, command: click.Command) -> str:
    if hasattr(command, "commands"):
        return "".join(_describe(f"{name} {inner}", one) for inner, one in command.commands.items())
    text = _join_lines(command.help or "")
    text = re.sub(r"Example: (safekd .*?)(?=\n\n|$)", r"```text\n\1\n```", text)
    rows = [
        f"| {_name(one)} | {_escape(getattr(one, 'help', '') or '')} |" for one in command.params if one.name != "help"
    ]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    return f"\n## safekd {name}\n\n{text}\n\n{table}\n"


def _name(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return f"`{(parameter.name or '').upper()}`"
    default = getattr(parameter, "default", None)
    shown = f", default {default}" if default not in (None, False, (), []) and not callable(default) else ""
    return f"`{', '.join(parameter.opts)}`{shown}"


def _join_lines(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text))


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
