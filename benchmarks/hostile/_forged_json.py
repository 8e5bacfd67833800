"""JSON that says something else than was written, with every hash as it should be: what only its reader can find."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from safekd.errors import InvalidInput
from safekd.io.folders import MANIFEST, format_checked_json, hash_file, parse_checked_json

Rng = np.random.Generator
_DEEP: list[Any] = []
for _ in range(200):
    _DEEP = [_DEEP]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 10**18, 10**30, -(10**30), 0.5, -0.5, 1e308, -0.0, math.nan, math.inf, -math.inf),
    *("", "x", "nan", "x" * 10_000, "../../x", "/etc/passwd", "a\0b", "\u202e\x1b[31m", "nul", ".", "..", "é", "1e999"),
    *([], {}, [[]], [{}], [None], [1.0, "x"], {"a": 1}, {"../x": 1}, {"": {}}, _DEEP, list(range(1000))),
]


def forge_file(rng: Rng, file: Path) -> str:
    """Change a JSON file, mend the hashes that know it, and say what was changed."""
    text = file.read_text(encoding="utf-8")
    checked = _is_checked(text)
    record = json.loads(text)
    how = _change_record(rng, record)
    if rng.random() < 0.2:
        file.write_bytes(_write_oddly(rng, record))
        how = f"{how}, written oddly"
    elif checked and isinstance(record, dict):
        file.write_text(format_checked_json(record), encoding="utf-8")
    else:
        file.write_text(json.dumps(record, indent=2), encoding="utf-8")
    if file.name != MANIFEST:
        _mend_manifest(file)
    return how


def _is_checked(text: str) -> bool:
    try:
        parse_checked_json(text, "it")
    except InvalidInput:
        return False
    return True


def _change_record(rng: Rng, record: Any) -> str:
    """Put something else in one place, or take it away."""
    place, inside, key = "", record, None
    while True:
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        keys = [name for name in keys if name != "sha256" or place]
        if not keys:
            return "nothing"
        key = keys[int(rng.integers(len(keys)))]
        place += f"/{str(key)[:40]}"
        if not isinstance(inside[key], (dict, list)) or not inside[key] or rng.random() < 0.25:
            break
        inside = inside[key]
    how = rng.random()
    if how < 0.15:
        del inside[key]
        return f"{place} is gone"
    if how < 0.3 and isinstance(inside, dict):
        inside[str(VALUES[int(rng.integers(17, 30))])] = inside.pop(key)
        return f"{place} is called something else"
    value = VALUES[int(rng.integers(len(VALUES)))]
    inside[key] = value
    return f"{place} is {str(value)[:40]!r}"


def _write_oddly(rng: Rng, record: Any) -> bytes:
    text = json.dumps(record)
    return [
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        text.encode() + b"\xff",
        b"[" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        text.replace("{", '{"kind": 1, "kind": 2, "files": {}, "sha256": 3, ', 1).encode(),
        text.encode() + text.encode(),
        text[:-1].encode(),
        b"null",
        b'"' + b"x" * 100_000 + b'"',
    ][int(rng.integers(11))]


def _mend_manifest(file: Path) -> None:
    manifest = file.parent / MANIFEST
    if not manifest.is_file():
        return
    record = parse_checked_json(manifest.read_text(encoding="utf-8"), str(manifest))
    if isinstance(record.get("files"), dict) and file.name in record["files"]:
        record["files"][file.name] = hash_file(file)
        manifest.write_text(format_checked_json(record), encoding="utf-8")


def forge_tensors(rng: Rng, file: Path) -> str:
    """Change what the head of a file of tensors says of them, mend the hashes that know it, and say what changed."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head: dict[str, Any] = json.loads(data[8 : 8 + size])
    names = [name for name in head if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    entry, offsets = head[name], head[name]["data_offsets"]
    bytes_left = len(data) - 8 - size
    changes: dict[str, Any] = {
        "a terabyte": {"shape": [2**40, *entry["shape"][1:]]},
        "a terabyte with its bytes": {"shape": [2**37, 8], "data_offsets": [0, 2**40]},
        "shapes that overflow": {"shape": [2**33, 2**33]},
        "no rows": {"shape": [0, *entry["shape"][1:]]},
        "a negative shape": {"shape": [-entry["shape"][0], *entry["shape"][1:]]},
        "many axes": {"shape": [1] * 5000 + entry["shape"]},
        "the bytes of others": {"data_offsets": [bytes_left - offsets[1] + offsets[0], bytes_left]},
        "bytes before the file": {"data_offsets": [-offsets[1], offsets[0]]},
        "offsets that are no numbers": {"data_offsets": ["0", None]},
        "another type": {"dtype": str(rng.choice(["F64", "BOOL", "F8_E5M2", "x", "I16"]))},
        "a list in its place": None,
    }
    how = str(rng.choice(sorted(changes)))
    head[name] = [] if changes[how] is None else {**entry, **changes[how]}
    if rng.random() < 0.2:
        head["../../elsewhere/x"], how = head.pop(name), f"{how}, by another name"
    text = json.dumps(head).encode()
    lengths = [0, 2**31, 2**62, 2**64 - 1, len(data)]
    length = len(text) if rng.random() < 0.9 else lengths[int(rng.integers(len(lengths)))]
    file.write_bytes(length.to_bytes(8, "little") + text + data[8 + size :])
    _mend_manifest(file)
    return f"{name} is told to be {how}"


def plant_unfinished_files(rng: Rng, folder: Path, outside: Path) -> str:
    """Leave what looks like the work of a writer that was killed, and leads somewhere else."""
    ready = folder / ".ready"
    how = ["a link", "a path", "a name of two dots", "a link in it", "another hash"][int(rng.integers(5))]
    if how == "a link":
        ready.symlink_to(outside)
        files: dict[str, Any] = {"x": hash_file(outside / "x")}
        (outside / MANIFEST).write_text(format_checked_json({"kind": "run", "files": files}), encoding="utf-8")
        return f"unfinished files by {how}"
    ready.mkdir()
    name = {"a path": "../../elsewhere/x", "a name of two dots": ".."}.get(how, "verdict.json")
    files = {name: hash_file(outside / "x")}
    if how == "a link in it":
        (ready / name).symlink_to(outside / "x")
    elif how == "another hash":
        (ready / name).write_bytes(b"somebody else'S")
    (ready / MANIFEST).write_text(format_checked_json({"kind": "run", "files": files}), encoding="utf-8")
    return f"unfinished files by {how}"
