"""A page a method, a preset, a model family, a data set, a metric and a built-in model: a hook of MkDocs, see mkdocs.yml.

The pages are made when the documentation is built, from docstrings, defaults, registries and model cards, and none lies in
the repository: there is nothing to drift. Sources are parsed and not imported, so that this needs no torch.

python benchmarks/reference_pages.py -o FOLDER   # writes them as files, to look at without MkDocs
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent.parent / "src/counterscan"
TABLED = ("methods.md", "families.md", "data.md", "cite.md")  # whose tables name what has a page of its own
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Page:
    """``section`` "Methods", ``name`` as users write it, ``place`` below docs/, ``text`` in Markdown; ``group`` within it."""

    section: str
    name: str
    place: str
    text: str
    group: str = ""


# Sources as they stand


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file of the package."""
    return ast.parse((SOURCE / path).read_text(encoding="utf-8"))


def constant(path: Path, name: str) -> ast.expr:
    """What a module assigns to a name."""
    for node in parsed(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    raise KeyError(f"{path}: no {name}")


def literal(path: Path, name: str) -> Any:
    """The value of a constant that needs nothing run."""
    return ast.literal_eval(constant(path, name))


def definitions(path: Path) -> list[Definition]:
    """The public functions and classes of a module, in order."""
    found = [node for node in parsed(path).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return [node for node in found if not node.name.startswith("_")]


def fields(kind: ast.ClassDef, folder: Path) -> dict[str, str]:
    """A dataclass's settings and their defaults, as written; first those of the class of the same folder that it extends."""
    bases = {ast.unparse(base) for base in kind.bases}
    paths = [path.relative_to(SOURCE) for path in sorted((SOURCE / folder).glob("*.py"))] if bases else []
    above = [
        node for path in paths for node in definitions(path) if isinstance(node, ast.ClassDef) and node.name in bases
    ]
    found = {key: value for node in above for key, value in fields(node, folder).items()}
    own = [node for node in kind.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return found | {
        n.target.id: ast.unparse(n.value) for n in own if n.value and "ClassVar" not in ast.unparse(n.annotation)
    }


def markdown(text: str | None) -> str:
    """A docstring as Markdown: its code, its references and its sections."""

    def section(found: re.Match[str]) -> str:
        body = textwrap.dedent(found[2]).strip()
        parts = [body] if found[1] == "Returns" else re.split(r"\n(?=\S)", body)
        return f"**{found[1]}**\n\n" + "\n".join("* " + " ".join(part.split()) for part in parts) + "\n"

    text = re.sub(r"(?m)^(Args|Raises|Returns|Yields):\n((?:(?: {4}.*)?\n?)+?)(?=^\S|\Z)", section, text or "")
    text = re.sub(r":(?:func|class|meth|mod|data):`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    return re.sub(r"(?m)::$", ":", text).replace("``", "`")


def said(node: ast.AST) -> str:
    """The docstring of a module, class or function, as Markdown."""
    return markdown(ast.get_docstring(node))


def first(text: str) -> str:
    """The first sentence or paragraph, on one line, fit for a table."""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *rows])


def code(text: str, kind: str = "") -> str:
    """A block of code."""
    return f"```{kind}\n{text}\n```"


def joined(*parts: str) -> str:
    """A page of its parts, of which some may be empty."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


# Methods and the presets of papers


def presets() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Name → method, paper, settings."""
    node: Any = constant(Path("methods/presets.py"), "PRESETS")
    values = [tuple(ast.literal_eval(argument) for argument in call.args) for call in node.values]
    return dict(zip((key.value for key in node.keys), values, strict=True))


@cache
def cards() -> dict[str, dict[str, Any]]:
    """The cards of the built-in models, by name."""
    paths = sorted((SOURCE / "models").glob("*/counterscan.json"))
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def use(name: str, change: str = "") -> str:
    """How a method is run, by command and from Python."""
    return joined(
        "## Use",
        code(f'counterscan edit chest.png --remove "pleural effusion" --method {name} -o out', "sh"),
        code(
            "from counterscan import edit, methods\n\n"
            f'method = methods.get("{name}"{change})\n'
            'edit("chest.png", remove="pleural effusion", model="chest-nih", method=method)',
            "python",
        ),
    )


def suits(name: str) -> str:
    """The built-in models whose cards have settings for a method."""
    rows = []
    for model, card in cards().items():
        if chosen := card.get("method_settings", {}).get(name):
            told = ", ".join(f"{key} {value}" for key, value in chosen.items())
            default = "yes" if card.get("default_method") == name else ""
            rows.append((f"[`{model}`](../models/{model}.md)", told, default))
    head = ("model", "settings of its card", "its default method")
    return joined("## Built-in models", table(head, rows)) if rows else ""


def methods() -> Iterator[Page]:
    """A page a method, a page a preset."""
    recipes = presets()
    for name, (module, attribute) in literal(Path("methods/__init__.py"), "_METHODS").items():
        path = Path("methods") / f"{module.rpartition('.')[2]}.py"
        kind = next(node for node in definitions(path) if node.name == attribute)
        defaults = fields(kind, Path("methods"))
        some = next((f", {key}={value}" for key, value in defaults.items() if key in ("guidance", "steps")), "")
        based = [(f"[`{key}`]({key}.md)", paper) for key, (method, paper, _) in recipes.items() if method == name]
        text = joined(
            f"# `{name}`", said(parsed(path)), "## Settings", said(kind),
            table(("setting", "default"), [(f"`{key}`", f"`{value}`") for key, value in defaults.items()]),
            use(name, some), joined("## Presets", table(("preset", "recipe of"), based)) if based else "", suits(name),
            f"Class `{module}.{attribute}`. [All methods side by side](../../methods.md)",
        )  # fmt: skip
        yield Page("Methods", name, f"reference/methods/{name}.md", text)
    for name, (method, paper, settings) in recipes.items():
        rows = [(f"`{key}`", f"`{value!r}`") for key, value in settings.items()]
        text = joined(
            f"# `{name}`", f"A preset: [`{method}`]({method}.md) with the recipe of {paper}.",
            table(("setting", "value"), rows), "All other settings are the method's own.", use(name),
            "What the paper did otherwise: [Presets](../../methods.md#presets)",
        )  # fmt: skip
        yield Page("Methods", name, f"reference/methods/{name}.md", text, "Presets")


# Model families and built-in models


def families() -> Iterator[Page]:
    """A page a model family."""
    opened: dict[tuple[str, str], list[str]] = {}
    for start, where in literal(Path("backbones/__init__.py"), "FAMILIES").items():
        opened.setdefault(where, []).append(start)
    for (module, attribute), starts in sorted(opened.items()):
        path = Path(f"backbones/{module}.py")
        kind = next(node for node in definitions(path) if node.name == attribute)
        pipelines = " or ".join(f"`{start}…`" for start in starts if start) or "any other, if it has a `unet`"
        models = [f"[`{name}`](../models/{name}.md)" for name, card in cards().items() if card["family"] == module]
        rows = [("pipeline class in `model_index.json`", pipelines)]
        rows += [("built-in models", ", ".join(models))] if models else []
        lines = 'import counterscan\n\nmodel = counterscan.load("path/to/pipeline")\n'
        lines += 'counterscan.edit("chest.png", source="…", target="…", model=model)'
        text = joined(
            f"# `{module}`", said(parsed(path)), table(("", ""), rows), "## Use", code(lines, "python"),
            f"## `{attribute}`", said(kind), members(kind), "[All families side by side](../../families.md)",
        )  # fmt: skip
        yield Page("Model families", module, f"reference/families/{module}.md", text)


def models() -> Iterator[Page]:
    """A page a built-in model, of its card, and a page a built-in judge."""
    for name, card in cards().items():
        rows = [
            ("family", f"[`{card['family']}`](../families/{card['family']}.md)"),
            ("words begin with", f"`{card['template']}`"),
        ]
        rows += [("images", f"{card['resolution']} × {card['resolution']}, {card['channels']} channel(s)")]
        rows += [("default method", f"[`{card['default_method']}`](../methods/{card['default_method']}.md)")]
        for method, settings in card.get("method_settings", {}).items():
            rows += [(f"settings of `{method}`", ", ".join(f"{key} {value}" for key, value in settings.items()))]
        training = card.get("training", {})
        commands = training.get("command", [])
        lines = "\n".join([commands] if isinstance(commands, str) else commands)
        whole = lines.startswith("counterscan ")  # made by the trainer, not by stages of its own
        made = "Made by:" if whole else f"Stages of `python -m counterscan.training.{subject(name)}`:"
        known = joined("## Findings it knows by name", bullets(card["findings"])) if card["findings"] else ""
        rows += [(key, card[key]) for key in ("license", "credit") if card.get(key)]
        text = joined(
            f"# `{name}`", str(training.get("note", "")), table(("", ""), rows),
            known,
            "## What it learned from", str(training.get("data", "")),
            joined(made, code(lines)) if lines else "",
            scores(card.get("scores", {})), use_model(name, card["template"], card["findings"]),
        )  # fmt: skip
        yield Page("Built-in models", name, f"reference/models/{name}.md", text)
    for path in sorted((SOURCE / "models").glob("*/classifier.json")):
        name, card = path.parent.name, json.loads(path.read_text(encoding="utf-8"))
        rows = [
            ("images", f"{card['size']} × {card['size']}, {card['channels']} channel(s)"),
            ("trained by", f"`{card['command']}`"),
        ]
        rows += [("license", card.get("license", ""))]
        words = f'{subject(name)}.png --remove "{card["labels"][0]}" --model {name.removesuffix("-judge")}'
        judging = f"counterscan edit {words} --judge {name} -o out"
        text = joined(
            f"# `{name}`", "A judge: a classifier that guided no edit, and says what it sees in the result.",
            str(card.get("data", "")),
            table(("", ""), rows), "## Labels", bullets(card["labels"]), scores(card.get("scores", {})),
            "## Use", code(judging, "sh"),
        )  # fmt: skip
        yield Page("Built-in models", name, f"reference/models/{name}.md", text, "Judges")


def subject(name: str) -> str:
    """What a built-in model is of: ``chest``, ``brain``; the stages that trained it are a module of that name."""
    return name.partition("-")[0]


def use_model(name: str, template: str, findings: Sequence[str]) -> str:
    """How a built-in model is run: an edit of a finding that it knows, or an image of its words."""
    edit = f'edit {subject(name)}.png --remove "{findings[0]}"' if findings else f'generate "{template}"'
    lines = f"counterscan models show {name}\ncounterscan {edit} --model {name} -o out"
    return joined("## Use", code(lines, "sh"))


def bullets(items: list[str]) -> str:
    """A list."""
    return "\n".join(f"* {item}" for item in items)


def scores(values: dict[str, Any], level: str = "## Scores of its card") -> str:
    """Nested scores as tables, three digits."""
    flat = [
        (key, f"{value:.3g}" if isinstance(value, float) else str(value))
        for key, value in values.items()
        if not isinstance(value, dict)
    ]
    nested = [scores(value, f"### {key}") for key, value in values.items() if isinstance(value, dict)]
    return joined(level, table(("", ""), flat) if flat else "", *nested) if values else ""


# Data sets


def datasets() -> Iterator[Page]:
    """A page a layout that ``counterscan data import`` reads."""
    for name in literal(Path("data/readers/__init__.py"), "LAYOUTS"):
        path = Path(f"data/readers/{name.replace('-', '_')}.py")
        opens = next(node for node in definitions(path) if node.name == "open_source")
        lines = (
            f"counterscan data import {name} FOLDER -o {name}.parquet\ncounterscan data check {name}.parquet -o report"
        )
        text = joined(
            f"# `{name}`", said(parsed(path)), said(opens), labels(path), "## Use", code(lines, "sh"),
            "What to know before training on it: [Data](../../data.md#layouts). Its terms are yours to agree to.",
        )  # fmt: skip
        yield Page("Data sets", name, f"reference/data/{name}.md", text)


def labels(path: Path) -> str:
    """The release's labels and the columns that they become, where the reader has such a table."""
    try:
        known = literal(path, "LABELS")
    except (KeyError, ValueError):
        return ""
    if not all(isinstance(value, str) for value in known.values()):
        return ""
    rows = [(label, f"`{column}`") for label, column in known.items()]
    return joined("## Findings", table(("in the release", "column of the manifest"), rows))


# Metrics


def signature(node: ast.FunctionDef) -> str:
    """A function's head as it is called, without its body; a property is its name."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
        return f"{node.name}{returns}"
    arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
    return f"{node.name}({arguments}){returns}"


def members(kind: ast.ClassDef) -> str:
    """The public functions of a class that say what they do."""
    own = [n for n in kind.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and said(n)]
    return joined(*(part for n in own for part in (f"### `{n.name}`", code(signature(n), "python"), said(n))))


def metric_modules() -> list[str]:
    """The modules of metrics, a file a question; ``neighbours`` is a search that some of them share."""
    stems = {path.stem for path in (SOURCE / "metrics").glob("*.py")}
    return sorted(stems - {"__init__", "neighbours"})


@cache
def users(module: str) -> dict[str, tuple[str, ...]]:
    """Name → the parts of the package that import it from a module of metrics."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        where = ".".join(("counterscan", *path.relative_to(SOURCE).with_suffix("").parts))
        text = path.read_text(encoding="utf-8")
        if "counterscan.metrics" not in text or where.startswith("counterscan.metrics"):
            continue
        nodes = list(ast.walk(ast.parse(text)))
        imported = [n for n in nodes if isinstance(n, ast.ImportFrom)]
        names = {a.name for n in imported if n.module == f"counterscan.metrics.{module}" for a in n.names}
        whole = {
            a.asname or a.name
            for n in imported
            if n.module == "counterscan.metrics"
            for a in n.names
            if a.name == module
        }
        names |= {
            n.attr
            for n in nodes
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id in whole
        }
        for name in names:
            found.setdefault(name, []).append(where)
    return {name: tuple(where) for name, where in found.items()}


def described(node: Definition) -> str:
    """A function with its head; a class with its fields and public members."""
    if isinstance(node, ast.FunctionDef):
        return joined(code(signature(node), "python"), said(node))
    own = [f"    {ast.unparse(n)}" for n in node.body if isinstance(n, ast.AnnAssign)]
    return joined(code("\n".join([f"class {node.name}:", *own]), "python"), said(node), members(node))


def measures(module: str) -> dict[str, list[Definition]]:
    """A module's metrics by name. A class named as a function but for its capital is what that returns: one page for both."""
    found: dict[str, list[Definition]] = {}
    for node in sorted(definitions(Path(f"metrics/{module}.py")), key=lambda n: isinstance(n, ast.ClassDef)):
        found.setdefault(node.name.lower(), []).append(node)
    return found


def metrics() -> Iterator[Page]:
    """A page a metric."""
    for module in metric_modules():
        beside = measures(module)
        for name, nodes in beside.items():
            others = [
                f"* [`{other}`]({module}.{other}.md): {first(said(n))}"
                for other, (n, *_) in beside.items()
                if other != name
            ]
            where = sorted({place for node in nodes for place in users(module).get(node.name, ())})
            told = f"Used by {', '.join(f'`{place}`' for place in where)}." if where else ""
            text = joined(
                f"# `{name}`", *(described(node) for node in nodes), told,
                f"## Conventions of `counterscan.metrics.{module}`", said(parsed(Path(f"metrics/{module}.py"))),
                joined("## Beside it", "\n".join(others)) if others else "", "[What every number means](../../evaluation.md)",
            )  # fmt: skip
            yield Page("Metrics", name, f"reference/metrics/{module}.{name}.md", text, module.capitalize())


# What MkDocs asks for


@cache
def pages() -> tuple[Page, ...]:
    """All of them, those of a section together."""
    return (*methods(), *families(), *datasets(), *metrics(), *models())


def overview() -> str:
    """The first page: every other with its first sentence."""
    parts = ["# Reference", "Made from docstrings, defaults and model cards whenever the documentation is built."]
    for section in dict.fromkeys(page.section for page in pages()):
        some = [page for page in pages() if page.section == section]
        rows = [(f"[`{page.name}`]({page.place.removeprefix('reference/')})", opening(page)) for page in some]
        parts += [f"## {section}", table(("", ""), rows)]
    return joined(*parts)


def opening(page: Page) -> str:
    """The first sentence of a page that is no heading, code or table."""
    blocks = re.sub(r"(?s)```.*?```", "", page.text).split("\n\n")
    text = next((block for block in blocks if block.strip() and not block.lstrip().startswith(("#", "| "))), "")
    text = re.sub(r"\[(`?[^\]]*`?)\]\([^)]*\)", r"\1", first(text))
    return re.split(r"(?<=\.)(?<!et al\.) (?=[A-Z`])", text)[0]


def navigation() -> list[Any]:
    """The sections as MkDocs writes them in ``nav``; groups within them."""
    tree: dict[str, list[Any]] = {}
    for page in pages():
        inside = tree.setdefault(page.section, [])
        if page.group:
            group = next((item[page.group] for item in inside if page.group in item), None)
            if group is None:
                inside.append({page.group: (group := [])})
            inside = group
        inside.append({page.name: page.place})
    return [{"Overview": "reference/index.md"}, *({section: inside} for section, inside in tree.items())]


def on_config(config: Any) -> Any:
    """MkDocs: the pages have their places in the navigation."""
    config.nav = [*config.nav, {"Reference": navigation()}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: the pages are among the files."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/index.md", content=overview()))
    for page in pages():
        files.append(File.generated(config, page.place, content=page.text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs: tables that begin with a name link to its page (in the repository they do not: there it is no file)."""
    return linked(markdown) if page.file.src_uri in TABLED else markdown


def linked(text: str) -> str:
    """The page with links in the first column of its tables."""
    places = {page.name: page.place for page in pages() if page.section != "Metrics"}
    return re.sub(
        r"(?m)^\| `([\w-]+)` \|", lambda m: f"| [`{m[1]}`]({places[m[1]]}) |" if m[1] in places else m[0], text
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().o
    for place, text in [("reference/index.md", overview()), *((page.place, page.text) for page in pages())]:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
