"""What a checkpoint of the trainer holds besides what transformers writes there, and which checkpoints are whole.

    checkpoint-200/safekd/step-000200/     manifest.json, state.json, *.safetensors: multipliers, engine, rule, trace

transformers brings back weights, optimizer, schedule and random numbers; this brings back the rest, to the last bit,
and says what the run was: its teachers, their prompts and types of number, its constraints.  A run that is another one
is refused.  Nothing is pickled, and every file has its SHA-256 in the manifest.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from solvers.primal_dual import DualMethod

from ...errors import InvalidInput, SafekdWarning
from ...fingerprints import compare_records, describe, require_key_list, select_refused
from ...training.resume import CheckpointStore
from ..teachers import TeacherSet, hash_tokenizer
from .passes import DistillationTerms, SequenceColumns

STATE_FOLDER = "safekd"
_TRAINER_STATE, _PREFIX = "trainer_state.json", "checkpoint-"


def describe_trainer_run(
    teachers: TeacherSet,
    terms: DistillationTerms,
    dual: DualMethod | None,
    columns: SequenceColumns,
    data: Mapping[str, Any],
    tokenizer: Any,
    sequences: int,
    seeds: tuple[int, int | None],
) -> dict[str, Any]:
    """Return what decides the numbers of a run besides the arguments of transformers, as plain JSON.

    Args:
        teachers: Their manifests, by name.
        terms: The loss and the constraints.
        dual: How multipliers move.
        columns: What contexts and tasks are called.
        data: What the training data are, see ``describe_data``.
        tokenizer: The student's; None where nobody gave one.
        sequences: Of a step, over all processes.
        seeds: Of the run and of its data.
    """
    return {
        "teachers": dict(zip(teachers.names, map(dict, teachers.manifests()), strict=True)),
        "order_of_teachers": list(teachers.names),
        **terms.describe(),
        "dual": None
        if dual is None
        else {"kind": type(dual).__name__, **{k: describe(v) for k, v in vars(dual).items()}},
        "contexts": list(columns.contexts),
        "tasks": list(columns.tasks),
        "data": dict(data),
        "tokenizer": hash_tokenizer(tokenizer) if hasattr(tokenizer, "get_vocab") else "",
        "sequences_a_step": sequences,
        "seeds": list(seeds),
    }


def open_checkpoint(
    asked: str | bool | None,
    folder: Path,
    ranks: int,
    describe_run: Callable[[], Mapping[str, Any]],
    allow_change: Sequence[str],
) -> tuple[str | None, dict[str, Any] | None]:
    """Return the checkpoint that a run goes on from, and what it holds; None for none.

    Args:
        asked: Its folder; True for the newest whole one, those that are newer being named in a warning.
        folder: ``output_dir`` of the trainer.
        ranks: How many processes there are.
        describe_run: Says what the run is now.
        allow_change: Keys of what may differ, each with all below it.

    Raises:
        InvalidInput: There is none, it was changed, or it is of another run.
    """
    if not asked:
        return None, None
    checkpoint = Path(str(asked))
    if asked is True:
        checkpoint, passed_over = choose_checkpoint(folder, ranks)
        for name, why in passed_over.items():
            warnings.warn(f"{name} is passed over: {why}; {checkpoint.name} is gone on from.", SafekdWarning, 3)
    return str(checkpoint), read_trainer_state(checkpoint, describe_run(), require_key_list(allow_change))


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


def read_trainer_state(checkpoint: Path, run: Mapping[str, Any], allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the state that a checkpoint holds, once it is known to be of this run.

    Args:
        checkpoint: The folder.
        run: What the run is now.
        allowed: Keys of what may differ; what does is told in a warning.

    Raises:
        InvalidInput: There is none, it was changed, or it is of another run; the message names what differs.
    """
    store = CheckpointStore(checkpoint, keep=1, name=STATE_FOLDER)
    latest = store.find_latest()
    if latest is None:
        why = "; ".join(store.damaged.values()).rstrip(".") or f"it has no folder {STATE_FOLDER}"
        raise InvalidInput(
            f"{checkpoint} holds no multipliers to go on with: {why}. Go on from a checkpoint that SafeKDTrainer "
            "wrote, or begin anew: trainer.train()."
        )
    changes = compare_records(latest.about.get("run", {}), json.loads(json.dumps(run)))
    if refused := select_refused(changes, allowed):
        raise InvalidInput(
            f"{checkpoint} is of another run: {'; '.join(refused.values())}. Give the trainer what it had then, accept "
            f"it with train(..., allow_change={[*refused]}), or begin anew: trainer.train()."
        )
    if changes:
        warnings.warn(f"The run goes on as another one: {'; '.join(changes.values())}.", SafekdWarning, 4)
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
