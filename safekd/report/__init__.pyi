from ._files import projection_summary as projection_summary
from ._rounds import rounds_table as rounds_table
from ._tables import comparison as comparison
from ._tables import fit_summary as fit_summary
from ._tables import frontier_table as frontier_table
from ._tables import orderings_table as orderings_table
from ._tables import seeds_table as seeds_table
from ._tables import teachers_table as teachers_table
