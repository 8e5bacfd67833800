"""What commands show: text in which names are data, progress bars, and one JSON object for machines.

``out`` and ``err`` are where all of them print; results go to the first, errors to the second.
"""

from ._console import err, out
from ._json_output import keep_quiet, print_json
from ._plain_text import PlainConsole, print_plain
from ._progress_bars import report_rows, show_rows, show_steps, show_written

__all__ = [
    "PlainConsole",
    "err",
    "keep_quiet",
    "out",
    "print_json",
    "print_plain",
    "report_rows",
    "show_rows",
    "show_steps",
    "show_written",
]
