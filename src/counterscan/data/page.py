"""The page of a data check: tables, and thumbnails of the images with problems."""

from __future__ import annotations

import base64
import html
import io
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from counterscan.data.checks import SAID, UNSOUND, Checked, Issue
from counterscan.data.manifest import resolve
from counterscan.errors import ImageError

EXAMPLES = 12  # thumbnails of a kind; the tables hold every issue
STYLE = """body{font:15px system-ui;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}
td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ccc}figure{display:inline-block;margin:.3em;width:130px}
img{width:128px;height:128px;object-fit:contain;background:#000}figcaption{font-size:11px;overflow-wrap:anywhere}"""


def write_page(found: Checked, folder: Path) -> Path:
    """Write ``report.html``, which needs no other file. Returns its path."""
    kinds: defaultdict[str, list[Issue]] = defaultdict(list)
    for issue in found.issues:
        kinds[issue.kind].append(issue)
    verdict = "sound" if found.sound else "NOT sound to train on"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Data check</title><style>{STYLE}</style>",
        f"<h1>{html.escape(found.manifest.name)}: {verdict}</h1><p>{found.rows} rows</p>",
        _table(("split", "images"), [(name or "(none)", n) for name, n in found.splits.items()]),
        "<h2>Findings</h2>",
        _table(
            ("finding", *SAID.values()),
            [(n, *(c[k] for k in SAID.values())) for n, c in found.balance.items()],
        ),
    ]
    for kind, issues in sorted(kinds.items(), key=lambda item: item[0] not in UNSOUND):
        parts.append(f"<h2>{kind} ({found.kinds[kind]}{'' if kind in UNSOUND else ', a warning'})</h2>")
        parts += [_figure(issue, resolve(found.manifest, issue.path)) for issue in issues[:EXAMPLES] if issue.path]
        rows = _table(("row", "file", "what"), [(i.row or "", Path(i.path).name, i.text) for i in issues])
        parts.append(f"<details><summary>list</summary>{rows}</details>")
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".report.html.{os.getpid()}"
    draft.write_text("\n".join(parts), encoding="utf-8")
    os.replace(draft, folder / "report.html")
    return folder / "report.html"


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(lines)}</table>"


def _figure(issue: Issue, path: Path) -> str:
    from PIL import Image

    from counterscan import imaging

    caption = html.escape(f"row {issue.row}: {issue.text}")
    try:
        shown = Image.fromarray(np.round(imaging.read(path).unit() * 255).astype(np.uint8))
    except ImageError:
        return f"<figure><figcaption>{caption}</figcaption></figure>"
    shown.thumbnail((128, 128))
    file = io.BytesIO()
    shown.save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{text}"><figcaption>{caption}</figcaption></figure>'
    )
