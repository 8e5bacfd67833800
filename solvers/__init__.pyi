from .errors import InfeasiblePolytope as InfeasiblePolytope
from .errors import InvalidInput as InvalidInput
from .errors import SafekdError as SafekdError
from .errors import SolverFailure as SolverFailure
