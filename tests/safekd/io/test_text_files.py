"""Texts out of files: one a line, a paragraph, a document, or a cell of a column."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safekd.errors import InvalidInput
from safekd.io import _text_files, read_texts

TEXTS = ['one, "two"', "名前 🙂", "three\u2028four", "x" * 5000]


def write(path, texts, column="text"):
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps({"id": 1, column: text}) + "\n\n" for text in texts), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path, row_group_size=2)
    elif path.suffix == ".txt":
        path.write_text("".join(f"{text}\n\n" for text in texts), encoding="utf-8")
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        rows = (f'1{sign}"{text.replace(chr(34), 2 * chr(34))}"\n' for text in texts)
        path.write_text(f"id{sign}{column}\n" + "".join(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.ndjson", "a.csv", "a.tsv", "a.parquet"])
def test_texts_come_as_they_are(name, tmp_path):
    assert list(read_texts(write(tmp_path / name, TEXTS))) == TEXTS
    if name != "a.txt":
        assert list(read_texts(write(tmp_path / name, TEXTS, "body"), column="body")) == TEXTS


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_of_token_numbers_are_texts_too(name, tmp_path):
    assert list(read_texts(write(tmp_path / name, [[3, 1], [], [4]]))) == [[3, 1], [4]]


def test_a_text_file_has_lines_paragraphs_or_one_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\n \n\nthree")
    assert list(read_texts(path)) == ["one", "two", "three"]
    assert list(read_texts(path, sample_by="paragraph")) == ["one\ntwo", "three"]
    (whole,) = read_texts(path, sample_by="document")
    assert whole.startswith("one")
    with pytest.raises(InvalidInput, match="`sample_by` is 'page'; wanted line, paragraph, document"):
        read_texts(path, sample_by="page")


def test_a_file_is_read_line_by_line(tmp_path):
    path = write(tmp_path / "a.jsonl", ["a", "b"])
    with path.open("a") as stream:
        stream.write("no JSON")
    texts = read_texts(path)
    assert (next(texts), next(texts)) == ("a", "b")
    with pytest.raises(InvalidInput, match=r"a\.jsonl, line 5: no JSON"):
        next(texts)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"body": "x"}', r"line 1 has no 'text'; it has: 'body'\. Name another one"),
        ("a.jsonl", b"[1]", "line 1 has no 'text'; it has: list"),
        ("a.jsonl", b'{"text": 5}', "line 1, 'text': found 5, wanted text, or a list of token numbers"),
        ("a.jsonl", b'{"text": [1, -2]}', r"found \[1, -2\]"),
        ("a.jsonl", b'{"text": [true]}', r"found \[True\]"),
        ("a.jsonl", b'{"text": "\\ud800"}', "half of a character"),
        ("a.jsonl", b"[" * 100_000, "no JSON"),
        ("a.jsonl", b'{"text": ' + b"9" * 6000 + b"}", "no JSON"),
        ("a.txt", b"fine\n\xff\xfe", "line 2 is not UTF-8 text"),
        ("a.csv", b"a,b\n1,2\n", "has no column 'text'; it has: a, b"),
        ("a.parquet", b"PAR1 or not", "cannot be read as Parquet"),
        ("a.pt", b"PK\x03\x04", "Cannot tell what .* holds; wanted a name that ends in .txt"),
    ],
)
def test_what_is_no_text_is_named_by_its_place(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        list(read_texts(tmp_path / name))


def test_a_missing_file_a_folder_and_a_pipe_are_refused_without_waiting(tmp_path):
    (tmp_path / "b.txt").mkdir()
    os.mkfifo(tmp_path / "c.jsonl")
    for name in ("a.txt", "b.txt", "c.jsonl"):
        with pytest.raises(InvalidInput, match=f"Cannot read .*{name}"):
            list(read_texts(tmp_path / name))


def test_a_line_without_an_end_takes_no_more_than_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(
        _text_files, "SETTINGS", _text_files.TextFileSettings(line_bytes=1 << 20, document_bytes=1 << 20)
    )
    (tmp_path / "a.txt").write_bytes(b"x" * (3 << 20))
    with pytest.raises(InvalidInput, match="line 1 is longer than 1 MiB"):
        list(read_texts(tmp_path / "a.txt"))
    with pytest.raises(InvalidInput, match="larger than 1 MiB"):
        list(read_texts(tmp_path / "a.txt", sample_by="document"))


def test_a_missing_cell_of_parquet_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match="row 2, column 'text': found None"):
        list(read_texts(tmp_path / "a.parquet"))
