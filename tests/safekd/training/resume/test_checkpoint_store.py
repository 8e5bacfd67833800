"""Checkpoints on disk: whole or not at all, every changed byte seen, the last good one never lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import safekd as kd
from safekd.io.folders import hash_file, write_checked_json
from safekd.training.resume import CheckpointStore, verify_checkpoint
from safekd.training.resume import _checkpoint_store as store_module
from safekd.training.resume import _tensor_files as files_module

FILES = ("manifest.json", "optimizer.safetensors", "state.json", "student.safetensors")


def state_at(step):
    return {
        "student": {"weight": torch.full((3, 2), float(step)), "bias": torch.zeros(2, dtype=torch.bfloat16)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2) * step}}, "param_groups": [{"lr": 0.1}]},
        "run": {"step": step, "loss": float("nan")},
    }


def filled(folder, *steps, keep=2):
    store = CheckpointStore(folder, keep)
    for step in steps:
        store.save(step, state_at(step))
    return store


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def restate(folder):
    """Let a manifest say what its files are now: what a hand could do that knows how."""
    manifest = folder / "manifest.json"
    record = json.loads(manifest.read_text())
    record["files"] = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != manifest.name}
    write_checked_json(record, manifest)


# ------------------------------------------------------------------------------------------------------------- writing


def test_the_newest_is_gone_on_from_and_the_last_ones_stay(tmp_path):
    store = filled(tmp_path, 10, 20, 30)
    assert names(tmp_path) == ["step-000020", "step-000030"]
    latest = CheckpointStore(tmp_path).find_latest()
    assert (latest.step, latest.number) == (30, 3)
    assert sorted(path.name for path in latest.folder.iterdir()) == [*FILES]
    state = store.read(latest)
    assert state["run"]["step"] == 30
    assert torch.equal(state["student"]["weight"], torch.full((3, 2), 30.0))
    assert torch.equal(load_file(latest.folder / "student.safetensors")["weight"], torch.full((3, 2), 30.0))


def large_state():
    """Several megabytes in a few tensors, and as much in many small ones: both are hashed beside the writing."""
    noise = torch.Generator().manual_seed(0)
    student = {"weight": torch.randn(700_000, generator=noise), "bias": torch.randn(7, generator=noise).double()}
    moments = {i: {"exp_avg": torch.randn(2_000, generator=noise)} for i in range(300)}
    return {"student": student, "optimizer": {"state": moments}, "run": {"step": 1}}


def test_large_files_are_hashed_as_they_lie_on_the_disk(tmp_path):
    store = CheckpointStore(tmp_path)
    state = large_state()
    folder = store.save(1, state)
    assert min((folder / name).stat().st_size for name in FILES if "safetensors" in name) > files_module.SETTINGS.large
    found = verify_checkpoint(folder)
    again = store.read(found)
    assert torch.equal(again["student"]["weight"], state["student"]["weight"])
    assert all(
        torch.equal(again["optimizer"]["state"][i]["exp_avg"], one["exp_avg"])
        for i, one in state["optimizer"]["state"].items()
    )


def test_a_checkpoint_counts_only_once_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    store, deeds = filled(tmp_path, 10, 20), []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(handle):
        real_fsync(handle)
        deeds.append(("flushed", Path(os.readlink(f"/proc/self/fd/{handle}"))))

    def rename(path, target):
        deeds.append(("renamed", Path(target)))
        return real_rename(path, target)

    monkeypatch.setattr(files_module.os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    final = store.save(30, large_state())
    moment = deeds.index(("renamed", final))
    before = [path for deed, path in deeds[:moment] if deed == "flushed"]
    part = {path.parent for path in before if path.name in FILES}.pop()
    assert sorted(before) == sorted([part, *(part / name for name in FILES)])
    names_kept, removal = deeds[moment + 1], deeds[moment + 2]
    assert names_kept == ("flushed", final.parent)  # before an older one goes
    assert removal[0] == "renamed"
    assert removal[1].name.startswith(".step-000010.")


@pytest.mark.parametrize("call", [2, 4])
def test_a_disk_that_fills_up_while_a_large_file_is_written_is_told(call, tmp_path, monkeypatch):
    store, calls, real = filled(tmp_path, 10, 20), [], os.write

    def write(handle, piece):
        calls.append(len(piece))
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, piece)

    monkeypatch.setattr(files_module.os, "write", write)
    with pytest.raises(kd.InvalidInput, match=r"Cannot keep the checkpoint of step 30 in .*: No space left on device"):
        store.save(30, large_state())
    assert names(tmp_path) == ["step-000010", "step-000020"]


def test_an_empty_folder_has_none(tmp_path):
    assert CheckpointStore(tmp_path).find_latest() is None
    CheckpointStore(tmp_path).clear()


def test_a_run_that_begins_anew_takes_the_place_of_the_one_before(tmp_path):
    filled(tmp_path, 100, 200)
    CheckpointStore(tmp_path, goes_on=False).save(10, state_at(10))
    assert names(tmp_path) == ["step-000010"]
    filled(tmp_path, 300)
    assert names(tmp_path) == ["step-000010", "step-000300"]


def test_a_step_that_is_written_twice_is_there_once(tmp_path):
    store = filled(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / "step-000020" / "state.json").write_text("{}")
    store.save(20, state_at(20))
    assert [one.step for one in store.list_whole()] == [10, 20]
    assert store.damaged == {}


def test_what_a_killed_writer_left_is_taken_away_and_never_read(tmp_path):
    filled(tmp_path, 10)
    part = tmp_path / "checkpoints" / ".step-000020.0a1b2c3d.part"
    shutil.copytree(tmp_path / "checkpoints" / "step-000010", part)
    assert CheckpointStore(tmp_path).find_latest().step == 10
    filled(tmp_path, 30)
    assert names(tmp_path) == ["step-000010", "step-000030"]


def test_a_removal_that_is_cut_short_leaves_nothing_that_looks_like_a_checkpoint(tmp_path, monkeypatch):
    store = filled(tmp_path, 10, 20)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module.shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            store.clear()
    again = CheckpointStore(tmp_path)
    assert again.find_latest().step == 20
    assert again.damaged == {}
    again.clear()
    assert not (tmp_path / "checkpoints").exists()


def test_files_that_no_run_wrote_stay(tmp_path):
    store = filled(tmp_path, 10)
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    (tmp_path / "checkpoints" / "step-by-step").mkdir()
    store.clear()
    assert names(tmp_path) == ["notes.txt", "step-by-step"]


def test_a_link_in_a_checkpoints_place_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("precious")
    store = filled(tmp_path, 10)
    (tmp_path / "checkpoints" / "step-000020").symlink_to(tmp_path / "mine")
    store.save(20, state_at(20))
    store.clear()
    assert (tmp_path / "mine" / "manifest.json").read_text() == "precious"
    assert not (tmp_path / "checkpoints").exists()


def fail(code):
    def raise_error(*_, **__):
        raise OSError(code, os.strerror(code))

    return raise_error


FAILURES = {
    "no room for tensors": lambda patch: patch.setattr(files_module.os, "write", fail(errno.ENOSPC)),
    "no room for a folder": lambda patch: patch.setattr(Path, "mkdir", fail(errno.ENOSPC)),
    "an error of the disk": lambda patch: patch.setattr(files_module.os, "fsync", fail(errno.EIO)),
    "a folder that cannot be renamed": lambda patch: patch.setattr(Path, "rename", fail(errno.EROFS)),
    "a quota": lambda patch: patch.setattr(store_module, "HashedFile", fail(errno.EDQUOT)),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_disk_that_fails_leaves_the_last_good_one(what, tmp_path, monkeypatch):
    store = filled(tmp_path, 10, 20)
    before = bytes_of(tmp_path)
    with monkeypatch.context() as patch:
        FAILURES[what](patch)
        with pytest.raises(kd.InvalidInput, match=r"Cannot (keep the checkpoint of step 30 in|write) .*checkpoints"):
            store.save(30, state_at(30))
    assert bytes_of(tmp_path) == before
    store.save(30, state_at(30))
    assert names(tmp_path) == ["step-000020", "step-000030"]


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    store = filled(tmp_path, 10)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    monkeypatch.setattr(store_module, "HashedFile", fail(errno.EIO))
    with pytest.raises(kd.InvalidInput, match=r"its disk has 1,000 bytes left, and what is to be written needs about"):
        store.save(20, state_at(20))
    assert names(tmp_path) == ["step-000010"]


def test_a_run_folder_that_was_removed_is_not_made_anew(tmp_path):
    (tmp_path / "run").mkdir()
    store = filled(tmp_path / "run", 10)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(
        kd.InvalidInput, match=r"Cannot keep the checkpoint of step 20 in .*: No such file or directory"
    ):
        store.save(20, state_at(20))
    assert not (tmp_path / "run").exists()


def test_a_state_that_cannot_be_kept_is_told_and_leaves_nothing(tmp_path):
    store = filled(tmp_path, 10)
    with pytest.raises(kd.InvalidInput, match=r"`run\.hook` is a builtins\."):
        store.save(20, {"run": {"hook": print}})
    assert names(tmp_path) == ["step-000010"]


def test_an_interrupt_while_it_is_written_leaves_the_last_good_one(tmp_path, monkeypatch):
    store = filled(tmp_path, 10)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "format_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.save(20, state_at(20))
    assert names(tmp_path) == ["step-000010"]


# ------------------------------------------------------------------------------------------------------------- damage


def latest_after(folder, damage):
    """Step of the checkpoint that is gone on from after the newest of two was damaged, and what was said of it."""
    filled(folder, 10, 20)
    damage(folder / "checkpoints" / "step-000020")
    store = CheckpointStore(folder)
    latest = store.find_latest()
    return latest.step, " ".join(store.damaged.values())


@pytest.mark.parametrize("name", FILES)
def test_every_bit_counts(name, tmp_path):
    filled(tmp_path, 10)
    file = tmp_path / "checkpoints" / "step-000010" / name
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 37):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with pytest.raises(kd.InvalidInput, match="step-000010"):
            verify_checkpoint(file.parent)
    file.write_bytes(whole)
    assert verify_checkpoint(file.parent).step == 10


@pytest.mark.parametrize("name", FILES)
def test_every_length_counts(name, tmp_path):
    filled(tmp_path, 10)
    file = tmp_path / "checkpoints" / "step-000010" / name
    whole = file.read_bytes()
    for changed in [*(whole[:end] for end in range(0, len(whole), 11)), whole + b"\0", whole + b"\n"]:
        file.write_bytes(changed)
        with pytest.raises(kd.InvalidInput, match="step-000010"):
            verify_checkpoint(file.parent)


def swap(folder):
    one, other = folder / "student.safetensors", folder / "optimizer.safetensors"
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)


def link(folder):
    file = folder / "state.json"
    shutil.move(file, folder.parent / "elsewhere")
    file.symlink_to(folder.parent / "elsewhere")


def replace_by_pipe(folder):
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")


def claim_terabytes(folder, name="student.safetensors"):
    with (folder / name).open("r+b") as stream:
        stream.truncate(2**40)  # a hole: no disk is filled


DAMAGE = {
    "two files swapped": (swap, r"(student|optimizer)\.safetensors is not what was written"),
    "a link": (link, r"state\.json is no plain file"),
    "a pipe": (replace_by_pipe, r"state\.json is no plain file"),
    "a folder": (lambda folder: (folder / "x").mkdir(), "x is no plain file"),
    "one file more": (lambda folder: (folder / "x.bin").write_bytes(b""), r"x\.bin was not written there"),
    "one file less": (lambda folder: (folder / "state.json").unlink(), r"state\.json is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), r"there is no manifest\.json"),
    "a file of a terabyte": (claim_terabytes, r"student\.safetensors is not what was written"),
    "a state of a terabyte": (
        lambda folder: claim_terabytes(folder, "state.json"),
        r"state\.json has 1,099,511,627,776 bytes; wanted at most",
    ),
    "another step's files": (
        lambda folder: shutil.copy(folder.parent / "step-000010" / "manifest.json", folder),
        "manifest.json is that of another checkpoint",
    ),
    "a file in its place": (lambda folder: (shutil.rmtree(folder), folder.write_text("")), "is no folder"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_gone_on_from(what, tmp_path):
    damage, message = DAMAGE[what]
    step, said = latest_after(tmp_path, damage)
    assert step == 10
    assert "step-000020" in said
    assert re.search(message, said)


def huge_header(folder):
    (folder / "student.safetensors").write_bytes(struct.pack("<Q", 2**50) + b"{}")


def terabytes_in_header(folder):
    header = json.dumps({"x": {"dtype": "F64", "shape": [2**37], "data_offsets": [0, 2**40]}}).encode()
    (folder / "student.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def edit_state(**changes):
    def edit(folder):
        record = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(record | changes))

    return edit


FORGED = {  # by someone who made the hashes fit
    "a header of a petabyte": (huge_header, r"student\.safetensors is no readable safetensors file"),
    "tensors of a terabyte": (terabytes_in_header, r"student\.safetensors is no readable safetensors file"),
    "a pickle": (
        lambda folder: (folder / "student.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n(S'true'\ntR."),
        r"student\.safetensors is no readable safetensors file",
    ),
    "no JSON": (lambda folder: (folder / "state.json").write_bytes(b"\xff"), r"Cannot read .*state\.json"),
    "JSON without end": (lambda folder: (folder / "state.json").write_text("[" * 10**6), r"Cannot read .*state\.json"),
    "a list": (lambda folder: (folder / "state.json").write_text("[]"), r"state\.json holds no state of a run"),
    "an unknown kind": (edit_state(run={"$": "object"}), r"state\.json holds no state that was encoded"),
    "a path for a tensor's file": (
        edit_state(run={"$": "tensor", "file": "../../x", "name": "x", "dtype": "float32", "shape": []}),
        r"state\.json holds no state that was encoded",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_checkpoint_is_refused_by_the_name_of_its_file(what, tmp_path):
    forge, message = FORGED[what]
    store = filled(tmp_path, 10)
    folder = tmp_path / "checkpoints" / "step-000010"
    forge(folder)
    restate(folder)
    with pytest.raises(kd.InvalidInput, match=message):
        store.read(store.find_latest())


@pytest.mark.parametrize("name", ["../../../x", "..", "/etc/passwd", "a/b.json", "", "x.pkl"])
def test_a_manifest_that_lists_files_elsewhere_is_refused(name, tmp_path):
    filled(tmp_path, 10)
    folder = tmp_path / "checkpoints" / "step-000010"
    record = json.loads((folder / "manifest.json").read_text())
    record["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    write_checked_json(record, folder / "manifest.json")
    with pytest.raises(kd.InvalidInput, match="step-000010"):
        verify_checkpoint(folder)


@pytest.mark.parametrize("wrong", [{"step": "10"}, {"step": True}, {"number": None}, {"step": 11}, {"files": 5}])
def test_a_manifest_with_other_numbers_is_refused(wrong, tmp_path):
    filled(tmp_path, 10)
    folder = tmp_path / "checkpoints" / "step-000010"
    record = json.loads((folder / "manifest.json").read_text())
    write_checked_json(record | wrong, folder / "manifest.json")
    with pytest.raises(kd.InvalidInput, match="step-000010"):
        verify_checkpoint(folder)


def test_damaged_checkpoints_are_set_aside_and_come_no_more(tmp_path):
    store = filled(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / "step-000020" / "state.json").write_text("{}")
    assert list(store.set_aside()) == ["step-000020"]
    assert CheckpointStore(tmp_path).find_latest().step == 10
    assert CheckpointStore(tmp_path).damaged == {}
    (aside,) = (tmp_path / "checkpoints").glob("damaged-step-000020-*")
    assert sorted(path.name for path in aside.iterdir()) == [*FILES]
    store.save(20, state_at(20))
    assert [one.step for one in store.list_whole()] == [10, 20]


def test_a_damaged_checkpoint_pushes_no_good_one_out(tmp_path):
    filled(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / "step-000020" / "state.json").write_text("{}")
    store = CheckpointStore(tmp_path)
    assert store.find_latest().step == 10
    store.save(15, state_at(15))
    assert [one.step for one in store.list_whole()] == [10, 15]


def test_a_repair_counts_what_is_whole_and_is_remembered(tmp_path):
    folders = [filled(tmp_path, 10, 20).folder / f"step-0000{step}" for step in (10, 20)]
    (folders[1] / "state.json").write_text("{}")
    said = str(kd.verify_files(tmp_path, repair=True)).splitlines()
    assert said[0] == f"{tmp_path}, an unfinished run: 1 part is as it was written."
    assert said[1].startswith("step-000020 was set aside: ")
    assert said[2:] == ["Steps lost: 10.", "The run goes on from step 10."]
    (folders[0] / "state.json").write_text("{}")
    assert not kd.verify_files(tmp_path).holds()
    for report in (kd.verify_files(tmp_path, repair=True), kd.verify_files(tmp_path)):
        assert report.holds()
        assert (report.checked, report.notes[-1]) == (0, "No checkpoint is whole: the run begins anew.")
