"""The documentation cannot drift: its commands and options exist, its tables are the code's words, its pages are in the nav."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from benchmarks import reference_pages
from PIL import Image

import counterscan
from counterscan import backbones, methods
from counterscan.cli import app
from counterscan.data import readers

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
GENERATED = {page.place: page.text for page in reference_pages.pages()}
PLACEHOLDERS = {"CMD", "COMMAND", "NAME"}


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(text: str) -> Iterator[str]:
    """Every stretch of code that begins with ``counterscan``, continued lines joined and comments cut."""
    code = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    lines = [line for block in code for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*lines, *spans]:
        for part in re.split(r"[;|] (?=counterscan )", line):
            if part.strip().startswith("counterscan "):
                yield re.split(r"\s#\s|\s{2,}#", part.strip())[0]


def faults(line: str) -> Iterator[str]:
    """What of a command does not exist."""
    command: Any = typer.main.get_command(app)
    words = line.split()[1:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name in PLACEHOLDERS or not re.fullmatch(r"[a-z-]+", name):
            return
        if name not in command.commands:
            yield f"{line!r}: no command {name!r}"
            return
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unquoted = re.sub(r"\"[^\"]*\"|'[^']*'", "", " ".join(words))
    for option in re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", unquoted):
        if option not in known | {"--help"}:
            yield f"{line!r}: no option {option!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_exist(page):
    assert not [fault for line in commands(page.read_text(encoding="utf-8")) for fault in faults(line)]


def test_a_wrong_command_or_option_would_be_found():
    assert list(faults("counterscan edot a.png")) and list(faults("counterscan edit a.png --colour red -o out"))
    assert list(faults("counterscan data wrld chest")) and not list(faults("counterscan data world chest -n 3 -o x"))


def test_commands_of_generated_pages_exist():
    lines = [line for text in GENERATED.values() for line in commands(text)]
    assert len(lines) > 40 and not [fault for line in lines for fault in faults(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_of_the_repository_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])(?:configs|benchmarks|examples|tests)/[\w/]+\.(?:yaml|py)", text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


def test_every_page_is_in_the_navigation():
    def leaves(node):
        if isinstance(node, str):
            return [node]
        return [leaf for child in (node.values() if isinstance(node, dict) else node) for leaf in leaves(child)]

    nav = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(nav) == sorted(page.name for page in DOCS.glob("*.md"))


def test_tables_are_the_codes_own_words(monkeypatch):
    monkeypatch.chdir(ROOT)
    tables = load(ROOT / "benchmarks/doc_tables.py")
    for page, (name, make) in tables.TABLES.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        assert f"<!-- {name} -->" in text
        assert text == tables.filled(text, name, make()), f"{page} has drifted: python benchmarks/doc_tables.py"


def test_the_reference_has_every_public_name_and_names_what_exists():
    named = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    for name in named:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
    offered = {name for name in counterscan.__all__ if not name.startswith("_")}
    assert offered <= {name.rpartition(".")[2] for name in named}


def measures() -> set[str]:
    """The public functions and classes of the metrics, as ``module.name``; one page for two that differ by a capital."""
    found = set()
    for path in (Path(counterscan.__file__).parent / "metrics").glob("[a-z]*.py"):
        module = importlib.import_module(f"counterscan.metrics.{path.stem}")
        own = [x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__]
        names = [x.__name__ for x in own if inspect.isfunction(x) or inspect.isclass(x)]
        found |= {f"{path.stem}.{name.lower()}" for name in names if name[0] != "_" and path.stem != "neighbours"}
    return found


def test_everything_registered_has_a_page_that_says_something():
    assert len(measures()) > 40
    judges = {path.parent.name for path in (Path(counterscan.__file__).parent / "models").glob("*/classifier.json")}
    wanted = {f"reference/methods/{name}.md" for name in methods.names()}
    wanted |= {f"reference/families/{module}.md" for module, _ in backbones.FAMILIES.values()}
    wanted |= {f"reference/data/{name}.md" for name in readers.LAYOUTS}
    wanted |= {f"reference/metrics/{name}.md" for name in measures()}
    wanted |= {f"reference/models/{name}.md" for name in {*backbones.names(), *judges}}
    assert set(GENERATED) == wanted
    empty = [place for place, text in GENERATED.items() if len(re.sub(r"(?s)```.*?```|\W", "", text)) < 150]
    assert not empty
    raw = re.compile(r":\w+:`|(?<!`)``(?!`)|::$", re.MULTILINE)  # what is no Markdown
    assert all(text.startswith("# `") and not raw.search(text) for text in GENERATED.values())


@pytest.mark.parametrize("name", sorted(methods._METHODS))
def test_settings_on_a_methods_page_are_its_own(name):
    told = dict(re.findall(r"(?m)^\| `(\w+)` \| `(.*)` \|$", GENERATED[f"reference/methods/{name}.md"]))
    parameters = inspect.signature(type(methods.get(name))).parameters.values()
    own = {parameter.name: parameter.default for parameter in parameters}
    (example,) = re.findall(r"methods\.get\([^)]*\)", GENERATED[f"reference/methods/{name}.md"])
    assert eval(example, {"methods": methods}) == methods.get(name)
    assert list(told) == list(own)
    assert all(str(eval(told[key])) == str(value) for key, value in own.items() if re.match(r"[\w(.'\"-]+$", told[key]))


def test_links_of_generated_pages_lead_somewhere():
    texts = {**GENERATED, "reference/index.md": reference_pages.overview()}
    for place, text in texts.items():
        for link in re.findall(r"\]\(([^)#]+\.md)", text):
            goal = (DOCS / place).parent.joinpath(link).resolve()
            assert goal.relative_to(DOCS.resolve()).as_posix() in texts or goal.is_file(), f"{place}: {link}"
    assert all(place.removeprefix("reference/") in texts["reference/index.md"] for place in GENERATED)
    leaves = re.findall(r"'(reference/[^']+)'", str(reference_pages.navigation()))
    assert sorted(leaves) == sorted(texts)


def test_tables_link_to_the_pages_when_built():
    for name in reference_pages.TABLED:
        text = (DOCS / name).read_text(encoding="utf-8")
        links = re.findall(r"(?m)^\| \[`[\w-]+`\]\((reference/[^)]+)\)", reference_pages.linked(text))
        assert len(links) >= 4 and set(links) <= set(GENERATED), name


def test_the_design_is_drawn_from_the_imports(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    figure = load(ROOT / "benchmarks/design_figure.py")
    edges = figure.graph()
    row = figure.layers(edges)
    assert row["cli"] == max(row.values()) and row["imaging"] == row["metrics"] == 0
    assert row["methods"] > row["backbones"] > row["diffusion"] and "methods" in edges["editing"]
    drawn = figure.direct(edges, row)
    assert ("methods", "backbones") in drawn and all(row[a] > row[b] for a, b in drawn)
    figure.draw(edges, tmp_path / "design.png")
    with Image.open(tmp_path / "design.png") as picture:
        assert picture.width > 800


def test_figures_of_worlds_are_small_and_there():
    for name in ("brain", "chest", "colon"):
        for path in (DOCS / f"figures/world-{name}.png", DOCS / f"figures/world-{name}-twins.png"):
            assert path.stat().st_size <= 300_000


@pytest.mark.parametrize("page", ["index.md", "worlds.md"])
def test_examples_run(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for code in blocks:
        names: dict[str, Any] = {}
        exec(compile(code, page, "exec"), names)
        assert names["mask"].any()
