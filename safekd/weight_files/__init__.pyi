from ._audit import audit_file as audit_file
from ._project import project_file as project_file
from ._rules import FileRules as FileRules
from ._rules import bind as bind
from ._summary import Projected as Projected
