"""What the driver keeps while a study runs: no outputs of models, which the store and Ray's object store have."""

import gc
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import whole_study
from studies import tiny

from mu.evaluate import Outputs
from mu.problem import Problem
from sweeps.workers.scored import Scored
from sweeps.workers.scores import ReferenceScores


class AwayFromDriver(whole_study.OneSlot):
    """Workers that read what the driver put somewhere else: here from its pickled form, as from Ray's object store."""

    def __init__(self, plan: Any):
        super().__init__(plan)
        self.held: list[int] = []

    def put(self, content: Any) -> bytes:
        return pickle.dumps(content)

    def _steps(self, job: Any, problem: Problem, get: Any, running: Any) -> Any:
        def fetch(name: str) -> Any:
            content = get(name)
            return None if content is None else pickle.loads(content)

        self.held.append(outputs_held())
        return super()._steps(job, problem, fetch, running)

    def run(self, source: Any, problems: Mapping[tuple[str, int], Problem]) -> None:
        super().run(source, problems)
        self.held.append(outputs_held())


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """Keep what is there already from the collector, which takes a second to look at it all."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def outputs_held() -> int:
    """Count the new objects of this process that hold outputs of a model on D_f."""
    gc.collect()
    return sum(type(each) in (Outputs, Scored, ReferenceScores) for each in gc.get_objects())


@pytest.mark.usefixtures("only_new_objects")
def test_the_driver_holds_no_outputs_while_a_study_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[AwayFromDriver] = []

    def make(plan: Any) -> AwayFromDriver:
        workers.append(AwayFromDriver(plan))
        return workers[-1]

    monkeypatch.setattr(whole_study, "OneSlot", make)
    study = tiny(
        forget={"some": {"kind": "random", "fraction": 0.1}},
        model="toy_cnn",
        metrics={"costly": []},
        experiments={"defaults": False},
        search__trials=1,
    )
    whole_study.run(study, tmp_path / "results", tmp_path / "storage")
    assert sum(job.work == "trial" for job in workers[0].done) >= 3
    assert set(workers[0].held) == {0}
