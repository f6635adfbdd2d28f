"""What docs/security.md promises: no file that is read can run code, and the UI refuses other hosts.

That a study listens on loopback alone is looked at in ``test_run.py``, while one runs.
"""

from __future__ import annotations

import ast
import http.client
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import studies
from PIL import Image
from servers import LOOPBACK, mlflow_server

from mu.data import DataSpec, load, plain_pickle
from sweeps.__main__ import main
from sweeps.errors import StudyError
from sweeps.state.store import Store, pack, unpack
from sweeps.study import study, yaml_file
from sweeps.tracking.mlflow import local_uri
from sweeps.tracking.mlflow_ui import ui_environment

SOURCES = sorted(
    path
    for folder in ("mu", "sweeps", "reports", "search_spaces", "benchmarks")
    for path in (studies.ROOT / folder).rglob("*.py")
)
RUNS_CODE = {
    "pickle": {"load", "loads", "Unpickler"},
    "cloudpickle": {"load", "loads"},
    "joblib": {"load"},
    "shelve": {"open"},
    "marshal": {"load", "loads"},
    "yaml": {
        "unsafe_load",
        "full_load",
        "unsafe_load_all",
        "full_load_all",
        "UnsafeLoader",
        "Loader",
    },
    "os": {"system", "popen"},
    "builtins": {"eval", "exec"},
}


def unsafe_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that could run code from what they read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = ast.unparse(node.value)
            if node.attr in RUNS_CODE.get(module, ()):
                yield f"{module}.{node.attr}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        named = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in RUNS_CODE["builtins"]:
            yield name
        if name == "torch.load" and named.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if name.endswith("np.load") and named.get("allow_pickle", "False") != "False":
            yield "np.load with allow_pickle"
        if name == "yaml.load" and not ast.unparse(node.args[1]).endswith(
            ("_Loader", "SafeLoader")
        ):
            yield "yaml.load with an unsafe loader"
        if name.endswith((".extract", ".extractall")):
            yield f"{name} of an archive"
        if named.get("shell") == "True":
            yield f"{name} with a shell"


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader)",
        "pickle.loads(data)",
        "eval(text)",
        "zipfile.ZipFile(path).extractall(folder)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_scan_finds_what_could_run_code(code: str) -> None:
    assert list(unsafe_calls(ast.parse(code)))


def test_the_scan_lets_safe_reading_pass() -> None:
    code = "torch.load(p, weights_only=True); np.load(p, allow_pickle=False); yaml.load(t, _Loader)"
    assert not list(unsafe_calls(ast.parse(code)))


def test_nothing_in_the_source_reads_files_in_a_way_that_could_run_code() -> None:
    assert len(SOURCES) > 60
    found = {
        str(path.relative_to(studies.ROOT)): calls
        for path in SOURCES
        if (calls := list(unsafe_calls(ast.parse(path.read_text(encoding="utf-8")))))
    }
    # The one reader of pickles looks at every name in them.
    assert found == {"mu/data/plain_pickle.py": ["pickle.Unpickler"]}


@pytest.mark.parametrize(
    "text",
    [
        "study: !!python/object/apply:os.system ['touch run']",
        "study: !!python/name:os.system",
        "study: !include other.yaml",
        "study: !own {a: 1}",
    ],
)
def test_a_study_with_a_tag_is_refused_and_runs_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(text)
    assert main(["run", "study.yaml", "--dry-run"]) == 2
    shown = capsys.readouterr().err
    assert re.search(r"study\.yaml: line 1: .*the tag '.*'; a study is plain data", shown)
    assert not Path("run").exists()


def test_aliases_are_data_and_share_what_they_name() -> None:
    assert yaml_file.parse("a: &a {x: 1}\nb: [*a, *a]", "x.yaml")["b"] == [{"x": 1}, {"x": 1}]
    with pytest.raises(StudyError, match=r"self\.yaml: its aliases expand"):
        yaml_file.parse("&a [*a]", "self.yaml")


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefghi", "bcdefghij")
    )
    with pytest.raises(StudyError, match=r"bomb\.yaml: its aliases expand"):
        yaml_file.parse(text, "bomb.yaml")


