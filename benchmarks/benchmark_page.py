"""docs/benchmark.md from the results of ``counterscan bench``, with the command that made them.

    counterscan bench --model chest-world -n 32 -o benchmarks/results/bench
    python benchmarks/benchmark_page.py benchmarks/results/bench

The folder keeps its ``results.md`` and ``run.json``; the sheets that the page shows go to docs/figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from counterscan.bench.report import limits, markdown, means, stem

FIGURES = Path("docs/figures")
PAGE = """# Benchmark: edits against the truth

`{model}` on unseen cases of the {world} world, {n} a finding and a direction, no oracle mask. Made by

```
{command}
```

`error_inside` is the mean distance to the exact counterfactual inside the true change mask, divided by the same distance for
doing nothing: 0 is exact, 1 is nothing done. `drift_outside` is the mean change outside it before compositing (intensities
from 0 to 1), `drift_composited` after. `mask_auprc` ranks pixels by how much they changed, `mask_dice` is that of the area
composited. `flip_rate`, `side_right` and `place_right` are what a classifier says that no method sees, of the cases whose
factual it reads rightly. The autoencoder alone has error {error:.3f} and drift {drift:.4f}: no edit can be below.

## In one line a method

{summary}

Best and worst finding of `{method}` by `error_inside`: {best}; {worst}.

## Every finding

{table}
## Look

The first cases of some cells, unpicked. Columns: factual, answer, exact answer, the answer's difference, the exact difference.
All are synthetic.

{sheets}
"""


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The means over findings, a line a method and direction."""
    columns = (
        "error_inside",
        "drift_outside",
        "drift_composited",
        "mask_auprc",
        "flip_rate",
        "evaluations",
        "seconds_per_image",
    )
    lines = ["| method | direction | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 2) + "|"]
    for row in means(rows):
        cells = ["" if row[c] is None else f"{row[c]:.3f}{limits(row, c)}" for c in columns]
        lines.append(f"| {row['method']} | {row['direction']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def named(row: Mapping[str, Any]) -> str:
    """A cell in words."""
    return f"{row['direction']} {row['finding']} ({row['error_inside']:.2f})"


def sheets(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The contact sheets of the best, a middling and the worst removal and addition, copied for the page."""
    lines = []
    for direction in ("remove", "add"):
        some = sorted((r for r in rows if r["direction"] == direction), key=lambda r: r["error_inside"])
        for place in sorted({0, len(some) // 2, len(some) - 1}) if some else ():
            row = some[place]
            name = f"{stem(row)}.png"
            sheet = np.asarray(Image.open(folder / "cells" / name))
            shown = Image.fromarray(sheet[: 2 * sheet.shape[1] // 5])  # two cases of five square pictures
            shown.save(FIGURES / f"bench-{name}", optimize=True)
            lines.append(f"{named(row).capitalize()}:\n\n![{named(row)}](figures/bench-{name})\n")
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    folder = Path(sys.argv[1])
    run = json.loads((folder / "run.json").read_text())
    facts = run["result"]
    rows = facts["rows"]
    first = [row for row in rows if row["method"] == rows[0]["method"]]
    order = sorted(first, key=lambda row: row["error_inside"])
    for old in FIGURES.glob("bench-*.png"):
        old.unlink()
    command = " ".join(["counterscan", *run["arguments"]])
    text = PAGE.format(
        model=facts["model"], world=facts["world"], n=facts["n"], command=command, summary=summary(rows),
        error=facts["floor"]["error_inside"], drift=facts["floor"]["drift_outside"], table=markdown(rows),
        method=order[0]["method"], best=named(order[0]), worst=named(order[-1]), sheets=sheets(folder, first),
    )  # fmt: skip
    Path("docs/benchmark.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
