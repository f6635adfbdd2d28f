"""PostgreSQL for Optuna and MLflow, S3 for models, by configuration only, against real servers."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
from botocore.exceptions import EndpointConnectionError
from lose_nodes import wait_for
from servers import LOOPBACK, Postgres, free_port, mlflow_server

from mu.record import read as read_records
from sweeps.__main__ import main
from sweeps.errors import StudyError, SweepError
from sweeps.search import optuna_database, optuna_storage
from sweeps.search.cells import Cells
from sweeps.state import credentials
from sweeps.state.credentials import HIDDEN, hide
from sweeps.state.store import Store
from sweeps.tracking.mlflow_runs import KEY, Tracker
from tests.sweeps.search.test_cells import make
from tests.sweeps.tracking.test_mlflow import keys, record, runs


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


def test_a_store_that_goes_away_is_an_os_error_whatever_its_protocol_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store("memory://models")

    def away(*_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://gone")

    for name in ("cat_file", "pipe_file"):
        monkeypatch.setattr(store.files, name, away)
    with pytest.raises(OSError, match="memory://models: Could not connect"):
        store.get("ab" * 16)
    with pytest.raises(OSError, match="memory://models: Could not connect"):
        store.put("ab" * 16, {"weight": np.zeros(1)})


@pytest.mark.slow
@pytest.mark.fault
def test_an_mlflow_server_over_postgresql_takes_records(postgres: Postgres, tmp_path: Path) -> None:
    with mlflow_server(postgres.create("mlflow_records"), tmp_path) as address:
        tracker = Tracker(address, ("far", "id"))
        for key in "ab":
            tracker.send(record(key))
        tracker.close()
        again = Tracker(address, ("far", "id"))
        assert again.sync([record(key) for key in "abc"]) == 1
        assert keys(again) == ["a", "b", "c"]


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
@pytest.mark.fault
def test_a_search_over_postgresql_asks_what_a_journal_would_even_if_it_goes_away(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_database, "PAUSE_SECONDS", 0.05)

    def disturb(number: int) -> None:
        if number in (5, 11):  # a restart: connections in the pool are dead
            postgres.stop()
            postgres.start()
        if number in (8, 15):  # away: nothing listens for a while
            postgres.stop()
            threading.Timer(1.5, postgres.start).start()

    undisturbed = asked(tmp_path / "journal", str(tmp_path / "optuna.journal"))
    assert asked(tmp_path / "database", postgres.create("search"), disturb) == undisturbed


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.fault
def test_a_sweep_waits_for_a_database_that_does_not_answer_for_20_seconds(
    finished: Path, postgres: Postgres, tmp_path: Path
) -> None:
    studies.write(tmp_path, studies.tiny())
    trials = tmp_path / "results/tiny/trials.jsonl"
    options = ["--optuna-storage", postgres.create("held")]

    def searched() -> int:
        return trials.read_text().count('"phase":"search"') if trials.exists() else 0

    driver = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "run", "study.yaml", *options],
        cwd=tmp_path, env=studies.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wait_for(lambda: searched() >= 3, driver)
    with postgres.held():
        time.sleep(20)
        waited = searched()
    said, _ = driver.communicate(timeout=studies.LIMIT_SECONDS)
    assert driver.returncode == 0, said
    assert waited < studies.TINY_COUNTS["search"], (
        "the search had ended before the database was back"
    )
    assert "Traceback" not in said
    lines = trials.read_text().splitlines()
    found = studies.records(trials.parent)
    assert len(lines) == 1 + len(found)
    assert studies.numbers(found) == studies.numbers(studies.records(finished / "results/tiny"))
    for cell in itertools.product(("some", "three"), ("finetune", "jit")):
        told = studies.searched(options[1], *cell)
        assert [trial.state.name for trial in told.trials] == ["COMPLETE"] * 3


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_two_folders_of_one_name_live_side_by_side(postgres: Postgres, tmp_path: Path) -> None:
    """On one PostgreSQL and one MLflow server: neither inherits or deletes what is the other's."""
    wide = studies.tiny(
        forget={"some": {"kind": "random", "fraction": 0.1}},
        methods=[studies.JIT],
        experiments={"defaults": False},
        metrics={"costly": []},
        seeds__report=[1],
        seeds__retrain=1,
    )
    narrow = {
        **wide,
        "methods": [{**studies.JIT, "space": {"lr_per_sigma": {"low": 1e-6, "high": 2e-6}}}],
    }
    servers = tmp_path / "servers"
    servers.mkdir()
    with mlflow_server(postgres.create("mlflow_two"), servers) as address:
        places = ["--tracking-uri", address, "--optuna-storage", postgres.create("optuna_two")]
        for name, raw in (("a", wide), ("b", narrow)):
            (tmp_path / name).mkdir()
            studies.write(tmp_path / name, raw)
            models = ["--storage", str(tmp_path / "models")]
            done = studies.here(tmp_path / name, "run", "study.yaml", *models, *places)
            assert done.returncode == 0, done.stderr
        found = {name: studies.records(tmp_path / name / "results/tiny") for name in "ab"}
        for name in "aba":
            folder = str(tmp_path / name / "results/tiny")
            synced = studies.here(tmp_path, "sync", folder, "--tracking-uri", address)
            assert f"sent 0 of {len(found[name])}" in synced.stdout
        listed = runs(Tracker(address, ("tiny", "")))
        keys = [run.data.tags[KEY] for run in listed if KEY in run.data.tags]
    assert sorted(keys) == sorted([*found["a"], *found["b"]])
    searched = {name: [r for r in found[name].values() if r.phase == "search"] for name in "ab"}
    assert [len(each) for each in searched.values()] == [3, 3]
    assert all(1e-6 <= r.knobs["lr_per_sigma"] <= 2e-6 for r in searched["b"])


