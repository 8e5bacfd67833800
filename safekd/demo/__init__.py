"""The embedded example: four biased teachers of breast-cancer diagnosis, one student that must not miss cancers.

    run_demo("runs/demo")            # compares four ways of training, traces the frontier, writes everything
    run_seeds(range(10))             # how often the promise held, seed by seed

``breast_cancer.toml`` is the experiment, ``_run_demo`` and ``_run_seeds`` are these two.
"""

from ._run_demo import DemoOutcome, build_variants, load_demo_config, run_demo
from ._run_seeds import SEED_COLUMNS, run_seeds

__all__ = ["SEED_COLUMNS", "DemoOutcome", "build_variants", "load_demo_config", "run_demo", "run_seeds"]
