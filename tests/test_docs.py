"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

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
from sweeps import catalogue, manual
from sweeps.__main__ import main
from sweeps.study import space, study
from sweeps.study.fields import plain
from sweeps.study.resources import Slot

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


def test_the_table_of_methods_is_current() -> None:
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == catalogue.table()


def test_the_page_of_keys_is_current_and_has_all_that_a_study_may_hold() -> None:
    assert (DOCS / "study.md").read_text(encoding="utf-8") == manual.page()
    assert set(manual.KEYS) == {"base", *study.KEYS}
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", manual.page(), re.MULTILINE))
    keys = {part: re.findall(r"^\| `(\w+)`", text, re.MULTILINE) for part, text in sections.items()}
    assert keys["methods: space"] == list(space.KEYS)
    assert keys["methods"] == ["name", "fix", "space", "forget"]
    assert set(keys["resources"]) == {*plain(Slot()), "concurrent", "launch", "references"}
    assert keys["search"] == ["trials", "sampler", "objective", "early_stop"]
    assert {"class", "kind"} < set(keys["forget"]) and "target" not in keys["forget"]
    held = study.parse(studies.tiny(), "study.yaml").definition
    for part in ("training", "search", "experiments", "metrics", "audit", "budget"):
        assert set(held[part]) - {"mean_gap"} == set(keys[part]), part


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


def test_every_method_states_its_cost_and_paper() -> None:
    for name in methods.names():
        method = methods.load(name)
        assert catalogue.field(method, "Cost"), name
        assert catalogue.field(method, "Paper"), name


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
