"""PostgreSQL for Optuna and MLflow, S3 for models, by configuration only, against real servers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from servers import Postgres, mlflow_server
from test_tracker import record, runs

from sweeps.store import Store
from sweeps.tracker import KEY, Tracker


def test_models_on_s3_come_back_whole_or_not_at_all(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    store = Store("s3://musweep/models")
    store.check()
    key, arrays = "ab" * 16, {"weight": np.arange(6.0).reshape(2, 3), "steps": np.array(7)}
    assert store.get(key) is None
    store.put(key, arrays)
    found = store.get(key)
    assert found is not None
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    whole = store.files.cat_file(store._path(key))
    for damaged in (whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        store.files.pipe_file(store._path(key), damaged)
        assert store.get(key) is None
    store.put(key, arrays)
    assert store.get(key) is not None


@pytest.mark.slow
def test_an_mlflow_server_over_postgresql_takes_records(postgres: Postgres, tmp_path: Path) -> None:
    with mlflow_server(postgres.create("mlflow_records"), tmp_path) as address:
        tracker = Tracker(address, "far")
        tracker.start()
        for key in "ab":
            tracker.put(record(key))
        assert tracker.close() == 0
        again = Tracker(address, "far")
        assert again.sync([record(key) for key in "abc"]) == 1
        assert sorted(run.data.tags.get(KEY, "") for run in runs(again)) == ["", "a", "b", "c"]
