"""No DAG: while a ``shops/*.yml`` cannot be read, this file is an import error, whose banner in Airflow says why.

The DAGs of the other shops are in a file of their own and go on running.
"""

from __future__ import annotations

from adloom.errors import UsageError
from adloom.orchestration import shops

_, broken = shops()
if broken:
    raise UsageError("; ".join(error.message for error in broken.values()), "mend these files")
