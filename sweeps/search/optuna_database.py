"""A database as Optuna's storage that may be away for a while. Only studies on one pay for the import of SQLAlchemy."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy.exc import InterfaceError, OperationalError

from sweeps.errors import SweepError
from sweeps.state.credentials import hide

logger = logging.getLogger(__name__)
OUTAGE_SECONDS = 1800.0
"""How long a running sweep waits for its database before it ends. The driver does nothing else meanwhile, so that trials
which run stop at their next report."""
PAUSE_SECONDS = 1.0
CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""For libpq: a host that is gone is noticed in a minute instead of the system's quarter of an hour."""

TRANSACTIONS = {
    "create_new_study",
    "create_new_trial",
    "get_all_studies",
    "get_all_trials",
    "get_best_trial",
    "get_best_trial_id",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trials",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
}
"""Optuna's methods of one transaction each, some with an underscore in front: these can be tried again."""


class RetryingStorage(RDBStorage):
    """A database that is asked again until it answers. Each method of Optuna's is one transaction.

    Raises (every method):
        SweepError: It did not answer for OUTAGE_SECONDS.

    When a commit succeeds but its answer is lost, a trial may be asked twice; the number that was lost is run
    by the next start of the study.
    """


def _patiently(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: RetryingStorage, *arguments: Any, **named: Any) -> Any:
        began, tried = time.monotonic(), 0
        while True:
            try:
                return method(self, *arguments, **named)
            except UpdateFinishedTrialError:
                if not tried:
                    raise
                return True  # the attempt before this one arrived after all
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                away = isinstance(cause, (OperationalError, InterfaceError))
                if not away:
                    raise
                reason = hide(str(cause).strip().splitlines()[0])
                if time.monotonic() - began > OUTAGE_SECONDS:
                    raise SweepError(f"Optuna's database stays away: {reason}") from error
                if not tried:
                    logger.warning("Optuna's database is away, the study waits: %s", reason)
                tried += 1
                time.sleep(PAUSE_SECONDS)

    return call


for _name, _method in vars(RDBStorage).items():
    if _name.lstrip("_") in TRANSACTIONS:
        setattr(RetryingStorage, _name, _patiently(_method))
