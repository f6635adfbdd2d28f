"""Machine unlearning: problems, methods, metrics. Knows nothing of Ray, MLflow, Optuna or YAML.

Read in this order:

* ``keys``: content keys and seeds derived by name; ``rng``: the same as torch generators.
* ``data``: data sets as arrays, and ``Examples`` as tensors on a device; ``augment``: batched augmentation.
  ``datasets``: every data set by name, read by ``torchvision_sets``, ``image_sets`` (with ``images``, which decodes)
  and ``text_sets`` from what ``dataspec`` says; ``sampling``: stratified choices; ``positions``: files of samples.
* ``forget``: forget requests, and which samples each selects; ``ranking``: those that a model has to decide.
* ``models``, ``training``: networks, and the one supervised loop.
* ``problem``: data x model x recipe x forget request x seed; its split, its references, their content keys.
* ``split``: what a method is handed; ``methods``: one file per unlearning method, found by file name;
  ``knobs``: their typed hyperparameters; ``gradients``: of single samples, for methods that need them.
* ``vocabulary``: every recorded metric; ``metrics``, ``attacks`` (with ``logistic``), ``closeness``, ``audits``:
  pure numpy; ``evaluate``: one pass per split, then arithmetic.
* ``record``: what a trial leaves behind, as one JSON line; ``selection``: which trial stands for a cell.

Importing this package imports nothing; ``keys``, ``record``, ``selection`` and the metrics need no torch.
"""
