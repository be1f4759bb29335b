"""HyperKvasir: ``labeled-images/lower-gi-tract/pathological-findings/polyps/*.jpg`` … (Borgli et al., 2020).

Its ``segmented-images`` (polyps with masks) are read too where they are. Each image has one class of 23, taken as its only
one, as in the published benchmark; a grade, and the part of the tract, are in the caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from counterscan.data.manifest import Record
from counterscan.data.readers.source import Source, images
from counterscan.errors import DataError

CLASSES = {
    "barretts": "barrett's oesophagus",
    "barretts-short-segment": "barrett's oesophagus",
    "dyed-lifted-polyps": "dyed lifted polyp",
    "dyed-resection-margins": "dyed resection margin",
    "esophagitis-a": "oesophagitis",
    "esophagitis-b-d": "oesophagitis",
    "polyps": "polyp",
}
WORDS = {
    "barretts-short-segment": "short segment barrett's oesophagus",
    "bbps-0-1": "bowel preparation score 0 to 1",
    "bbps-2-3": "bowel preparation score 2 to 3",
    "esophagitis-a": "oesophagitis grade A",
    "esophagitis-b-d": "oesophagitis grade B to D",
    "retroflex-rectum": "retroflexed view of the rectum",
    "retroflex-stomach": "retroflexed view of the stomach",
    "z-line": "z-line",
}
TRACTS = {"lower-gi-tract": "colonoscopy", "upper-gi-tract": "gastroscopy"}


def open_source(source: Path, work: Path) -> Source:
    """The top folder, or ``labeled-images`` itself. No patients and no splits are published."""
    labelled = source / "labeled-images" if (source / "labeled-images").is_dir() else source
    classes = sorted(p for tract in TRACTS for p in labelled.glob(f"{tract}/*/*") if p.is_dir())
    if not classes:
        raise DataError(f"{labelled}: has no lower-gi-tract nor upper-gi-tract; name the folder of labeled-images")
    findings = tuple(dict.fromkeys(["polyp", *(_finding(p.name) for p in classes)]))
    return Source(findings, _records(source / "segmented-images", classes, findings))


def _records(segmented: Path, classes: list[Path], findings: tuple[str, ...]) -> Iterator[Record]:
    masked = set()
    for path in images(segmented / "images") if segmented.is_dir() else []:
        masked.add(path.name)
        mask = segmented / "masks" / path.name
        yield Record(str(path), caption="colonoscopy: polyp.", findings=_only("polyp", findings), mask=str(mask))
    for folder in classes:
        for path in images(folder):
            if path.name not in masked:  # those are the same images
                caption = f"{TRACTS[folder.parent.parent.name]}: {_words(folder.name)}."
                yield Record(str(path), caption=caption, findings=_only(_finding(folder.name), findings))


def _only(present: str, findings: tuple[str, ...]) -> dict[str, int | None]:
    return {name: int(name == present) for name in findings}


def _finding(name: str) -> str:
    if name.startswith("ulcerative-colitis"):
        return "ulcerative colitis"
    return CLASSES.get(name) or WORDS.get(name) or name.replace("-", " ")


def _words(name: str) -> str:
    if name.startswith("ulcerative-colitis-grade-"):
        return f"ulcerative colitis grade {name.removeprefix('ulcerative-colitis-grade-').replace('-', ' to ')}"
    return WORDS.get(name) or _finding(name)
