"""Early stopping by successive halving: trials that are behind others of their cell end early."""

from __future__ import annotations

import optuna


def make_pruner() -> optuna.pruners.BasePruner:
    """Make the pruner of a cell's study; it keeps the best third at each rung."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def is_behind(study: optuna.Study, number: int, epoch: int, value: float) -> bool:
    """Report a running trial's objective after an epoch; return whether it should end."""
    identifier = study.get_trials(deepcopy=False)[number]._trial_id
    trial = optuna.trial.Trial(study, identifier)
    trial.report(value, epoch)
    return trial.should_prune()
