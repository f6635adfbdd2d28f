"""Studies of unlearning methods: from a YAML file to records, on Ray.

* ``errors``, ``phases``: the two errors users see, and the one table of phases.
* ``study``: the study file, validated; ``preflight`` checks it against its data; ``plan`` lists what will run.
* ``search``: Optuna; ``workers``: Ray; ``tracking``: MLflow, progress and status; ``state``: what is on disk.
* ``flow``: takes a study through its phases; ``launch``: a run from its file to its report; ``estimate`` says for how long.
* ``unlearned``: models that a study kept, as files and networks, and one method without a study.
* ``api``: ``load_study``, ``run`` and ``Result``, for Python. They are names of this package, imported when first used.
* ``commands``: the arguments of each command, and what it calls; ``__main__``: the command line; ``submit``: the same on a
  cluster's head.

``docs/architecture.md`` has the layers and the words.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.api import Result, load_study, run
    from sweeps.launch import Options

_PLACES = {
    "Options": "sweeps.launch",
    "Result": "sweeps.api",
    "load_study": "sweeps.api",
    "run": "sweeps.api",
}
__all__ = ["Options", "Result", "load_study", "run"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Tune reads these when it is imported or started: no files per trial, no Ctrl-C handler of its own, no
# change of the working directory, and no rewriting of an experiment state that is never restored. How many
# trials wait is decided by the slots there are, not by Tune. A trial whose node was taken away counts as lost:
# ``workers`` starts it again from its checkpoint, whereas Tune would start it from the beginning.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "60")
os.environ.setdefault("RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE", "1")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(10**6))
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
