"""musweep dashboard: Optuna's dashboard over a journal that it cannot change."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import optuna
import pytest
import studies

from sweeps.errors import StudyError
from sweeps.search.dashboard import open_for_reading
from sweeps.search.optuna_storage import open_storage


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "study" / "optuna.journal"
    path.parent.mkdir()
    known = optuna.create_study(storage=open_storage(str(path)), study_name="tiny/some/jit")
    known.add_trial(optuna.trial.create_trial(value=0.5))
    return path


def test_a_journal_is_read_while_it_grows_and_takes_nothing(journal: Path) -> None:
    storage = open_for_reading(str(journal))
    read = optuna.load_study(study_name="tiny/some/jit", storage=storage)
    assert [trial.value for trial in read.trials] == [0.5]
    running = optuna.load_study(study_name="tiny/some/jit", storage=open_storage(str(journal)))
    running.add_trial(optuna.trial.create_trial(value=0.4))
    assert [trial.value for trial in read.trials] == [0.5, 0.4]
    before = journal.read_bytes()
    with pytest.raises(PermissionError, match="changes nothing"):
        optuna.delete_study(study_name="tiny/some/jit", storage=storage)
    assert journal.read_bytes() == before


def test_the_command_serves_the_journal_of_a_study(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="needs musweep[dashboard]")
    served: list[Any] = []

    def serve(storage: Any, **where: Any) -> None:
        served.append((optuna.get_all_study_names(storage), where))

    monkeypatch.setattr(dashboard, "run_server", serve)
    done = studies.here(journal.parent.parent, "dashboard", "study", "--port", "8123")
    assert done.returncode == 0, done.stderr
    assert served == [(["tiny/some/jit"], {"host": "127.0.0.1", "port": 8123})]
    assert "http://127.0.0.1:8123" in done.stdout


def test_what_is_missing_is_named(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r"there is no such journal; give --optuna-storage"):
        open_for_reading(str(journal.with_name("other")))
    ordinary = builtins.__import__

    def missing(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "optuna_dashboard":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return ordinary(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    done = studies.here(journal.parent.parent, "dashboard", "study")
    assert done.returncode == 2
    assert "optuna_dashboard is not installed; pip install 'musweep[dashboard]'" in done.stderr
