"""Writes the keys of docs/experiment_files.md anew."""

from . import PAGE, replace_keys

PAGE.write_text(replace_keys(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
