"""Models that a study kept, as networks again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from mu import methods, models
from mu.models import checkpoints
from mu.models.precision import at_precision
from sweeps.errors import StudyError
from sweeps.study.parts import model_of
from sweeps.unlearned.export import Unlearned


def rebuilt(unlearned: Unlearned, folders: Sequence[Path] = ()) -> nn.Sequential:
    """Return a kept model in eval mode, at the precision of its study.

    Args:
        folders: Where else its method is looked for, which may have changed layers of the network.

    Raises:
        StudyError: The network or the method cannot be loaded here.
    """
    study, record, kept = unlearned.study, unlearned.record, unlearned.model
    spec = model_of(study.definition["model"], study.name)
    try:
        method = methods.load(record.alias_of or record.method, folders)
        network = models.resolve(replace(spec, weights=None))
        model = models.build(network, kept.shape, kept.classes, kept.mean, kept.std, seed=0)
        state = checkpoints.from_arrays(kept.weights)
        if method.restore is not None:
            method.restore(model[-1], state)
        else:
            name = f"{record.method} on {record.forget}, seed {record.seed}"
            model[-1].load_state_dict(checkpoints.fit(state, model[-1], name))
    except ValueError as error:
        raise StudyError(f"{study.name}: {error}") from error
    return at_precision(model, study.definition["training"].get("precision", "float32")).eval()
