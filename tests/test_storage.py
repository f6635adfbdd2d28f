"""PostgreSQL for Optuna and MLflow, S3 for models, by configuration only, against real servers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import LOOPBACK, Postgres, free_port, mlflow_server
from test_cells import make
from test_tracker import record, runs

from sweeps import optuna_storage
from sweeps.cells import Cells
from sweeps.files import StudyError, SweepError
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


def asked(folder: Path, location: str, during: Any = lambda number: None) -> list[Any]:
    """Run the whole search of the tiny study over one Optuna storage; what was asked, in order."""
    folder.mkdir()
    driver = make(folder, search__sampler="tpe", search__trials=6)
    cells = Cells(driver.plan, location, [])
    jobs = []
    while (job := cells.next()) is not None:
        during(len(jobs))
        jobs.append(job)
        driver.finish(cells, job)
    again = Cells(driver.plan, location, driver.records)
    assert again.remaining() == 0
    return [(job.forget, job.method, job.number, dict(job.knobs)) for job in jobs]


@pytest.mark.slow
def test_a_search_over_postgresql_asks_what_a_journal_would_even_if_it_goes_away(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_storage, "PAUSE_SECONDS", 0.05)

    def disturb(number: int) -> None:
        if number in (5, 11):  # a restart: connections in the pool are dead
            postgres.stop()
            postgres.start()
        if number in (8, 15):  # away: nothing listens for a while
            postgres.stop()
            threading.Timer(1.5, postgres.start).start()

    undisturbed = asked(tmp_path / "journal", str(tmp_path / "optuna.journal"))
    assert asked(tmp_path / "database", postgres.create("search"), disturb) == undisturbed


@pytest.mark.slow
def test_a_database_that_stays_away_ends_the_wait(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = optuna_storage.open_storage(postgres.create("gone"))
    monkeypatch.setattr(optuna_storage, "OUTAGE_SECONDS", 0.3)
    monkeypatch.setattr(optuna_storage, "PAUSE_SECONDS", 0.1)
    postgres.stop()
    with pytest.raises(SweepError, match=r"stays away: .*refused"):
        storage.get_all_studies()
    postgres.start()
    assert storage.get_all_studies() == []


@pytest.mark.parametrize(
    "location",
    [
        "postgresql://me:hush-hush@{here}/db",
        "postgresql+psycopg://me:hush%2Dhush@{here}/db?application_name=x",
        "postgresql://me@{here}/db?password=hush-hush",
        "nosuchdatabase://me:hush-hush@{here}/db",
        "{folder}/not/there/optuna.journal",
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_clear_error(location: str, tmp_path: Path) -> None:
    location = location.format(here=f"{LOOPBACK}:{free_port()}", folder=tmp_path)
    with pytest.raises(StudyError, match=r"--optuna-storage .*: cannot be opened: ") as caught:
        optuna_storage.open_storage(location)
    assert "hush" not in str(caught.value)
