"""The report in a headless Chromium: nothing on the console, colors of the theme, narrow screens, the keyboard."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from safekd.frontier.view import PALETTE
from safekd.report import write_report
from tests.support.reports.browser import View, ask_page, find_browser, take_screenshot

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def report(made, hostile, tmp_path_factory):
    """Two runs in one page, one of them with names that mean harm: all sections, all figures."""
    return write_report([made.folder, hostile.folder], tmp_path_factory.mktemp("seen") / "report.html")


LOOK = """
const rgb = (e, name) => getComputedStyle(document.querySelector(e))[name];
return {
  wide: document.documentElement.scrollWidth,
  paper: rgb("body", "backgroundColor"), ink: rgb("body", "color"), soft: rgb(".soft", "color"),
  first: rgb(".l.k0", "stroke"), small: Math.min(...[...document.querySelectorAll("figure > svg")].map(svg =>
    svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)) * 11.5,
  alone: [...document.querySelectorAll("svg")].filter(svg => !svg.querySelector("title") && !svg.ariaHidden).length,
};
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_is_of_its_theme_and_says_nothing_on_the_console(width, dark, report):
    found, said = ask_page(report, LOOK, View(width, 800, dark))
    assert said == []
    assert found["wide"] <= width  # tables scroll by themselves, the page does not
    assert found["small"] >= 9.5  # pixels of the text in figures
    assert found["alone"] == 0
    colors = PALETTE["dark" if dark else "light"]
    seen = {"paper": found["paper"], "ink": found["ink"], "soft": found["soft"], "c0": found["first"]}
    assert seen == {name: as_rgb(colors[name]) for name in seen}


def as_rgb(color):
    return f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"


def test_a_point_says_its_numbers_when_it_has_the_keyboards_focus_and_arrows_lead_on(report):
    script = """
    const tip = document.getElementById("tip");
    const group = [...document.querySelectorAll("g[role=group]")].find(g => g.querySelectorAll(".p").length > 2);
    const points = group.querySelectorAll(".p"), steps = [];
    const note = () => steps.push([[...points].indexOf(document.activeElement), tip.hidden, tip.textContent]);
    const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    points[0].focus(); note();
    press("ArrowRight"); note();
    press("ArrowLeft"); press("ArrowLeft"); note();
    press("Escape"); note();
    return {steps, labels: [...points].map(p => p.ariaLabel), stops: [...points].map(p => p.tabIndex)};
    """
    found, said = ask_page(report, script, View())
    labels = found["labels"]
    assert said == []
    last = len(labels) - 1
    at = [(0, False), (1, False), (last, False), (last, True)]  # which one has the focus, whether the tip is hidden
    assert found["steps"] == [[number, hidden, labels[number]] for number, hidden in at]
    assert found["stops"] == [0] + [-1] * last


def test_a_pointer_over_a_point_shows_its_numbers_as_text(report):
    """A label with markup in it is text in the tip as well."""
    script = """
    const p = [...document.querySelectorAll(".p")].find(p => p.ariaLabel.includes("<script>"));
    p.dispatchEvent(new PointerEvent("pointerenter"));
    const tip = document.getElementById("tip");
    const shown = {hidden: tip.hidden, text: tip.textContent === p.ariaLabel, children: tip.children.length};
    p.dispatchEvent(new PointerEvent("pointerleave"));
    return {...shown, after: tip.hidden};
    """
    found, _ = ask_page(report, script, View())
    assert found == {"hidden": False, "text": True, "children": 0, "after": True}


def test_a_screenshot_shows_something_in_both_themes(report, tmp_path):
    for dark in (False, True):
        path = tmp_path / f"{dark}.png"
        assert take_screenshot(report, path, View(360, 700, dark)) == []
        bright = imread(path)[..., :3].mean(-1)
        assert bright.shape == (700, 360)
        assert (np.median(bright) < 0.25) == dark
        assert bright.std() > 0.08


def test_what_a_page_says_on_the_console_is_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><body><script>console.error('broken'); missing();</script></body>")
    found, said = ask_page(page, "return innerWidth;", View(360, 500))
    assert found == 360
    assert len(said) == 2
    assert "broken" in said[0]
    assert "missing is not defined" in said[1]
