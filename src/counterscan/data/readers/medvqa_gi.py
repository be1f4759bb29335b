"""ImageCLEFmed MEDVQA-GI: ``images/`` with the prompts of 2024 (``prompt-gt.csv``) or the answers of 2023 (``gt.json``).

2024: a row for each of the about ten prompts of an image (``Prompt;Filename``). 2023: a row an image, its caption the
questions about it with their answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterscan.data.manifest import Record
from counterscan.data.readers.source import Source, existing, one_of, readable, table, words

FINDINGS = {
    "polyp": r"\bpolyps?(\b|and)(?! snare)",  # prompts of two findings run together: "a polypandoesophagitis"
    "oesophagitis": r"(\b|and)o?esophagitis\b",
    "ulcerative colitis": r"(\b|and)ulcerative colitis\b",
    "instrument": r"\b(instruments?|biopsy forceps|polyp snares?|metal clips?|injection needles?)(\b|and)",
}
# a denial and what it reaches: up to "but", "with", "and a", "and 1" or the end of the sentence
DENIED = re.compile(
    r"\b(no|not( containing| with)?|without|(?<!\S)0(?= ))\b.*?(?=\b(but|however|with|containing|and (an?|\d+))\b|[.;\n]|$)",
    re.IGNORECASE,
)


def open_source(source: Path, work: Path) -> Source:
    """Findings are read out of the prompts: present, denied ("with no polyps") or unknown."""
    prompts = one_of(source, "prompt-gt.csv", "gt.json")
    records = _answered(source, prompts) if prompts.suffix == ".json" else _prompted(source, prompts)
    return Source(tuple(FINDINGS), records)


def _prompted(source: Path, path: Path) -> Iterator[Record]:
    delimiter = ";" if ";" in words(path).partition("\n")[0] else ","
    said: dict[str, dict[str, int]] = {}
    for row in table(path, ["Prompt", "Filename"], delimiter):
        said.setdefault(row["Filename"], {}).update(_said(row["Prompt"]))
    for row in table(path, ["Filename"], delimiter):
        name = row["Filename"]
        findings = {finding: said[name].get(finding) for finding in FINDINGS}
        yield Record(
            str(source / "images" / name), patient=Path(name).stem, caption=row["Prompt"], findings=findings,
            mask=_mask(source, name),
        )  # fmt: skip


def _answered(source: Path, path: Path) -> Iterator[Record]:
    with readable(path):
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8-sig"))
        for entry in entries:
            name = entry["ImageID"] if Path(entry["ImageID"]).suffix else f"{entry['ImageID']}.jpg"
            pairs = [(str(q["Question"]), [str(a) for a in q["Answer"]]) for q in entry["Labels"]]
            caption = " ".join(f"{question} {', '.join(found)}." for question, found in pairs if found)
            yield Record(
                str(source / "images" / name), patient=Path(name).stem, caption=caption, findings=_answers(pairs),
                mask=_mask(source, name),
            )  # fmt: skip


def _answers(pairs: list[tuple[str, list[str]]]) -> dict[str, int | None]:
    findings: dict[str, int | None] = {}
    for finding, pattern in FINDINGS.items():
        answers = [a for q, found in pairs if re.search(pattern, q, re.IGNORECASE) for a in found]
        named = any(re.search(pattern, a, re.IGNORECASE) for _, found in pairs for a in found)
        denied = any(a.lower() in ("no", "0") for a in answers)
        findings[finding] = 1 if named else 0 if denied else None
    return findings


def _said(prompt: str) -> dict[str, int]:
    """1 for each finding that a prompt states, 0 for one that it only denies: "a polyp without instruments"."""
    stated = DENIED.sub(";", prompt)
    named = [name for name, words in FINDINGS.items() if re.search(words, prompt, re.IGNORECASE)]
    return {name: int(re.search(FINDINGS[name], stated, re.IGNORECASE) is not None) for name in named}


def _mask(source: Path, name: str) -> str:
    return existing(source / "masks" / name) or existing((source / "masks" / name).with_suffix(".png"))
