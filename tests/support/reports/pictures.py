"""Screenshots of a report: phone and desktop, light and dark.

    safekd demo --run-dir runs/demo
    safekd report runs/demo
    python -m tests.support.reports.pictures runs/demo/report.html docs/images

They are written as report-desktop-light.png and so on, and are to be looked at.  A Chromium must be installed
(``apt-get install chromium``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from .browser import View, find_browser, take_screenshot

_DEVICES = {"desktop": (1120, 1250, 0.7), "phone": (360, 1400, 1.0)}  # the desktop from afar: more of the page
VIEWS = {
    f"report-{device}-{'dark' if dark else 'light'}": View(width, height, dark, scale)
    for device, (width, height, scale) in _DEVICES.items()
    for dark in (False, True)
}


def draw_pictures(page: Path, folder: Path) -> list[Path]:
    """Write the four pictures; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, view in VIEWS.items():
        path = folder / f"{name}.png"
        said = take_screenshot(page, path, view)
        assert said == [], f"the page said on the console: {said}"
        written.append(path)
    return written


if __name__ == "__main__":
    if find_browser() is None:
        sys.exit("No Chromium is installed.")
    for path in draw_pictures(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path, path.stat().st_size)
