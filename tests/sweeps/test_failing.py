"""A method that cannot run costs its first trials, not the whole study."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import studies

BAD = '''"""A method that never works."""

NEEDS = ("retain",)


def unlearn(model, split, generator, *, lr: float = 0.1):
    """Raise."""
    raise RuntimeError("no such layer")
    yield
'''


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_a_method_that_always_fails_ends_alone_and_everything_says_so(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    search = {"lr": {"low": 0.01, "high": 1.0}}
    study = studies.tiny(
        methods=[{"name": "bad", "space": search}, studies.JIT],
        forget={"three": {"kind": "full_class", "class": 3}},
        search__trials=8, experiments={"defaults": True},
    )  # fmt: skip
    studies.write(tmp_path, {**study, "max_failures": 3, "resources": {"concurrent": 1}})
    command = ("run", "study.yaml", "--methods-path", str(tmp_path))
    ended = studies.here(tmp_path, *command)
    assert ended.returncode == 1
    words = (
        "ended because the first 3 trials all failed: bad on three (RuntimeError: no such layer)"
    )
    assert f"tiny: {words}" in ended.stdout and f"Cells {words}" in ended.stdout
    recorded = studies.records(tmp_path / "results/tiny").values()
    ran = Counter((r.method, r.phase) for r in recorded if r.phase != "reference")
    assert 3 <= ran.pop(("bad", "search")) <= 4, "one more may run meanwhile"
    assert ran == {("jit", "search"): 8, ("jit", "default"): 2, ("jit", "confirm"): 2}
    assert words in (tmp_path / "results/tiny/report/index.html").read_text()
    assert words in studies.here(tmp_path, "status", "results/tiny").stdout
    again = studies.here(tmp_path, *command)
    assert again.returncode == 1 and "nothing to do" in again.stdout
    more = studies.here(tmp_path, *command, "-o", "max_failures=null")
    assert more.returncode == 1
    recorded = studies.records(tmp_path / "results/tiny").values()
    ran = Counter(r.phase for r in recorded if r.method == "bad")
    assert ran == {"search": 8, "default": 2}, "without a limit it goes on"
