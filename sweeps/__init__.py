"""Studies of unlearning methods: from a YAML file to records, on Ray.

* ``study``, ``space``: the study file and search spaces as validated dataclasses; ``plan``: what will run.
* ``trial``: one method run on one problem, without Ray. ``cells``: one Optuna study per cell, by ask and tell.
* ``tuner``: the only module that imports Ray; ``tracker``: the only one that imports MLflow.
* ``store``: models by content key; ``results``: the records of a study; ``progress``: the live view.
* ``run``: the flow of a study through its phases; ``__main__``: the command line.
"""
