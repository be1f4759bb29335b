"""What removing a finding changes in images that do not have it: measured once, kept on the model's card, and used by
``attribute`` to say "no such finding here" at a known rate. Fewer than 19 images promise no rate of 5 %, and are refused.

    python -m counterscan.training.calibrate MODEL -n 40
    python -m counterscan.training.calibrate MODEL --world brain -n 40
    python -m counterscan.training.calibrate MODEL --nih NIH -n 40
    python -m counterscan.training.calibrate MODEL --manifest MANIFEST -n 40

Without ``--nih`` and ``--manifest`` the images are unseen cases of a world; with one, train images labelled without the finding.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from counterscan import load
from counterscan.attribution import CARD_RATE, calibrate
from counterscan.backbones import locate
from counterscan.errors import DataError
from counterscan.language import vocabulary
from counterscan.training.captions import DEVICES
from counterscan.worlds.dataset import WORLDS, broader, find

FIRST_SEED = 750_000_000


def world_images(world: str, finding: str, n: int, size: int) -> list[Any]:
    """Unseen cases of a world without ``finding``, which may be a word for several, as "support devices"."""
    module = find(world)
    gone = broader(world).get(finding) or vocabulary.finding(finding).group or (finding,)
    cases = [module.sample(FIRST_SEED + i, size=size) for i in range(n)]
    return [module.intervene(case, dict.fromkeys(gone, False)).image for case in cases]


def real_images(finding: str, n: int, folder: Path) -> list[Any]:
    """Train radiographs labelled without ``finding`` (a device: without support devices)."""
    from counterscan.training.radiographs import NIH_NAMES, nih_table

    name = "support devices" if finding in DEVICES else finding
    column = {value: key for key, value in NIH_NAMES.items()}[name]
    rows = [row for row in nih_table(folder, "train") if row.get(column) in ("0", "0.0")]
    return [folder / "images" / row["file"] for row in rows[:: max(len(rows) // n, 1)][:n]]


def listed_images(finding: str, n: int, manifest: Path) -> list[Any]:
    """Train images of a manifest that are labelled without ``finding``."""
    from counterscan.data.manifest import read, resolve
    from counterscan.training.corpus import finding_name
    from counterscan.training.paste import BEFORE

    known = [row for row in read(manifest) if row.split == "train" and BEFORE not in row.contrasts]
    rows = [row for row in known if {finding_name(k): v for k, v in row.findings.items()}.get(finding) == 0]
    if len(rows) < n:
        raise DataError(f"{manifest}: {len(rows)} train rows are labelled without {finding}, {n} are asked for")
    return [resolve(manifest, row.path) for row in rows[:: max(len(rows) // n, 1)][:n]]


def main() -> None:
    """Measure and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--world", default="chest", choices=WORLDS)
    parser.add_argument("--nih", type=Path)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--finding", action="append", help="one of the model's; all unless said")
    o = parser.parse_args()
    backbone = load(o.model, offline=True)
    found = dict(backbone.card.null_change)
    counts = dict(backbone.card.training.get("null_change_n", {}))
    for finding in o.finding or backbone.card.findings:
        size = backbone.resolution
        if o.manifest:
            images = listed_images(finding, o.n, o.manifest)
        else:
            images = real_images(finding, o.n, o.nih) if o.nih else world_images(o.world, finding, o.n, size)
        told = calibrate(images, finding=finding, model=backbone)
        found[finding] = math.ceil(told.threshold(CARD_RATE) * 1e4) / 1e4  # up: more images exceed a lower one
        counts[finding] = len(told.peaks)
        print(
            json.dumps({finding: found[finding], "median": round(float(np.median(told.peaks)), 4)}),
            file=sys.stderr,
            flush=True,
        )
    training = {**backbone.card.training, "null_change_n": counts}
    replace(backbone.card, null_change=found, training=training).write(locate(o.model, offline=True))


if __name__ == "__main__":
    main()
