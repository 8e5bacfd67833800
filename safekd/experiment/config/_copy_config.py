"""A configuration beside its results: the same experiment, though it stands in another folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import InvalidConfig
from ._config_models import ExperimentConfig, StoredTeacherConfig
from ._load_config import load_config, parse_config, read_text
from ._override_keys import override_keys

_NOTE = "   # relative paths of data and teachers begin here"
_KEY = re.compile(r"^folder[ \t]*=.*$", re.MULTILINE)


def copy_config(path: str | os.PathLike[str], folder: str | os.PathLike[str], changes: Sequence[str] = ()) -> str:
    """Return the text of a configuration as it is to stand in another folder: relative paths lead where they led.

    Comments and order stay; where a path is relative, the key ``folder`` is set, or added as the first line.

    Args:
        path: The file.
        folder: Where the copy will stand.
        changes: ``key=value`` each, which the copy has instead of what the file says; comments are lost then.

    Raises:
        InvalidConfig: As by ``load_config``; or ``folder`` does not stand on a line of its own.
    """
    file = Path(path)
    text = override_keys(read_text(file), changes, str(file))
    config, start = load_config(file, changes)
    if config.folder is None and not _has_relative_paths(config):
        return text
    try:
        led = os.path.relpath(start.resolve(), Path(folder).resolve())
    except ValueError:  # another drive
        led = str(start.resolve())
    line = f"folder = {json.dumps(led, ensure_ascii=False)}{_NOTE}"
    copied = f"{line}\n{text}" if config.folder is None else _KEY.sub(lambda _: line, text, count=1)
    wanted = config.model_copy(update={"folder": led})
    if parse_config(copied, f"the copy of {file}") != wanted:
        raise InvalidConfig(f"{file}: the key `folder` cannot be found; write it on a line of its own: {line}")
    return copied


def _has_relative_paths(config: ExperimentConfig) -> bool:
    paths = [teacher.path for teacher in config.teachers if isinstance(teacher, StoredTeacherConfig)]
    if config.weights.stored is not None:
        paths.append(config.weights.stored)
    if config.data.source != "breast_cancer":
        paths.append(config.data.source)
    return not all(Path(path).is_absolute() for path in paths)
