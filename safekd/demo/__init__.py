"""The embedded example: four biased teachers of breast-cancer diagnosis, one student that must not miss cancers.

run_demo("runs/demo")            # compares four ways of training, traces the frontier, writes everything
run_seeds(range(10))             # how often the promise held, seed by seed
"""

from ._run_demo import DemoOutcome, demo_config, four_variants, run_demo
from ._run_seeds import SEED_COLUMNS, run_seeds

__all__ = ["SEED_COLUMNS", "DemoOutcome", "demo_config", "four_variants", "run_demo", "run_seeds"]
