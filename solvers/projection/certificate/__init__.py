"""Proof that given weights are the projection, whoever computed them.

``_scaled_rules`` brings a polytope's rules to one scale.  ``_multiplier_recovery`` fits multipliers to the rules that
are tight, ``_kkt_residuals`` works out the four residuals and the bound on the distance, and
``_projection_certificate`` names the worst row of each.
"""

from ._projection_certificate import ProjectionCertificate, certify_projection

__all__ = ["ProjectionCertificate", "certify_projection"]
