"""Small folders in the layouts of public data sets, and what importing one gives."""

from __future__ import annotations

import gzip

import numpy as np
from PIL import Image

from counterscan.data.checks import check
from counterscan.data.manifest import read, resolve, write
from counterscan.data.readers import open_layout
from counterscan.data.readers.check import check_reader

ROWS = 0


def picture(path, size=(32, 32), mode="L"):
    """An image of its own in every file."""
    global ROWS
    ROWS += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(ROWS).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")


def imported(layout, source, tmp_path):
    """Every row of the written manifest, by the image's name; the reader keeps its promises, each image opens."""
    check_reader(layout, source)
    found = open_layout(layout, source, tmp_path / "work")
    manifest = tmp_path / "out.parquet"
    write(manifest, found.records, found.findings, found.contrasts)
    rows = list(read(manifest))
    assert all(resolve(manifest, row.path).is_file() for row in rows)
    assert not {"unreadable", "bad field", "missing mask", "leaking patient"} & check(manifest).kinds.keys()
    return rows


def said(row):
    """What a row says of findings, unknown ones left out."""
    return {name: value for name, value in row.findings.items() if value is not None}


REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough  // ?pneumonia

 COMPARISON:  None.

 FINDINGS:

 The lungs are clear.  No pleural effusion
 is seen.

 IMPRESSION:

 1.  No pneumonia.
 2.  Mild cardiomegaly.
"""
