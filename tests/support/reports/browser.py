"""A headless Chromium, where one is installed: pages as they look, what they say on the console, what scripts find."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_CONSOLE = re.compile(r":(?:INFO|WARNING|ERROR):CONSOLE[^\]]*\] (.*)")
_SECONDS = 120
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><style>:root,iframe{{color-scheme:light dark;border:0}}</style><body>
<script>addEventListener("message", e => {{document.body.dataset.answer = e.data}});</script>
<iframe src="page.html" width="{width}" height="{height}"></iframe></body>"""


@dataclass(frozen=True)
class View:
    """How a page is looked at.

    Attributes:
        width: Of the window.
        height: Of the window.
        dark: Whether the reader prefers dark pages.
        scale: Dots of the screen for a pixel of the page.
    """

    width: int = 1200
    height: int = 1000
    dark: bool = False
    scale: float = 1.0


def find_browser() -> str | None:
    """Return the browser, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def take_screenshot(page: Path, picture: Path, view: View) -> list[str]:
    """Write what a page looks like as PNG; return what it said on the console."""
    return _run_browser(page, view, f"--screenshot={picture}")[1]


def ask_page(page: Path, script: str, view: View) -> tuple[Any, list[str]]:
    """Return what a script finds in a page, as JSON has it, and what the page said on the console.

    The script is the body of a function; it runs after those of the page.  The page stands in a frame of the view's
    width: a window is never narrower than 500 pixels.
    """
    answer = f"(() => {{{script}}})()"
    tag = f"<script>parent.postMessage(JSON.stringify({answer}), '*');</script></body>"
    with tempfile.TemporaryDirectory() as folder:
        asked, frame = Path(folder) / "page.html", Path(folder) / "frame.html"
        asked.write_text(page.read_text(encoding="utf-8").replace("</body>", tag), encoding="utf-8")
        frame.write_text(_FRAME.format(width=view.width, height=view.height), encoding="utf-8")
        dom, said = _run_browser(frame, view, "--dump-dom")
    found = re.search(r'data-answer="([^"]*)"', dom)
    assert found is not None, "the script did not run to its end"
    return json.loads(html.unescape(found[1])), said


def _run_browser(page: Path, view: View, *what: str) -> tuple[str, list[str]]:
    browser = find_browser()
    assert browser is not None
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                browser,
                "--headless=new",
                "--no-sandbox",  # which a container lacks
                "--disable-gpu",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                "--virtual-time-budget=2000",
                f"--user-data-dir={profile}",
                f"--window-size={view.width},{view.height}",
                f"--force-device-scale-factor={view.scale}",
                f"--blink-settings=preferredColorScheme={0 if view.dark else 1}",
                *(["--force-dark-mode"] if view.dark else []),
                *what,
                page.absolute().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    return done.stdout, _CONSOLE.findall(done.stderr)
