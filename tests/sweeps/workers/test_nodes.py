"""A node that loses one job after the other gets no more work for a while; Ray's own labels keep it free."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import studies
from job_source import Source, TwoSlots, lost_worker, report
from ray import tune

from sweeps.study.resources import Resources, Slot
from sweeps.workers import nodes as nodes_module
from sweeps.workers.cluster import Cluster
from sweeps.workers.hooks import lost_actor
from sweeps.workers.job_searcher import JobSearcher
from sweeps.workers.nodes import LABEL, LOSSES, LOSSES_OF_ONE_JOB, REST_SECONDS, NodeWatch
from sweeps.workers.slots import Slots

KILLER = '''"""A method that kills its worker on a broken node."""

import os
import time
from pathlib import Path

NEEDS = ("retain",)


def unlearn(model, split, generator, *, lr: float = 0.1):
    """Do nothing, where the node is whole."""
    if "BROKEN_NODE" in os.environ:
        with Path(os.environ["BROKEN_NODE"]).open("a") as file:
            file.write("lost\\n")
        os._exit(1)
    time.sleep(1)
    yield
'''
BROKEN = """
import subprocess, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=1)
cluster.add_node(num_cpus=1, env_vars={"BROKEN_NODE": sys.argv[1]})
cluster.wait_for_nodes()
command = [sys.executable, "-m", "sweeps", "run", "study.yaml", "--methods-path", "."]
done = subprocess.run([*command, "--address", cluster.address])
cluster.shutdown()
sys.exit(done.returncode)
"""


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The nodes that are alive; an actor's name begins with that of its node."""
    alive = ["a", "b"]
    private = SimpleNamespace(
        state=SimpleNamespace(actors=lambda actor: {"Address": {"NodeID": actor[0]}})
    )
    listed = [{"Alive": True, "NodeID": node, "Resources": {"CPU": 2.0}} for node in "ab"]
    monkeypatch.setattr(nodes_module.ray, "_private", private)
    monkeypatch.setattr(
        nodes_module.ray, "nodes", lambda: [node for node in listed if node["NodeID"] in alive]
    )
    return alive


@pytest.mark.usefixtures("there")
def test_a_node_is_avoided_after_losses_in_a_row_for_ten_minutes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = 1000.0
    monkeypatch.setattr(nodes_module.time, "monotonic", lambda: clock)
    watch = NodeWatch(Slot())
    for job in range(LOSSES - 1):
        watch.lost("a1", f"k{job}")
        watch.lost("b1", f"k{job}")
    watch.worked("b2")
    assert not watch.avoided() and watch.elsewhere("k9") == {}
    watch.lost("a2", "k0")
    watch.lost("b2", "k0")
    assert list(watch.avoided()) == ["a"]
    assert caplog.messages == ["node a lost 4 workers in a row; it gets no more work for 10 min"]
    assert watch.elsewhere("k9") == {"bundle_label_selector": [{LABEL: "!in(a)"}]}
    slots = Slots(Slot(), None, None, watch.avoided)
    slots.close()
    assert slots.now == 2
    clock += REST_SECONDS + 1
    assert not watch.avoided() and watch.elsewhere("k9") == {}


def test_a_job_that_a_node_loses_each_time_goes_elsewhere_and_is_not_the_node_s_fault(
    there: list[str],
) -> None:
    watch = NodeWatch(Slot())
    for _ in range(LOSSES_OF_ONE_JOB):
        assert watch.elsewhere("k0") == {}
        watch.lost("a1", "k0")
    assert watch.elsewhere("k0") == {"bundle_label_selector": [{LABEL: "!in(a)"}]}
    watch.lost("a1", "k0")
    assert not watch.avoided() and watch.elsewhere("k1") == {}
    there.remove("b")
    assert watch.elsewhere("k0") == {}, "there is no other"


def test_the_only_node_stays_in_use(there: list[str], caplog: pytest.LogCaptureFixture) -> None:
    there.remove("b")
    watch = NodeWatch(Slot())
    for job in range(LOSSES):
        watch.lost("a1", f"k{job}")
    assert not watch.avoided() and "no other can hold their work" in caplog.text


def test_where_ray_does_not_say_no_node_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module.ray, "_private", SimpleNamespace())
    watch = NodeWatch(Slot())
    for job in range(LOSSES):
        watch.lost("a1", f"k{job}")
        watch.lost("", f"k{job}")
    assert not watch.avoided()


def test_a_local_ray_avoids_nothing() -> None:
    counted: list[Any] = []
    nodes: Any = SimpleNamespace(lost=lambda *loss: counted.append(loss))
    slots: Any = None
    job: Any = SimpleNamespace(key="k0")
    Cluster(True, slots, Resources(), nodes).lost("a", job)
    assert counted == []
    Cluster(False, slots, Resources(), nodes).lost("a", job)
    assert counted == [("a", "k0")]


def test_losses_and_ends_are_told_but_not_those_by_memory_or_time(source: Source) -> None:
    room = TwoSlots()
    searcher = JobSearcher(source, room, timeout_seconds=5)
    for name, words in (("a", "the node died"), ("b", "OutOfMemoryError: 3 GB")):
        searcher.suggest(name)
        searcher.running[name].actor = name
        lost_worker(searcher, name, words)
    searcher.suggest("c")
    searcher.running["c"].actor = "c"
    searcher.overdue.add("c")
    lost_worker(searcher, "c", "killed")
    searcher.suggest("d")
    searcher.running["d"].actor = "d"
    report(searcher, "d")
    assert room.noted == [("a", "k0"), ("d", "worked")]


def test_ray_s_report_of_an_actor_that_died_before_it_started_names_it() -> None:
    lines = [
        "ray.exceptions.ActorDiedError: The actor died",
        "\tclass_name: X",
        "\tactor_id: 0fa3",
        "",
    ]
    assert lost_actor(lines) == "0fa3"
    assert lost_actor(["no more"]) == ""


def test_tune_takes_the_selector_and_tells_requests_apart_by_it() -> None:
    plain = tune.PlacementGroupFactory([{"CPU": 1}])
    selector = {"bundle_label_selector": [{LABEL: "!in(a)"}]}
    kept_off = tune.PlacementGroupFactory([{"CPU": 1}], **selector)
    assert kept_off != plain and kept_off == tune.PlacementGroupFactory([{"CPU": 1}], **selector)
    assert len({plain, kept_off}) == 2


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.fault
def test_a_study_leaves_a_broken_node_alone_and_finishes(tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    study = studies.tiny(
        methods=[{"name": "killer", "space": {"lr": {"low": 0.01, "high": 1.0}}}],
        forget={"three": {"kind": "full_class", "class": 3}}, seeds__report=[1], seeds__retrain=1,
        search__trials=24, experiments={"defaults": False},
    )  # fmt: skip
    studies.write(tmp_path, study)
    losses = tmp_path / "losses.txt"
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN, str(losses)],
        cwd=tmp_path, env={**os.environ, **studies.environment()},
        capture_output=True, text=True, timeout=studies.LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    recorded = studies.records(tmp_path / "results/tiny").values()
    assert {record.status for record in recorded} == {"finished"}
    log = (tmp_path / "results/tiny/run.log").read_text()
    assert "lost 4 workers in a row; it gets no more work for 10 min" in log
    # One more may have waited for its place there already.
    assert LOSSES <= losses.read_text().count("lost") <= LOSSES + 2
