"""``safekd init``, ``validate``, ``ensemble`` and ``list``: from own data to a run that can be started.

``_starting_app`` has the commands and their options, a file each what they do; ``_config_template`` the configuration
that ``init`` writes.
"""

from ._starting_app import add_starting_commands

__all__ = ["add_starting_commands"]
