"""Results as tables for people: what was compared, what was asked, what was found.

Names are imported when first used: the table of a projected file needs nothing of what experiments need.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
