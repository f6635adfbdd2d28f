"""Networks: by name, from a user's own module, with weights from files, at the precision a study asks for.

``network`` resolves and builds a model and finds its parts (head, features). ``architectures`` holds the networks
that are known by name, ``own_models`` imports those that are not. ``checkpoints`` reads weights, ``precision`` sets dtypes.
"""

from mu.models.network import (
    BatchNorm,
    Model,
    ModelSpec,
    Normalization,
    Normalize,
    batch_norms,
    build,
    eval_mode,
    frozen_copy,
    head,
    logits_and_features,
    reinitialize,
    reinitialize_head,
    resolve,
)

__all__ = [
    "BatchNorm",
    "Model",
    "ModelSpec",
    "Normalization",
    "Normalize",
    "batch_norms",
    "build",
    "eval_mode",
    "frozen_copy",
    "head",
    "logits_and_features",
    "reinitialize",
    "reinitialize_head",
    "resolve",
]
