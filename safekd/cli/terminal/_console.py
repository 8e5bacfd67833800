"""Where commands print: results on standard output, errors and progress of pipes on standard error."""

from ._plain_text import PlainConsole

out, err = PlainConsole(), PlainConsole(stderr=True)
