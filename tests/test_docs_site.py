"""The site of the documentation: every page is in it, every public name has its place, nothing comes from elsewhere.

``mkdocs build --strict`` itself is run by ``.ci/run``, with what the extra ``docs`` installs.
"""

from __future__ import annotations

import importlib
import re
import runpy

import pytest

import safekd as kd

from .support import ROOT

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
API = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "api").glob("*.md")))
UNDOCUMENTED = {
    "demo",
    "distributed",
    "io",
    "errors",
}  # rooms without names for users, but for errors, which has a page
STUBBED = sorted(path.parent for package in ("safekd", "solvers") for path in (ROOT / package).rglob("__init__.pyi"))


def test_every_page_is_in_the_navigation_once():
    """A page that is listed and not there is refused by the strict build."""
    listed = re.findall(r": ([\w./-]+\.md)$", CONFIG, flags=re.MULTILINE)
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(listed) == set(), "add them to mkdocs.yml"
    assert len(listed) == len(set(listed))


def test_every_room_has_its_place_in_the_api():
    rooms = set(re.findall(r"^from \. import (\w+)", (ROOT / "safekd" / "__init__.pyi").read_text(), re.MULTILINE))
    documented = set(re.findall(r"^::: safekd\.(\w+)", API, re.MULTILINE))
    assert rooms - UNDOCUMENTED - {"fingerprints"} - documented == set()
    assert "::: safekd.errors" in API


@pytest.mark.parametrize("folder", STUBBED, ids=lambda path: path.name)
def test_names_that_are_imported_when_used_are_listed_one_by_one(folder):
    """What reads docstrings does not run the code, so it does not see them by itself."""
    if folder.name == "safekd":
        return  # every one of them is a name of a room
    exported = re.findall(r"^from \S+ import \w+ as (\w+)", (folder / "__init__.pyi").read_text(), re.MULTILINE)
    module = ".".join(folder.relative_to(ROOT).parts)
    section = API.split(f"::: {module}\n")[1].split(":::")[0]
    assert set(exported) - {"errors"} == set(re.findall(r"^ +- (\w+)$", section, re.MULTILINE))


def test_what_safekd_exports_is_a_name_of_a_room_with_a_page():
    for name in set(kd.__all__) - set(re.findall(r"safekd\.(\w+)", API)) - UNDOCUMENTED - {"fingerprints"}:
        room = getattr(kd, name).__module__.split(".")[:2]
        assert f"::: {'.'.join(room) if room[0] == 'safekd' else room[0]}" in API, name


def test_the_site_fetches_nothing():
    assert "font: false" in CONFIG
    assert not re.search(r"https?://|extra_javascript|extra_css|analytics:", CONFIG)
    for picture in (ROOT / "docs" / "images").glob("concept-*.svg"):
        urls = set(re.findall(r"https?://[^\"]+", picture.read_text(encoding="utf-8")))
        assert urls <= {"http://www.w3.org/2000/svg"}


def test_doctests_of_docstrings_become_code():
    pytest.importorskip("griffe")
    fence = runpy.run_path(str(ROOT / "docs" / "fence_doctests.py"))["fence_doctests"]
    text = "Do it.\n\n>>> do(1)\n2\n>>> do(2)\n\nThen more."
    assert fence(text) == "Do it.\n\n```pycon\n>>> do(1)\n2\n>>> do(2)\n```\n\nThen more."
    assert fence("No example, a > b.") == "No example, a > b."


def test_every_module_with_a_page_can_be_imported():
    for module in re.findall(r"^::: (\S+)", API, re.MULTILINE):
        assert importlib.import_module(module).__doc__
