"""Whatever stands in the place of a file that is read back costs one message, no wait, and little memory."""

from __future__ import annotations

import os
import threading

import pytest

from safekd.errors import InvalidInput
from safekd.io import FILE_LIMITS, is_plain_name, open_table, read_file, read_table, read_text_file, refuse_misfit
from safekd.io.folders import MANIFEST, hash_file, lock_folder, read_checked_json, read_manifest, write_checked_json

NO_FILES = ["folder", "pipe", "socket", "device", "missing", "NUL", "long name"]
READERS = {
    "a file": read_file,
    "a text": read_text_file,
    "a hash": hash_file,
    "checked JSON": read_checked_json,
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_at_once(kind, reader, tmp_path, make_no_file):
    with pytest.raises(InvalidInput, match="Cannot read"):
        READERS[reader](make_no_file(tmp_path / "x", kind))


@pytest.mark.parametrize("kind", [kind for kind in NO_FILES if kind != "pipe"])
@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.timeout(20)
def test_what_is_no_table_is_refused_at_once(kind, name, tmp_path, make_no_file):
    path = make_no_file(tmp_path / name, kind)
    with pytest.raises(InvalidInput, match=r"Cannot read|There is no file"), open_table(path):
        pass


@pytest.mark.timeout(30)
def test_a_pipe_is_read_where_somebody_writes_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr("safekd.io._table_paths._PATIENCE", 0.3)
    pipe = tmp_path / "x.csv"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInput, match="it is a named pipe, and nobody writes to it"):
        read_table(pipe)
    writer = threading.Timer(0.1, lambda: pipe.write_text("a,b\n1,2\n"))
    writer.start()
    assert read_table(pipe).to_numpy().tolist() == [["1", "2"]]
    slow = os.open(pipe, os.O_RDWR)  # it is open, and nothing comes for longer than anybody would wait for a writer
    threading.Timer(0.8, lambda: (os.write(slow, b"a,b\n1,2\n"), os.close(slow))).start()
    assert read_table(pipe).to_numpy().tolist() == [["1", "2"]]


def test_files_beyond_their_size_are_not_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"{}")
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidInput, match=r"x.json: it has 1,099,511,627,776 bytes, which is larger than 32 MiB"):
        read_checked_json(path)
    assert FILE_LIMITS.json_bytes == 32 << 20


NAMES = {
    True: ["x", "x.json", "a b.csv", "é", "mixture-3.safetensors", ".hidden", "console.txt", "com10"],
    False: [
        *(
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/x",
            "a\0",
            "a\nb",
            "\u202e",
            "x" * 256,
            "é" * 200,
            "C:x",
            "x?",
            "a|b",
        ),
        *("nul", "NUL.txt", "com1", "lpt9.safetensors", "x.", "x ", None, 3),
    ],
}


@pytest.mark.parametrize("plain", NAMES)
def test_names_of_files_lead_nowhere_else(plain):
    assert [name for name in NAMES[plain] if is_plain_name(name) != plain] == []


@pytest.mark.parametrize("name", [name for name in NAMES[False] if isinstance(name, str) and "\ud800" not in name])
def test_a_manifest_that_lists_a_path_is_refused(name, tmp_path):
    write_checked_json({"kind": "run", "files": {name: {"bytes": 1, "sha256": ""}}}, tmp_path / MANIFEST)
    with pytest.raises(InvalidInput, match="no plain name of a file beside it"):
        read_manifest(tmp_path, "run")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.timeout(20)
def test_a_lock_that_is_no_file_is_refused_at_once(kind, tmp_path, make_no_file):
    make_no_file(tmp_path / ".lock", kind)
    with pytest.raises(InvalidInput, match="Cannot write"), lock_folder(tmp_path, "a test"):
        pass


def test_a_record_of_another_form_is_named():
    for wrong in (KeyError("x"), TypeError("x"), RecursionError(), OverflowError("x")):
        with (
            pytest.raises(InvalidInput, match=r"a.json is not a verdict: \w+Error"),
            refuse_misfit("a.json", "a verdict"),
        ):
            raise wrong
    with pytest.raises(InvalidInput, match=r"^as it is$"), refuse_misfit("a.json", "a verdict"):
        raise InvalidInput("as it is")
