"""Cluster files are valid for the installed Ray, and `ray submit`'s file hands on what it is given."""

from __future__ import annotations

from typing import Any

import pytest
import studies
import yaml

from sweeps.submit import arguments

CLUSTER = studies.ROOT / "cluster.yaml"


def cluster() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))


def test_the_cluster_file_fits_rays_own_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster()))


def test_a_wrong_cluster_file_would_be_found() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = cluster()
    wrong["max_worker"] = wrong.pop("max_workers")
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(wrong))


def test_workers_have_gpus_and_the_head_runs_no_trials() -> None:
    types = cluster()["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert all(t["resources"]["GPU"] >= 1 for name, t in types.items() if name != "head")


def test_submit_joins_the_running_cluster_unless_told_otherwise() -> None:
    assert arguments(["--", "run", "x.yaml"]) == ["run", "x.yaml", "--address", "auto"]
    assert arguments(["run", "x.yaml", "--address=1.2.3.4:6379"])[-1] == "--address=1.2.3.4:6379"
    assert arguments(["report", "results/x"]) == ["report", "results/x"]
