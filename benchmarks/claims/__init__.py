"""Each claim of the papers behind the project, run: which hold, under which condition, and what breaks the others.

``_convergence``, ``_perturbation``, ``_composition``, ``_safety_claims``, ``_appendix`` and ``_gradient_schemes`` are
of arXiv 2601.17910, ``siblings`` of the papers beside it. Each experiment is a function that returns a ``Claim``,
whose verdict is computed from its numbers; tests call the same functions in a small form.
"""
