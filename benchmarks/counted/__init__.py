"""Are constraints on what is counted met, and do they leave a student alone that meets them by itself?

``_cells`` names what is compared, ``_runs`` trains the students of one cell, ``__main__`` runs all and reports.
"""
