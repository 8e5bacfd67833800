from ._projection_table import tabulate_projection as tabulate_projection
from ._run_tables import tabulate_fit as tabulate_fit
from ._run_tables import tabulate_frontier as tabulate_frontier
from ._run_tables import tabulate_orderings as tabulate_orderings
from ._run_tables import tabulate_seeds as tabulate_seeds
from ._run_tables import tabulate_teachers as tabulate_teachers
from ._run_tables import tabulate_variants as tabulate_variants
from ._tightening_table import tabulate_tightening as tabulate_tightening
