"""Shell commands of README and docs, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SEEDS_COMMAND = "safekd demo --seeds 10\n"
DEMO_COMMANDS = """safekd demo
safekd train runs/demo/config.toml
safekd frontier runs/demo/config.toml -o frontier.csv --plot frontier.html --verify
"""


def run_shell(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block of shell commands in a folder, with the commands of this environment first on the path."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["bash", "-euc", code], cwd=folder, env=environment, capture_output=True, text=True)
