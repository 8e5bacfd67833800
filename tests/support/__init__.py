"""What tests share: problems with answers that are known, teachers and students, and the repository's root."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
