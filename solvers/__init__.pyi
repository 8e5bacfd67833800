from .errors import InfeasiblePolytope as InfeasiblePolytope
from .errors import InvalidInput as InvalidInput
from .errors import SafekdError as SafekdError
from .errors import SolverFailure as SolverFailure
from .polytope import Conformance as Conformance
from .polytope import LinearRows as LinearRows
from .polytope import WeightPolytope as WeightPolytope
from .projection import project as project
