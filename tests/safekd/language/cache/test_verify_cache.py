"""What was changed in a cache, by accident or on purpose: found, named, and never more than a message."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from safekd.errors import InvalidInput, SafekdError
from safekd.io.folders import format_checked_json, parse_checked_json, write_checked_json
from safekd.language import CachedTeacher, describe_cache, verify_cache, write_cache

from .token_teachers import RecurrentTeacher, make_split

FILES = ["shard-00000.safetensors", "shard-00001.safetensors", "head.safetensors", "manifest.json"]


@pytest.fixture
def folder(tmp_path):
    write_cache(tmp_path / "c", [RecurrentTeacher("a"), RecurrentTeacher("b", seed=1)], make_split(), shard_bytes=600)
    return tmp_path / "c"


def test_an_untouched_cache_holds(folder):
    report = verify_cache(folder)
    assert report.holds()
    assert str(report) == f"{folder}, a teacher cache: 10 parts are as they were written."
    assert verify_cache(folder / "a").checked == 5


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_found(name, folder):
    path = folder / "a" / name
    content = path.read_bytes()
    for place in torch.linspace(0, len(content) - 1, 40).long().tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        report = verify_cache(folder)
        assert not report.holds(), place
        assert all("a" in key.partition("/")[0] for key in report.wrong)
        assert any(name in said for said in report.wrong.values())
    path.write_bytes(content)
    assert verify_cache(folder).holds()


@pytest.mark.parametrize("kind", ["hidden", "topk"])
def test_a_flipped_byte_never_reaches_a_target(kind, tmp_path):
    """Without verifying: it is found when it is read, or it changed no number."""
    data = make_split()
    (cached,) = write_cache(tmp_path, RecurrentTeacher(), data, kind=kind, k=4, shard_bytes=600)
    wanted = cached(data.batch())
    numbers = ("hidden",) if kind == "hidden" else ("ids", "log_p", "entropy", "log_truth")
    for path in sorted(cached.path.glob("*")):
        content = path.read_bytes()
        for place in torch.linspace(0, len(content) - 1, 25).long().tolist():
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            try:
                said = CachedTeacher(tmp_path)(data.batch())
            except InvalidInput:
                continue
            assert all(torch.equal(getattr(said, name), getattr(wanted, name)) for name in numbers)
        path.write_bytes(content)


def test_truncated_swapped_missing_foreign_and_linked_shards_are_named(folder, tmp_path):
    first, second = folder / "a" / FILES[0], folder / "a" / FILES[1]
    contents = first.read_bytes(), second.read_bytes()

    def restore():
        for path, content in zip((first, second), contents, strict=True):
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        assert verify_cache(folder).holds()

    def check(*fragments):
        report = verify_cache(folder)
        assert not report.holds()
        for fragment in fragments:
            assert fragment in str(report)
        with pytest.raises(InvalidInput):
            CachedTeacher(folder, "a")(make_split().batch())
        restore()

    first.write_bytes(contents[0][:-5])
    check(f"a: {FILES[0]} has {len(contents[0]) - 5:,} bytes, wanted {len(contents[0])}")
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    check(f"a: {FILES[0]}", f"a: {FILES[1]}")
    second.unlink()
    check(f"a: {FILES[1]} is missing")
    first.write_bytes((folder / "b" / FILES[0]).read_bytes())
    check(f"a: {FILES[0]} is not what was written: it has another hash")
    first.unlink()
    (tmp_path / "elsewhere").write_bytes(contents[0])
    first.symlink_to(tmp_path / "elsewhere")
    check(f"a: {FILES[0]} is a link, or no regular file")
    first.unlink()
    os.mkfifo(first)
    check(f"a: {FILES[0]} is a link, or no regular file")


def test_a_shard_that_nobody_listed_is_named(folder):
    (folder / "a" / "shard-00077.safetensors").write_bytes((folder / "a" / FILES[0]).read_bytes())
    assert "a: shard-00077.safetensors was not written there" in str(verify_cache(folder))


def test_a_teacher_that_is_gone_is_named(folder):
    for path in (folder / "b").iterdir():
        path.unlink()
    (folder / "b").rmdir()
    assert "b: " + str(folder / "b") + " is missing" in str(verify_cache(folder))
    assert CachedTeacher(folder, "a").name == "a"


def test_a_linked_teacher_is_not_followed(folder, tmp_path):
    (folder / "b").rename(tmp_path / "moved")
    (folder / "b").symlink_to(tmp_path / "moved")
    assert "is no folder, or a link to one" in str(verify_cache(folder))
    with pytest.raises(InvalidInput, match="is no folder, or a link to one"):
        CachedTeacher(folder, "b")


def test_an_unfinished_build_is_no_damage(tmp_path):
    class Stopped(RecurrentTeacher):
        def __call__(self, batch):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        write_cache(tmp_path, Stopped(), make_split(), shard_bytes=300)
    report = verify_cache(tmp_path)
    assert report.holds()
    assert "t is not finished: 16 examples so far; building goes on there." in str(report)
    assert describe_cache(tmp_path)[0].finished is False


def test_what_a_cache_holds_is_told_without_reading_it(folder):
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    first, second = describe_cache(folder)
    assert (first.teacher, second.teacher) == ("a", "b")
    assert (first.kind, first.dtype, first.width, first.examples, first.revision) == (
        "hidden",
        "bfloat16",
        16,
        23,
        "abc",
    )
    assert first.tokens == make_split().positions
    assert first.bytes_per_token > 32


# ------------------------------------------------------------------------------------------------------ forged folders


def forge_manifest(folder, change):
    """Write a manifest whose hash fits: whoever may write there can do that."""
    record = json.loads((folder / "manifest.json").read_text())
    record.pop("sha256")
    change(record)
    write_checked_json(record, folder / "manifest.json")


def rename_shard(name):
    def change(record):
        record["shards"][0]["file"] = name
        record["files"][name] = record["files"].pop(FILES[0])

    return change


def put(*path_and_value):
    *path, value = path_and_value

    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        rename_shard("../b/" + FILES[0]),
        rename_shard("/etc/passwd"),
        rename_shard("C:\\x"),
        rename_shard("notes.txt"),
        put("shards", 0, "examples", 10**12),
        put("shards", 0, "positions", 10**12),
        put("shards", 0, "examples", -1),
        put("shards", 0, "examples", "many"),
        put("shards", 0, "index_sha256", "0" * 64),
        put("shards", {"x": 1}),
        put("shards", []),
        put("format", "width", 10**9),
        put("format", "width", 0),
        put("format", "vocabulary", 10**9),
        put("format", "vocabulary", 3),
        put("format", "dtype", "complex64"),
        put("format", "kind", "pickle"),
        put("format", "kind", "topk"),
        put("head", None),
        put("head", "softcap", "NaN"),
        put("head", "scale", 1e400),
        put("teacher", [1]),
        put("files", {}),
        put("files", FILES[0], "bytes", 10**15),
        put("files", FILES[0], 7),
        put("name", 5),
        put("kind", "run"),
        lambda record: record.clear(),
    ],
)
def test_a_forged_manifest_ends_in_one_message(change, folder):
    forge_manifest(folder / "a", change)
    with pytest.raises(SafekdError) as refused:
        CachedTeacher(folder / "a")(make_split().batch())
    assert str(folder / "a") in str(refused.value) or "shard" in str(refused.value)
    assert not verify_cache(folder).holds()
    with pytest.raises(SafekdError):
        write_cache(folder, RecurrentTeacher("a"), make_split(), kind="hidden", dtype="float32")


def header(entries, data=b""):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


HUGE = {"dtype": "BF16", "shape": [2**40, 16], "data_offsets": [0, 2**45]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a pickle",
        b"\x80\x05cos\nsystem\n",
        struct.pack("<Q", 2**62) + b"{}",
        header({}),
        header([]),
        header({"hidden": HUGE, "examples": HUGE}),
        header({"hidden": {**HUGE, "dtype": "C64"}}),
        header({"hidden": {"dtype": "BF16", "shape": [2, 16], "data_offsets": [0, 64]}}, bytes(64)),
        header({"examples": {"dtype": "I64", "shape": [0, 6], "data_offsets": [0, 0]}}),
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("name", [FILES[0], "head.safetensors"])
def test_a_forged_file_whose_hash_fits_takes_no_memory_and_runs_nothing(name, content, folder):
    from safekd.io.folders import hash_file

    (folder / "a" / name).write_bytes(content)
    forge_manifest(folder / "a", put("files", name, hash_file(folder / "a" / name)))
    tracemalloc.start()
    with pytest.raises(InvalidInput):
        CachedTeacher(folder / "a")(make_split().batch())
    assert name == "head.safetensors" or not verify_cache(folder).holds()
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_a_forged_table_of_examples_is_refused(folder):
    path = folder / "a" / FILES[0]
    tensors = load_file(path)
    tensors["examples"][0, 4] += 1  # one position more
    save_file(tensors, path)
    from safekd.io.folders import hash_file

    forge_manifest(folder / "a", put("files", FILES[0], hash_file(path)))
    with pytest.raises(InvalidInput, match="is not what was written"):
        CachedTeacher(folder / "a")(make_split().batch())


@pytest.mark.parametrize("place", ["../b", "/tmp", "a/../b", ".", "..", "", 5, None, ".hidden"])
def test_a_list_of_teachers_that_leads_elsewhere_is_refused(place, folder):
    write_checked_json({"kind": "teacher cache", "teachers": {"a": place}}, folder / "cache.json")
    for read in (verify_cache, describe_cache, CachedTeacher):
        with pytest.raises(InvalidInput, match="no plain name of a folder beside it"):
            read(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"kind": "teacher cache"}', "[" * 100_000, "\x00"])
def test_a_list_of_teachers_that_was_not_written_here_is_refused(text, folder):
    (folder / "cache.json").write_text(text)
    for read in (verify_cache, describe_cache, CachedTeacher):
        with pytest.raises(InvalidInput, match=r"cache\.json"):
            read(folder)


def test_a_manifest_that_was_lost_is_named_where_its_shards_still_lie(tmp_path):
    write_cache(tmp_path, RecurrentTeacher("t"), make_split())
    (tmp_path / "t" / "manifest.json").unlink()
    report = verify_cache(tmp_path)
    assert not report.holds()
    assert "t: manifest.json is missing, and head.safetensors, shard-00000.safetensors lie there" in str(report)


def test_a_size_that_is_no_number_is_no_fault_of_ours(tmp_path):
    write_cache(tmp_path, RecurrentTeacher("t"), make_split())
    manifest = tmp_path / "t" / "manifest.json"
    record = parse_checked_json(manifest.read_text(encoding="utf-8"), "it")
    record["files"]["shard-00000.safetensors"]["bytes"] = "é"
    manifest.write_text(format_checked_json(record), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"manifest\.json is not that of .*: the size of shard-00000.* is 'é'"):
        describe_cache(tmp_path)


def test_a_shard_of_other_tensors_is_named_with_its_folder(tmp_path):
    write_cache(tmp_path, RecurrentTeacher("t"), make_split())
    manifest = tmp_path / "t" / "manifest.json"
    record = parse_checked_json(manifest.read_text(encoding="utf-8"), "it")
    record["format"]["width"] = 1
    manifest.write_text(format_checked_json(record), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"t/shard-00000\.safetensors is not what was written: tensor 'hidden'"):
        CachedTeacher(tmp_path)(make_split().batch())
