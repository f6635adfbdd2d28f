"""Machine unlearning: problems, methods, metrics. Knows nothing of Ray, MLflow, Optuna or YAML.

The packages, each with a list of its modules:

* ``data``: data sets as arrays and tensors; ``models``: networks and their weights.
* ``methods``: one file per unlearning method; ``metrics``: everything that is measured, in NumPy alone.

The modules beside them, in this order:

* ``keys``: content keys and seeds derived by name; ``rng``: the same as torch generators; ``checks``: of numbers.
* ``forget``: forget requests, and which samples each selects; ``ranking``: those that a model has to decide.
* ``training``: the one supervised loop, with ``snapshot``, which saves where it is, and ``launch``, which records its steps;
  ``device``: where tensors live.
* ``problem``: data x model x recipe x forget request x seed; its split, its references, their content keys.
* ``split``: what a method is handed, with ``memo``, which keeps results that trials share; ``knobs``: typed hyperparameters; ``gradients``: of single samples.
* ``evaluate``: one pass of a model per set of samples, then arithmetic.
* ``record``: what a trial leaves behind, as one JSON line; ``selection``: which trial stands for a cell.
* ``vision``: the one place that imports torchvision.
* ``plugins``: methods and models of other packages, by entry points.
* ``unlearning``: ``unlearn`` and ``evaluate_unlearning`` for models and data of one's own; they are names of this package, too.

Importing this package imports nothing, and those two are imported when they are first used; ``keys``, ``record``, ``selection`` and the metrics need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mu.unlearning import evaluate_unlearning, unlearn

__all__ = ["evaluate_unlearning", "unlearn"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mu.unlearning"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
