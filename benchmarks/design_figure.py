"""The design in one picture, drawn from the real imports: ``python benchmarks/design_figure.py``.

Every box is a package or module of ``counterscan``. It stands one row above the highest of those it imports, so an arrow
always points down; what imports nothing of the package is the lowest row. An arrow that a way through other boxes implies is
left out. Imports for types alone do not count.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path("src/counterscan")
OUT = Path("docs/figures/design.png")
COLOURS = {"methods": "#e8a33d", "backbones": "#e8a33d", "result": "#5aa9a0", "worlds": "#7b9acc", "cli": "#b8b8b8",
           "studio": "#b8b8b8", "reader": "#b8b8b8"}  # fmt: skip
QUIET = ("_quiet", "__main__", "errors", "types")  # imported by almost all, or by none: arrows would say nothing


def unit(path: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """The parts that a file imports, anywhere in it, leaving out ``if TYPE_CHECKING``."""

    class Visitor(ast.NodeVisitor):
        def __init__(self) -> None:
            self.found: list[str] = []

        def visit_If(self, node: ast.If) -> None:
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                self.generic_visit(node)

        def visit_Import(self, node: ast.Import) -> None:
            self.found += [alias.name for alias in node.names]

        def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
            self.found += [f"{node.module}.{alias.name}" for alias in node.names]

    visitor = Visitor()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return [name.split(".")[1] for name in visitor.found if name.startswith("counterscan.")]


def graph() -> dict[str, Counter[str]]:
    """Part -> how often its files import each other part."""
    files = [p for p in sorted(ROOT.rglob("*.py")) if p.parent != ROOT or p.stem != "__init__"]
    parts = {unit(p) for p in files}
    edges: dict[str, Counter[str]] = {name: Counter() for name in sorted(parts - set(QUIET))}
    for path in files:
        if unit(path) in edges:
            edges[unit(path)].update(x for x in imports(path) if x in edges and x != unit(path))
    return edges


def layers(edges: dict[str, Counter[str]]) -> dict[str, int]:
    """The row of each part, 0 the lowest. In a circle the import that is used less is passed over."""
    forward = {a: {b for b in to if edges[b][a] < to[b] or (edges[b][a] == to[b] and a < b)} for a, to in edges.items()}
    row: dict[str, int] = {}

    def depth(name: str, above: tuple[str, ...] = ()) -> int:
        if name not in row:
            below = [depth(b, (*above, name)) for b in forward[name] if b not in (*above, name)]
            row[name] = 1 + max(below, default=-1)
        return row[name]

    for name in sorted(edges):
        depth(name)
    return row


def direct(edges: dict[str, Counter[str]], row: dict[str, int]) -> list[tuple[str, str]]:
    """The downward imports that no way through other parts implies."""
    down = {a: {b for b in to if row[b] < row[a]} for a, to in edges.items()}
    reach: dict[str, set[str]] = {}
    for name in sorted(edges, key=row.__getitem__):
        reach[name] = set().union(down[name], *(reach[b] for b in down[name]))
    return [(a, b) for a in edges for b in sorted(down[a]) if not any(b in reach[c] for c in down[a] - {b})]


def places(edges: dict[str, Counter[str]], row: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Where each box is: rows evenly filled, and in each the order that keeps arrows short."""
    at: dict[str, tuple[float, float]] = {}
    rows = [[name for name in edges if row[name] == k] for k in range(max(row.values()) + 1)]
    for k, names in enumerate(rows):
        towards = {n: [at[b][0] for b in edges[n] if b in at] for n in names}
        names.sort(key=lambda n: (sum(towards[n]) / len(towards[n]) if towards[n] else 0.5, n))
        for i, name in enumerate(names):
            at[name] = ((i + 0.5) / len(names), float(k))
    return at


def draw(edges: dict[str, Counter[str]], path: Path) -> None:
    """Write the picture."""
    row = layers(edges)
    at = places(edges, row)
    figure, axes = plt.subplots(figsize=(12, 0.95 * (max(row.values()) + 1)), dpi=100)
    for name, other in direct(edges, row):
        (x0, y0), (x1, y1) = at[name], at[other]
        axes.add_patch(FancyArrowPatch((x0, y0 - 0.2), (x1, y1 + 0.22), arrowstyle="-|>", mutation_scale=9,
                                       color="#455a64", linewidth=1))  # fmt: skip
    for name, (x, y) in at.items():
        width = 0.012 + 0.0078 * len(name)
        axes.add_patch(FancyBboxPatch((x - width / 2, y - 0.17), width, 0.34, boxstyle="round,pad=0.008,rounding_size=0.01",
                                      facecolor=COLOURS.get(name, "#dfe6ea"), edgecolor="#263238", zorder=3))  # fmt: skip
        axes.text(x, y, name, ha="center", va="center", fontsize=10, zorder=4)
    axes.set(xlim=(0, 1), ylim=(-0.5, max(row.values()) + 0.5))
    axes.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    draw(graph(), OUT)
