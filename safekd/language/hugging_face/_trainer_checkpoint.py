"""What a checkpoint of the trainer holds besides what transformers writes there, and which checkpoints are whole.

    checkpoint-200/safekd/step-000200/     manifest.json, state.json, *.safetensors: multipliers, engine, rule, trace

transformers brings back weights, optimizer, schedule and random numbers; this brings back the rest, to the last bit, and
says what the run was: its teachers, their prompts and types of number, its constraints.  A run that is another one is
refused.  Nothing is pickled, and every file has its SHA-256 in the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from ...fingerprints import compare_records
from ...training.resume import CheckpointStore

STATE_FOLDER = "safekd"
_TRAINER_STATE, _PREFIX = "trainer_state.json", "checkpoint-"


def write_trainer_state(checkpoint: Path, step: int, state: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Write the state into a checkpoint's folder; it is there whole or not at all.

    Args:
        checkpoint: The folder, made if absent.
        step: Optimizer steps so far.
        state: Parts by name, see ``encode_state``.
        run: What the run is, as plain JSON.

    Raises:
        InvalidInput: It cannot be written.
    """
    checkpoint.mkdir(parents=True, exist_ok=True)
    CheckpointStore(checkpoint, keep=1, goes_on=False, name=STATE_FOLDER).save(step, state, {"run": dict(run)})


def read_trainer_state(checkpoint: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that a checkpoint holds, once it is known to be of this run.

    Args:
        checkpoint: The folder.
        run: What the run is now.

    Raises:
        InvalidInput: There is none, it was changed, or it is of another run; the message names what differs.
    """
    store = CheckpointStore(checkpoint, keep=1, name=STATE_FOLDER)
    latest = store.find_latest()
    if latest is None:
        why = "; ".join(store.damaged.values()).rstrip(".") or f"it has no folder {STATE_FOLDER}"
        raise InvalidInput(
            f"{checkpoint} holds no multipliers to go on with: {why}. Go on from a checkpoint that SafeKDTrainer wrote, "
            "or begin anew: trainer.train()."
        )
    changes = compare_records(latest.about.get("run", {}), json.loads(json.dumps(run)))
    if changes:
        raise InvalidInput(
            f"{checkpoint} is of another run: {'; '.join(changes.values())}. Give the trainer what it had then, or begin "
            "anew: trainer.train()."
        )
    return store.read(latest)


def choose_checkpoint(folder: Path, ranks: int) -> tuple[Path, dict[str, str]]:
    """Return the newest whole checkpoint in a folder, and what is wrong with those that are newer.

    Args:
        folder: ``output_dir`` of the trainer.
        ranks: How many processes wrote it.

    Raises:
        InvalidInput: There is none.
    """
    numbered = sorted(
        (int(path.name.removeprefix(_PREFIX)), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name.startswith(_PREFIX) and path.name.removeprefix(_PREFIX).isdecimal()
    )
    wrong: dict[str, str] = {}
    for _, path in reversed(numbered):
        missing = explain_incomplete(path, ranks)
        if not missing:
            return path, wrong
        wrong[path.name] = missing
    found = "; ".join(f"{name}: {why}" for name, why in wrong.items()) or "there is none"
    raise InvalidInput(
        f"{folder} has no whole checkpoint to go on from ({found}). Begin anew: trainer.train(), with "
        'save_strategy="steps" in its arguments.'
    )


def explain_incomplete(checkpoint: Path, ranks: int) -> str:
    """Say what a checkpoint lacks, empty where it is whole: a kill may have come between two of its files.

    Args:
        checkpoint: The folder.
        ranks: How many processes wrote it.
    """
    try:
        json.loads((checkpoint / _TRAINER_STATE).read_text(encoding="utf-8"))  # the last file that is written
    except (OSError, ValueError):
        return f"{_TRAINER_STATE} is missing or cut off"
    names: Sequence[str] = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    if missing := [name for name in names if not (checkpoint / name).is_file()]:
        return f"{missing[0]} is missing"
    if not any((checkpoint / name).is_file() for name in ("optimizer.pt", "optimizer.bin")):
        return "the optimizer's state is missing (save_only_model)"
    store = CheckpointStore(checkpoint, keep=1, name=STATE_FOLDER)
    if store.find_latest() is None:
        return "; ".join(store.damaged.values()) or f"the folder {STATE_FOLDER} is missing"
    return ""
