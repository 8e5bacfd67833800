"""The page of claims: a row and a section a claim, pictures beside it, and the page that stands in docs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from benchmarks.claims import __main__ as claims
from benchmarks.claims.siblings import recursion
from tests.support import ROOT

PAGE = ROOT / "docs" / "claims.md"


def test_one_command_writes_page_and_pictures(tmp_path, capsys):
    page, images = tmp_path / "claims.md", tmp_path / "images"
    options = ["--only", "toy_illustration", "contraction", "--out", str(page), "--images", str(images)]
    assert claims.main(options) == 0
    text = page.read_text()
    assert "| [Appendix A](#appendix-a) |" in capsys.readouterr().out
    assert "### Appendix A" in text
    assert "### 2601.13100, contraction" in text
    assert "(images/claims/recursion.svg)" in text
    assert ET.parse(images / "recursion.svg").getroot().tag.endswith("svg")


def test_the_same_numbers_draw_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        claims.draw_pictures([recursion.contraction(rows=20)], tmp_path / name)
    assert (tmp_path / "a" / "recursion.svg").read_bytes() == (tmp_path / "b" / "recursion.svg").read_bytes()


@pytest.mark.parametrize("group", claims.EXPERIMENTS)
def test_the_page_of_the_docs_has_every_group(group):
    assert f"## {group}\n" in PAGE.read_text()


def test_the_page_of_the_docs_has_a_section_and_a_verdict_for_every_experiment():
    text = PAGE.read_text()
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(sections) == sum(map(len, claims.EXPERIMENTS.values()))
    for section in sections:
        verdict = re.search(r"^Verdict: \*\*(.+)\*\*", section, re.MULTILINE)[1]
        assert verdict in ("holds", "holds under an extra condition", "fails")
        assert verdict == "holds" or "Counterexample: " in section or verdict.endswith("condition")
    for picture in re.findall(r"\((images/claims/[\w.]+)\)", text):
        assert (PAGE.parent / picture).exists()
