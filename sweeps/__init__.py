"""Studies of unlearning methods: from a YAML file to records, on Ray.

* ``study``: the study file as validated dataclasses, by ``files`` (YAML) and ``fields``, put together from ``problems``
  (data, model, forget requests), ``tuned`` and ``space`` (methods and their search spaces), ``search``, ``experiments``
  (what follows the search), ``operation`` (how it is run), ``checkpoints`` (models it brings) and ``published``
  (printed tables). ``plan``: what will run; ``estimate``: for how long.
* ``trial``, ``memory``: one method run on one problem, without Ray. ``cells``: one Optuna study per cell, by ask and tell;
  ``optuna_storage``: a journal or a database that may be away.
* Ray is imported by ``cluster`` and ``loopback`` (where work runs, and who may reach it), ``training`` (references), ``tuner``
  (trials), ``notice`` (when they are saved) and ``jobs`` (a command on a cluster's head), MLflow by ``tracker`` alone, a
  process of its own that ``tracking`` feeds.
* ``store``: models by content key, and drafts of work that has begun; ``results``: the records of a study; ``costs``: what
  they cost, and budgets; ``credentials``: passwords are shown nowhere.
* ``progress``: the live view; ``status``: the same from the records; ``notify``: who is told at the end.
* ``run``: the flow of a study through its phases, with ``references``, ``splits`` (what ranked requests select) and ``audit``.
  ``__main__``: the command line; ``submit``: the same on a cluster's head; ``catalogue`` and ``manual``: pages
  of ``docs/``.
"""

import os

# Tune reads these when it is imported or started: no files per trial, no Ctrl-C handler of its own, no
# change of the working directory, and no rewriting of an experiment state that is never restored. How many
# trials wait is decided by the slots there are, not by Tune. A trial whose node was taken away is lost as any other,
# and started again by ``job_searcher``, which knows where it was left; Tune would start it from the beginning.
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
