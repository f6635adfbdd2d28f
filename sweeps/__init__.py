"""Studies of unlearning methods: from a YAML file to records, on Ray.

* ``study``: the study file as validated dataclasses, by ``files`` (YAML) and ``fields``, put together from ``problems``
  (data, model, forget requests), ``tuned`` and ``space`` (methods and their search spaces), ``search``, ``experiments``
  (what follows the search), ``operation`` (how it is run), ``checkpoints`` (models it brings) and ``published``
  (printed tables). ``plan``: what will run.
* ``trial``, ``memory``: one method run on one problem, without Ray. ``cells``: one Optuna study per cell, by ask and tell.
* ``cluster``, ``training``, ``tuner``: the modules that import Ray, for the cluster and its slots, trainings of
  references, and trials, beside ``loopback`` (where it listens) and ``jobs`` (a command on a cluster's head);
  ``tracking``: the driver's side of MLflow; ``tracker``: a process of its own, the only module that imports MLflow.
* ``optuna_storage``: a journal or a database that may be away; ``credentials``: passwords are shown nowhere.
* ``store``: models by content key, and drafts of work that has begun; ``results``: the records of a study; ``costs``: what they cost, and budgets.
* ``progress``: the live view; ``status``: the same from the records; ``notify``: who is told at the end.
* ``run``, ``references``: the flow of a study through its phases; ``__main__``: the command line.
"""

import os

# Tune reads these when it is imported or started: no files per trial, no Ctrl-C handler of its own, no
# change of the working directory, and no rewriting of an experiment state that is never restored. How many
# trials wait is decided by the slots there are, not by Tune.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "60")
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(10**6))
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
