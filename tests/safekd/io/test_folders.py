"""Folders of results: one writer, files replaced together, and any changed byte seen."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import safekd as kd
from safekd.io import folders
from safekd.io.folders import _folder_lock as locks
from safekd.io.folders import (
    finish_replacement,
    lock_folder,
    read_checked_json,
    read_manifest,
    replace_files,
    require_room,
    write_checked_json,
)
from tests.support import ROOT


def put(folder, **files):
    with replace_files(folder, "run", {"by": "a test"}) as part:
        for name, text in files.items():
            (part / name).write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- locks ---------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path):
    with lock_folder(tmp_path / "a", "a sweep"):
        told = pytest.raises(kd.InvalidInput, match=rf"a is in use: process {os.getpid()} on .*, since 2.*a sweep")
        with told, lock_folder(tmp_path / "a", "another"):
            pass
        with lock_folder(tmp_path / "b", "another folder"):
            pass
    with lock_folder(tmp_path / "a", "the next one"):
        pass


def test_a_folder_that_nothing_was_put_into_is_taken_away(tmp_path):
    with lock_folder(tmp_path / "a" / "b", "a run"):
        assert names(tmp_path / "a" / "b") == [".lock"]
    assert names(tmp_path) == []
    with lock_folder(tmp_path / "a" / "b", "a run"):
        (tmp_path / "a" / "b" / "file").write_text("x")
    assert names(tmp_path / "a" / "b") == ["file"]


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, sys\nfrom safekd.io.folders import lock_folder\n"
        "with lock_folder(sys.argv[1], 'a run'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(kd.InvalidInput, match=f"in use: process {process.pid} on"), lock_folder(tmp_path, "mine"):
            pass
        process.kill()
        process.wait()
    assert names(tmp_path) == [".lock"]
    with lock_folder(tmp_path, "mine"):
        pass
    assert names(tmp_path) == []


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    reads, writes = os.pipe()
    with lock_folder(tmp_path, "mine"):
        child = os.fork()
        if child == 0:
            os.read(reads, 1)
            os._exit(0)
    with lock_folder(tmp_path, "mine again, while the child lives"):
        assert names(tmp_path) == [".lock"]
    assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it lived all the while
    os.write(writes, b"x")
    os.waitpid(child, 0)


@pytest.mark.parametrize(("pid", "free"), [(2**22 + 1, True), (os.getpid(), False)], ids=["gone", "alive"])
def test_without_locks_of_the_system_the_named_process_counts(pid, free, tmp_path, monkeypatch):
    def unsupported(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock_handle", unsupported)
    (tmp_path / ".lock").write_text(json.dumps({"pid": pid, "host": locks.socket.gethostname()}))
    if free:
        with lock_folder(tmp_path, "mine"):
            pass
    else:
        with pytest.raises(kd.InvalidInput, match="is in use"), lock_folder(tmp_path, "mine"):
            pass


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(kd.InvalidInput, match="Cannot write"), lock_folder(tmp_path / "a", "a run"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_to_is_told(code, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.os, "open", fail)
    told = pytest.raises(kd.InvalidInput, match=f"Cannot write .*: {os.strerror(code)}. Choose a folder")
    with told, lock_folder(tmp_path / "new", "a run"):
        pass
    monkeypatch.undo()
    assert names(tmp_path) == []


def test_room_is_asked_for(tmp_path):
    require_room(tmp_path, 10)
    with pytest.raises(
        kd.InvalidInput, match=r"its disk has [0-9,]+ bytes left, and .* needs about 1,000,000,000,000,"
    ):
        require_room(tmp_path, 10**18)


# ---- replacing ------------------------------------------------------------------------------------------------


def test_files_of_the_last_writer_go_and_those_of_others_stay(tmp_path):
    (tmp_path / "mine").write_text("mine")
    put(tmp_path, a="1", b="2")
    put(tmp_path, a="3", c="4")
    assert names(tmp_path) == ["a", "c", "manifest.json", "mine"]
    assert (tmp_path / "a").read_text() == "3"
    manifest = read_manifest(tmp_path, "run")
    manifest.require_whole()
    assert (set(manifest.files), manifest.about) == ({"a", "c"}, {"by": "a test"})


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(errno.ENOSPC, "No space left on device")])
def test_what_was_there_stays_if_writing_fails(error, tmp_path):
    put(tmp_path, a="1", b="2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    told = pytest.raises((RuntimeError, kd.InvalidInput), match=r"no|No space left on device. Make room there")
    with told, replace_files(tmp_path, "run") as part:
        (part / "a").write_text("9")
        raise error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_in_a_files_place_is_told_and_nothing_is_replaced(tmp_path):
    put(tmp_path, a="1")
    (tmp_path / "z").mkdir()
    with pytest.raises(kd.InvalidInput, match=r"Cannot write .*z: it is a folder. Move it"):
        put(tmp_path, a="2", z="3")
    assert (tmp_path / "a").read_text() == "1"
    assert names(tmp_path) == ["a", "manifest.json", "z"]


@pytest.mark.parametrize("moves", range(5))
def test_a_writer_that_is_killed_while_files_move_is_finished_by_the_next(moves, tmp_path, monkeypatch):
    """However many files had been moved, the folder then holds all files of one result."""
    put(tmp_path, a="1", b="2", old="x")

    class Killed(BaseException):
        pass

    done, move = [], os.replace

    def replace(*given):
        if Path(given[1]).parent == tmp_path:
            if len(done) == moves:
                raise Killed
            done.append(given)
        move(*given)

    monkeypatch.setattr(folders._replace_files.os, "replace", replace)
    try:
        put(tmp_path, a="3", b="4", c="5")
    except Killed:
        monkeypatch.undo()
        finish_replacement(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path) if len(name) == 1} == {
        "a": "3",
        "b": "4",
        "c": "5",
    }
    assert names(tmp_path) == ["a", "b", "c", "manifest.json"]
    read_manifest(tmp_path, "run").require_whole()


def test_a_reader_takes_nothing_from_a_writer(tmp_path):
    put(tmp_path, a="1")
    with replace_files(tmp_path, "run") as part:
        (part / "a").write_text("2")
        finish_replacement(tmp_path)
        read_manifest(tmp_path, "run").require_whole()
    assert (tmp_path / "a").read_text() == "2"


def test_what_a_link_leads_to_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "mine")
    os.link(tmp_path / "mine", folder / "b")
    put(folder, a="1", b="2")
    assert (tmp_path / "mine").read_text() == "precious"
    assert ((folder / "a").read_text(), (folder / "b").read_text()) == ("1", "2")
    assert not (folder / "a").is_symlink()


# ---- hashes --------------------------------------------------------------------------------------------------


def flip(path, at, bit):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(bytes(raw))


def test_any_byte_of_a_checked_file_that_was_changed_is_seen(tmp_path):
    file, draw = tmp_path / "a.json", random.Random(0)
    record = {"name": "ä", "numbers": [0.1, float("nan"), 1e300], "data": [{"sha256": "0" * 64}], "none": None}
    write_checked_json(record, file)
    raw = file.read_bytes()
    for at in range(len(raw)):
        flip(file, at, draw.randrange(8))
        with pytest.raises(kd.InvalidInput, match=r"a\.json"):
            read_checked_json(file)
        file.write_bytes(raw)
    assert str(read_checked_json(file)) == str(record)
    file.write_bytes(b"\xef\xbb\xbf" + raw.replace(b"\n", b"\r\n"))  # as some systems copy text
    assert str(read_checked_json(file)) == str(record)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"sha256": 5}', '{"a": 1, "sha256": "x"}', "[" * 9999]
)
def test_what_is_no_checked_file_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(kd.InvalidInput, match=r"a\.json is (no readable JSON|not what was written)"):
        read_checked_json(tmp_path / "a.json")


def test_every_changed_and_missing_file_is_named(tmp_path):
    put(tmp_path, a="1", b="2", c="3")
    flip(tmp_path / "a", 0, 0)
    (tmp_path / "b").unlink()
    (tmp_path / "d").write_text("another")
    manifest = read_manifest(tmp_path, "run")
    assert manifest.find_changes() == {"a": "a is not what was written", "b": "b is missing"}
    assert set(manifest.find_changes(others_allowed=False)) == {"a", "b", "d"}
    with pytest.raises(kd.InvalidInput, match="is damaged: b is missing; a is not what was written"):
        manifest.require_whole()
    with pytest.raises(kd.InvalidInput, match="is the folder of a run; wanted that of a sweep"):
        read_manifest(tmp_path, "sweep")
    with pytest.raises(kd.InvalidInput, match="holds no finished run: there is no manifest"):
        read_manifest(tmp_path / "none", "run")
