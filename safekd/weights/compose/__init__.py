"""From scores to conforming weights: normalize, compose, project; and follow them over time.

``Normalized`` divides a rule's scores by their sum; ``Conforming`` projects them as well; ``Unified`` multiplies three
scales before it projects (Definition IV.1); ``Tracking`` moves a share of the way each batch.  ``bound_product`` says
what bounds of the parts promise of a product; ``family_a`` to ``family_c`` are those of Theorem V.2.
"""

from ._conforming import Conforming, Normalized
from ._paper_families import family_a, family_b, family_c
from ._product_bounds import Bounds, bound_product
from ._unified import Repair, Unified
from ._weight_tracking import DriftReport, Tracking

__all__ = [
    "Bounds",
    "Conforming",
    "DriftReport",
    "Normalized",
    "Repair",
    "Tracking",
    "Unified",
    "bound_product",
    "family_a",
    "family_b",
    "family_c",
]
