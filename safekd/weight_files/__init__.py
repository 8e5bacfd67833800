"""Weights in files, CSV or Parquet, of any size in constant memory: made conforming, or judged.

    done = project_file("weights.csv", "conforming.csv", {"lower": 0.05, "order": ["expert>=fast"]})
    done.rows, done.moved                              # how many rows there were, how many of them moved
    report = audit_file("conforming.csv", "rules.toml")     # an AuditReport: report.holds(), report.to_json(...)

``_file_rules`` ties a rule set to the columns of a file; ``_project_file`` and ``_audit_file`` go through it block by
block; ``_projection_summary`` counts what moved.  ``safekd.experiment.config.RulesConfig`` lists the rules.  ``safekd
project`` and ``safekd audit`` are these two in the shell.

Names are imported when first used: projecting needs nothing of what the audit needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