@pytest.mark.slow
@pytest.mark.fault
def test_a_database_that_stays_away_ends_the_wait(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = optuna_storage.open_storage(postgres.create("gone"))
    monkeypatch.setattr(optuna_database, "OUTAGE_SECONDS", 0.3)
    monkeypatch.setattr(optuna_database, "PAUSE_SECONDS", 0.1)
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


SECRET = "hush-1f9a3c"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("--optuna-storage", "postgresql://me:{secret}@{here}/db"),
        ("--tracking-uri", "postgresql://me:{secret}@{here}/db"),
        ("--tracking-uri", "http://me:{secret}@{here}"),
        ("--storage", "ftp://me:{secret}@{here}/models"),
        ("--storage", "nosuchprotocol://me:{secret}@{here}/models"),
    ],
)
def test_a_server_that_does_not_answer_is_named_without_its_password(
    option: str,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    path = str(studies.write(tmp_path, studies.tiny()))
    given = url.format(secret=SECRET, here=f"{LOOPBACK}:{free_port()}")
    assert main(["run", path, option, given]) == 2
    shown = capsys.readouterr()
    assert option in shown.err
    assert f"://me:{HIDDEN}@{LOOPBACK}" in shown.err
    assert "Traceback" not in shown.err
    assert SECRET not in shown.err + shown.out + written(tmp_path)


def written(folder: Path) -> str:
    """Everything below a folder, files' names included."""
    return "".join(
        f"{path}\n{path.read_bytes().decode(errors='replace')}"
        for path in folder.rglob("*")
        if path.is_file()
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("to http://me:p%40w:x@host/api failed", "to http://me:***@host/api failed"),
        ("postgresql://me:p/w@d@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?password=pw&x=1", "postgresql://host/db?password=***&x=1"),
        ("https://host/hook?id=1&auth_token=pw", "https://host/hook?id=1&auth_token=***"),
        ("http://host:5000/a@b s3://bucket/key", "http://host:5000/a@b s3://bucket/key"),
        ("sqlite:////home/me/mlflow.db, me@host", "sqlite:////home/me/mlflow.db, me@host"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert hide(text) == shown


def test_a_secret_that_was_given_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credentials, "_known", set())
    monkeypatch.setenv("PGPASSWORD", "of the environment")
    credentials.remember("postgresql://me:a%20long%20one@host/db", None)
    text = "no entry for 'a long one' (a%20long%20one), nor for 'of the environment'"
    assert hide(text) == "no entry for '***' (***), nor for '***'"


@pytest.mark.slow
@pytest.mark.fault
def test_a_study_over_all_three_leaves_no_password_behind(
    postgres: Postgres, s3: dict[str, str], tmp_path: Path
) -> None:
    """PostgreSQL under Optuna and under MLflow's server, models on S3, and a secret in every one of them."""
    studies.write(
        tmp_path,
        studies.tiny(
            methods=[studies.JIT],
            experiments={"defaults": False},
            search__trials=2,
            seeds__report=[1],
            seeds__retrain=1,
        ),
    )
    secrets = [SECRET, postgres.password, s3["AWS_SECRET_ACCESS_KEY"]]
    servers = tmp_path / "servers"
    servers.mkdir()
    with mlflow_server(postgres.create("mlflow_study"), servers) as address:
        optuna_url = postgres.create("optuna_study")
        tracking = address.replace("http://", f"http://me:{SECRET}@")
        environment = {**s3, "MUSWEEP_OPTUNA_STORAGE": optuna_url, "MLFLOW_TRACKING_URI": tracking}
        hook = f"http://me:{SECRET}@{LOOPBACK}:{free_port()}/{SECRET}?token={SECRET}"
        options = ["--storage", "s3://musweep/study", "-o", f"notify={hook}"]
        done = studies.musweep(tmp_path, "run", "study.yaml", *options, environment=environment)
        assert done.returncode == 0, done.stderr
        again = studies.musweep(tmp_path, "run", "study.yaml", *options, environment=environment)
        assert "nothing to do" in again.stdout
        synced = studies.musweep(tmp_path, "sync", "results/tiny", environment=environment)
        assert "sent 0 of" in synced.stdout
        line, found = read_records(tmp_path / "results/tiny/trials.jsonl")
        listed = Tracker(tracking, ("tiny", line["uuid"]))
        keys = sorted(run.data.tags[KEY] for run in runs(listed) if KEY in run.data.tags)
    assert keys == sorted(trial.key for trial in found)
    told = studies.searched(optuna_url, "some", "jit")
    assert [trial.state.name for trial in told.trials] == ["COMPLETE"] * 2
    assert not list(tmp_path.glob("results/**/optuna.journal"))
    assert not list(tmp_path.glob("**/mlflow.db"))
    assert not (tmp_path / "storage").exists()
    shown = "".join(run.stdout + run.stderr for run in (done, again, synced))
    dumped = "".join(postgres.dump(name) for name in ("mlflow_study", "optuna_study"))
    assert "acc_forget" in dumped
    assert "notify" in shown  # nobody was there to be told
    assert "View run" not in shown  # MLflow's own two lines for each trial
    for secret in secrets:
        assert secret not in shown
        assert secret not in written(tmp_path)
        assert secret not in dumped