def test_a_study_names_no_code() -> None:
    """Methods come from the package and from --methods-path: a study cannot point at a folder of its own."""
    for value in ("own/method", "../method", "os.system", "/tmp/method.py"):
        with pytest.raises(StudyError):
            study.parse(studies.tiny(methods=[value]), "study.yaml")
    with pytest.raises(StudyError, match="unknown key `methods_path`"):
        study.parse({**studies.tiny(), "methods_path": "own"}, "study.yaml")


@pytest.mark.parametrize("model", ["planted:build", {"name": "planted:build"}])
def test_a_study_alone_cannot_have_a_module_imported(
    model: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("planted.py").write_text("from pathlib import Path\nPath('imported').touch()")
    path = str(studies.write(tmp_path, studies.tiny(model=model)))
    assert main(["run", path, "--dry-run"]) == 2
    assert "--code-path" in capsys.readouterr().err
    assert not Path("imported").exists()


@pytest.mark.parametrize("name", ["../../escaped", "..\\..\\escaped", "/etc/passwd", "a/b", ""])
def test_a_study_cannot_choose_a_folder_outside_the_results(name: str) -> None:
    with pytest.raises(StudyError, match="study: must be a name"):
        study.parse(studies.tiny(study=name), "study.yaml")


class Payload:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_model_file_with_a_pickle_in_it_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.array([Payload()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        unpack(buffer.getvalue())
    store = Store("storage")
    store.put("ab" * 16, {"weight": np.zeros(3)})
    path = Path(store._path("ab" * 16))
    path.write_bytes(pickle.dumps(Payload()))  # without a checksum: damaged
    assert store.get("ab" * 16) is None
    assert not Path("unpickled").exists()
    assert set(unpack(pack({"weight": np.zeros(3)}))) == {"weight"}


def test_a_data_set_s_pickle_that_names_a_function_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = {
        "data": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "labels": [1, 0],
        "n": np.int64(7),
    }
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        Path("batch").write_bytes(pickle.dumps(arrays, protocol=protocol))
        read = plain_pickle.load(Path("batch"))
        assert read["data"].tolist() == arrays["data"].tolist()
        assert (read["labels"], read["n"]) == ([1, 0], 7)
        Path("batch").write_bytes(pickle.dumps({"data": Payload()}, protocol=protocol))
        with pytest.raises(ValueError, match=r"batch: .*posix\.mkdir"):
            plain_pickle.load(Path("batch"))
    Path("batch").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match="batch: cannot be read"):
        plain_pickle.load(Path("batch"))
    assert not Path("unpickled").exists()


def test_cifar_with_a_pickle_that_names_a_function_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match=r"data_batch_1: cannot be read as plain data"):
        load(DataSpec("cifar10", root=str(root)), tmp_path / "cache")


def image(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (color, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_names_in_a_zip_cannot_leave_the_cache(tmp_path: Path) -> None:
    """Parent folders, absolute names and symbolic links: read in memory, and written nowhere but in the cache."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(image(200))
    cache, root = tmp_path / "work/cache", tmp_path / "work/data.zip"
    root.parent.mkdir()
    with zipfile.ZipFile(root, "w") as archive:
        for split in ("train", "test"):
            for each in ("a", "b"):
                for number in range(4):
                    archive.writestr(f"{split}/{each}/{number}.png", image(number))
        archive.writestr("../../outside/train/a/up.png", image(9))
        archive.writestr(f"{outside}/train/a/absolute.png", image(9))
        link = zipfile.ZipInfo("train/a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(outside / "secret.png"))
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    with pytest.raises(
        ValueError, match=r"link\.png"
    ):  # its content is a path, which is not an image
        load(DataSpec("image_folder", root=str(root)), cache)
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {root, *before}


@pytest.mark.slow
def test_the_ui_refuses_other_hosts_even_where_the_check_is_switched_off(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    assert "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE" not in ui_environment("sqlite:///x.db")
    with mlflow_server(local_uri(finished / "results/tiny"), tmp_path) as address:
        port = int(address.rpartition(":")[2])
        for host, status in ((f"{LOOPBACK}:{port}", 200), ("evil.example", 403)):
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
            connection.request(
                "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}
            )
            assert connection.getresponse().status == status
    (log,) = tmp_path.glob("mlflow-*.log")
    assert "Warning" not in log.read_text()
