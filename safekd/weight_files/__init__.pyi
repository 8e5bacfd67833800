from ._audit_file import audit_file as audit_file
from ._file_rules import FileRules as FileRules
from ._file_rules import bind_rules as bind_rules
from ._project_file import project_file as project_file
from ._projection_summary import ProjectionSummary as ProjectionSummary
