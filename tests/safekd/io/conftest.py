"""What stands where a file should be."""

from __future__ import annotations

import os
import socket

import pytest


@pytest.fixture
def make_no_file():
    """Return a function that puts something at a path that is no regular file, and returns where that is."""
    held = []

    def make(path, kind):
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            held.append(socket.socket(socket.AF_UNIX))
            os.chdir(path.parent)  # the path of a socket is short
            held[-1].bind(path.name)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "NUL":
            return path.with_name(f"a\0{path.name}")
        elif kind == "long name":
            return path.with_name("x" * 300 + path.name)
        return path

    before = os.getcwd()
    yield make
    os.chdir(before)
    for one in held:
        one.close()
