"""What SECURITY.md says of the packages is so, as far as their source can tell."""

from __future__ import annotations

import ast
import re

import pytest

from safekd.experiment.config._load_config import _SETTINGS as CONFIG
from safekd.io import FILE_LIMITS
from safekd.io import _csv as csv_files
from safekd.io._table_paths import _PATIENCE
from safekd.io._text_files import SETTINGS as TEXTS
from safekd.io.arrays import PARQUET_ROWS
from safekd.io.arrays._raw_rows import RAW_ROWS
from safekd.training.resume._checkpoint_store import SETTINGS as CHECKPOINTS

from .support import ROOT
from .support.source_tree import modules

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "subprocess", "pty"}
CALLS = {
    "eval",
    "exec",
    "torch.load",
    "np.load",
    "numpy.load",
    "joblib.load",
    "pd.read_pickle",
    "yaml.load",
    "os.system",
}
# machine code that numba compiled, in numba's own folder; SECURITY.md says whom that trusts
ALLOWED = {"solvers.projection.exact.cpu_kernels._kernel_cache": {"imports pickle"}}


def find_dangers(source):
    """What would run or unpickle something, by name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {f"imports {alias.name}" for alias in node.names if alias.name.partition(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in MODULES:
            found.add(f"imports {node.module}")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {f"calls {called}"} if called in CALLS else set()
            for given in node.keywords:
                if given.arg in ("allow_pickle", "shell") and ast.unparse(given.value) != "False":
                    found.add(f"passes {given.arg}")
    return found


def test_nothing_in_the_packages_runs_what_a_file_says():
    found = {name: find_dangers(path.read_text(encoding="utf-8")) for name, path in modules().items()}
    assert {name: dangers for name, dangers in found.items() if dangers} == ALLOWED


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "imports pickle"),
        ("from yaml import load", "imports yaml"),
        ("torch.load(path)", "calls torch.load"),
        ("np.load(path, allow_pickle=True)", "passes allow_pickle"),
        ("f(lambda: eval('1'))", "calls eval"),
        ("run(x, shell=True)", "passes shell"),
    ],
)
def test_a_danger_is_seen(source, danger):
    assert danger in find_dangers(source)
    assert find_dangers("module.eval(); re.compile('x'); np.save(p, a, allow_pickle=False)") == set()


CAPS = {
    r"a JSON file .* \| (\d+) MiB; of": FILE_LIMITS.json_bytes >> 20,
    r"of a checkpoint: manifest (\d+) MiB": CHECKPOINTS.largest_manifest >> 20,
    r"state (\d+) MiB": CHECKPOINTS.largest_state >> 20,
    r"read whole \| (\d+) GiB": FILE_LIMITS.table_bytes >> 30,
    r"rule set \| (\d+) MiB": CONFIG.most_bytes >> 20,
    r"fewer than ([\d,]+) parts": CONFIG.most_parts,
    r"row of a CSV file \| (\d+) MiB": csv_files._LONGEST_ROW >> 20,
    r"\| (\d+) MiB in a table of rows": RAW_ROWS.safetensors_header_bytes >> 20,
    r"(\d+) MiB in a folder of results": FILE_LIMITS.json_bytes >> 20,
    r"`.npy` file \| ([\d,]+) bytes": RAW_ROWS.npy_header_bytes,
    r"a line of a text file, JSON lines too \| (\d+) MiB": TEXTS.line_bytes >> 20,
    r"text file that is one text (\d+) GiB": TEXTS.document_bytes >> 30,
    r"row of a stored table \| (\d+) GiB": RAW_ROWS.row_bytes >> 30,
    r"row group of a stored teacher \| (\d+) MiB": PARQUET_ROWS.group_bytes >> 20,
    r"the last few up to (\d+) MiB": PARQUET_ROWS.kept_bytes >> 20,
    r"named pipe, CSV alone \| (\d+) seconds": int(_PATIENCE),
}


@pytest.mark.parametrize("pattern", CAPS)
def test_the_caps_are_those_of_the_code(pattern):
    assert int(re.search(pattern, WORDS)[1].replace(",", "")) == CAPS[pattern]


def test_the_page_invents_no_address_and_says_how_to_report():
    assert "@" not in PAGE
    assert "http" not in PAGE
    for words in ("private vulnerability reporting", "pip-audit --no-deps -r constraints.txt", "Not trusted"):
        assert words in WORDS


def test_every_pin_is_exact_so_that_no_package_has_to_be_resolved():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith(("#", "-"))]
    assert [pin for pin in pins if "==" not in pin] == []
