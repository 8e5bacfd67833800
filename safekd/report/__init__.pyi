from ._projection_table import projection_summary as projection_summary
from ._run_tables import comparison_table as comparison_table
from ._run_tables import fit_summary as fit_summary
from ._run_tables import frontier_table as frontier_table
from ._run_tables import orderings_table as orderings_table
from ._run_tables import seeds_table as seeds_table
from ._run_tables import teachers_table as teachers_table
from ._tightening_table import tightening_table as tightening_table
