"""What the documents say is what the code does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import studies
import torch
import yaml
from toy import toy_problem

from mu import methods
from mu.data.loaders import LOADERS
from mu.forget import KINDS
from mu.models import build
from mu.models.architectures import MODELS, TOKEN_MODELS
from mu.problem import Weights
from mu.rng import generator
from mu.split import Split
from sweeps.__main__ import main
from sweeps.study import space, study
from sweeps.study.resources import Resources
from sweeps.study.space import RangeSection
from sweeps.study.study_file import StudyFile

DOCS = studies.ROOT / "docs"
SUBMISSION = """
def unlearning(net, retain_loader, forget_loader, val_loader):
    import torch

    assert len(val_loader.dataset) > 0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    net.train()
    for inputs, labels in retain_loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
"""


def own_files(folder: Path) -> Path:
    """The files that docs/own-methods.md shows, written as it says."""
    text = (DOCS / "own-methods.md").read_text(encoding="utf-8")
    for code in re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL):
        match = re.match(r"# (own/\S+)\n", code)
        assert match is not None
        path = folder / match[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    return folder / "own"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_current(tmp_path: Path) -> None:
    """In a process of their own, where no test has added a network."""
    script = [sys.executable, str(DOCS / "generate.py"), str(tmp_path)]
    subprocess.run(script, env=studies.environment(), check=True)
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    paths = [path.relative_to(tmp_path) for path in written]
    assert list(map(str, paths)) == ["docs/methods.md", "docs/study.md", "sweeps/study/schema.json"]
    for path, current in zip(paths, written):
        assert (studies.ROOT / path).read_text("utf-8") == current.read_text("utf-8"), path


def test_the_command_line_prints_the_schema_that_ships(tmp_path: Path) -> None:
    done = studies.musweep(tmp_path, "schema")
    shipped = (studies.ROOT / "sweeps" / "study" / "schema.json").read_text(encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, shipped)


def test_the_page_of_keys_has_all_that_a_study_may_hold() -> None:
    page = (DOCS / "study.md").read_text(encoding="utf-8")
    head, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    rows = {"": head} | {text.partition("\n")[0]: text for text in sections}
    keys = {part: re.findall(r"^\| `(\w+)`", text, re.MULTILINE) for part, text in rows.items()}
    assert set(keys[""]) == {"base", "study", *StudyFile.model_fields} - {"name"}
    assert keys["methods: space"] == list(RangeSection.model_fields)
    assert keys["methods"] == ["name", "as", "fix", "space", "forget"]
    assert set(keys["resources"]) == {
        *Resources().amounts,
        "custom",
        "concurrent",
        "launch",
        "references",
    }
    assert keys["search"] == [
        "trials", "sampler", "objective", "mean_gap", "early_stop", "choose", "max_utility_loss",
        "finalists", "start", "start_from",
    ]  # fmt: skip
    assert {"class", "kind"} < set(keys["forget"]) and "target" not in keys["forget"]
    held = study.parse(studies.tiny(), "study.yaml").definition
    for part in ("training", "search", "experiments", "metrics", "audit", "budget", "seeds"):
        assert set(held[part]) == set(keys[part]), part


def test_the_table_of_models_is_current() -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE))
    assert list(rows) == [name for name in MODELS if name != "toy_cnn"]
    for name, millions in rows.items():
        side = 224 if name.startswith("vit") else 32
        shape = (200, 10_000) if name in TOKEN_MODELS else (3, side, side)
        with torch.device("meta"):
            network = MODELS[name](shape, 10)
        assert f"{sum(w.numel() for w in network.parameters()) / 1e6:.1f}" == millions, name


def test_the_model_of_the_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    code = next(c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "build" in c)
    path = tmp_path / re.match(r"# code/(\S+)\n", code)[1]  # type: ignore[index]
    path.parent.mkdir()
    path.write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = build("mypkg.nets:build", (3, 8, 8), 5, (0.5,) * 3, (0.5,) * 3, seed=0)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 5)


def test_every_method_states_its_cost_and_paper(generate: ModuleType) -> None:
    for name in methods.names():
        method = methods.load(name)
        assert method.field("Cost"), name
        assert method.field("Paper"), name


def test_the_method_of_the_documents_runs_and_has_its_ranges(
    tmp_path: Path, original: Weights
) -> None:
    own = own_files(tmp_path)
    method = methods.load("half_forget", [own])
    raw, where = space.shipped(method, [own])
    assert [r.knob for r in space.parse(raw, method, where)] == ["lr"]
    problem = toy_problem("full_class")
    model = problem.load(original)
    steps = method.unlearn(model, problem.split().only(method.data), generator("x"), lr=0.1)
    assert len(list(steps)) == 3
    changed = problem.load(original).state_dict()
    assert any(not torch.equal(v, changed[k]) for k, v in model.state_dict().items())


def test_a_challenge_submission_can_be_wrapped(
    tmp_path: Path, original: Weights, split: Split
) -> None:
    own = own_files(tmp_path)
    path = own / "challenge.py"
    text = path.read_text()
    start = text.index("def unlearning")
    path.write_text(
        text[:start] + SUBMISSION.strip() + "\n\n\n" + text[text.index("def unlearn(model") :]
    )
    method = methods.load("challenge", [own])
    model = toy_problem("full_class").load(original)
    before = [weight.clone() for weight in model.parameters()]
    assert len(list(method.unlearn(model, split.only(method.data), generator("x")))) == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_own_methods_are_listed_beside_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods", "--methods-path", str(own_files(tmp_path))]) == 0
    shown = capsys.readouterr().out
    assert "half_forget" in shown
    assert "natmu" in shown


def test_the_readme_names_commands_and_files_that_exist() -> None:
    text = (studies.ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (studies.ROOT / "Makefile").read_text(), re.MULTILINE)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (studies.ROOT / link).exists(), link


def test_the_page_of_data_names_every_data_set_and_its_examples_are_valid() -> None:
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", text, re.MULTILINE)
    assert {name for names, _ in rows for name in re.findall("`(.+?)`", names)} == set(LOADERS)
    for names, cells in rows:
        named = set(re.findall(r"`(\w+)`", cells.rpartition("|")[2]))
        for name in re.findall("`(.+?)`", names):
            assert named == set(LOADERS[name].keys) - {"root", "size"}, name
    kinds = set()
    for code in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        example = studies.tiny(experiments={}, **yaml.safe_load(code))
        parsed = study.parse(example, "data.md")
        LOADERS[parsed.data.name].check(parsed.data)
        kinds |= {request.kind for request in parsed.forget.values()}
    assert kinds == set(KINDS)
