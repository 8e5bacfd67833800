"""Folders of results: one writer at a time, files that are replaced together, and hashes that show any changed byte.

    with lock_folder("runs/a", "a training run"):               # another process is told who holds it
        with replace_files("runs/a", "run") as part:            # all new files in place, or the old ones as they were
            write_csv(frame, part / "trace.csv")
    read_manifest("runs/a", "run").require_whole()              # sizes and SHA-256 of every file
    read_checked_json("sweep.json")                             # a JSON file that holds the hash of its own text

A process that is killed loses its lock with its life; what it was writing is taken away, or, where all of it had been
written, put in place by whoever comes next.
"""

from ._checked_json import format_checked_json, parse_checked_json, read_checked_json, write_checked_json
from ._folder_lock import LOCK, FolderLock, lock_folder, require_room
from ._manifest import (
    MANIFEST,
    Manifest,
    format_manifest,
    hash_file,
    read_manifest,
    require_listed_as_written,
    write_manifest,
)
from ._replace_files import finish_replacement, flush_folder, replace_files, require_no_folders

__all__ = [
    "LOCK",
    "MANIFEST",
    "FolderLock",
    "Manifest",
    "finish_replacement",
    "flush_folder",
    "format_checked_json",
    "format_manifest",
    "hash_file",
    "lock_folder",
    "parse_checked_json",
    "read_checked_json",
    "read_manifest",
    "replace_files",
    "require_listed_as_written",
    "require_no_folders",
    "require_room",
    "write_checked_json",
    "write_manifest",
]
