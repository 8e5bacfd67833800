"""Colors of pages: what is written or drawn stands out from the paper by 4.5 to 1 (WCAG 2 AA), light or dark."""

from __future__ import annotations

PALETTE = {
    "light": {
        "paper": "#ffffff",
        "card": "#ffffff",
        "ink": "#1d1d1f",
        "soft": "#5c5f66",
        "good": "#006b4e",
        "bad": "#a8320a",
        "grid": "#e3e5e8",
        "gap": "#e9eaec",
        "c0": "#0072b2",
        "c1": "#b34700",
        "c2": "#007a5a",
        "c3": "#a3457c",
        "c4": "#8a5a00",
        "c5": "#1f76a8",
        "c6": "#666666",
    },
    "dark": {
        "paper": "#15171a",
        "card": "#22252a",
        "ink": "#ececec",
        "soft": "#a9adb5",
        "good": "#2fc79b",
        "bad": "#ff8f4a",
        "grid": "#2c3036",
        "gap": "#2a2d33",
        "c0": "#56b4e9",
        "c1": "#ff8f4a",
        "c2": "#2fc79b",
        "c3": "#e59ac6",
        "c4": "#f0b840",
        "c5": "#8fd0f5",
        "c6": "#aaaaaa",
    },
}
"""By theme: grounds are paper and card, grid and gap lie behind what is drawn, all else is text or a series.

Series are Okabe and Ito's colors (2008), told apart by color-blind eyes too, darkened where paper is white.
"""


def format_palette() -> str:
    """Return the palette as CSS variables: dark where the reader has it so, light on paper."""
    light, dark = (";".join(f"--{name}:{color}" for name, color in PALETTE[theme].items()) for theme in PALETTE)
    return f":root{{color-scheme:light dark;{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
