"""BraTS: a folder a case with NIfTI volumes of four contrasts and a segmentation (Menze et al., 2015; Baid et al., 2021).

2017 to 2021: ``BraTS2021_00000/BraTS2021_00000_{t1,t1ce,t2,flair,seg}.nii.gz``; from 2023: ``BraTS-GLI-00000-000/
BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz``; the Medical Segmentation Decathlon's ``Task01_BrainTumour``:
``imagesTr/BRATS_001.nii.gz`` with the four in one volume, and ``labelsTr``. Each axial slice that shows enough brain becomes
a row: 16-bit PNG files of the contrasts (the contrast-enhanced T1 in ``path``) and of the mask of the whole tumour.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.data.manifest import Record
from counterscan.data.readers.source import Source
from counterscan.errors import DataError

SHOWN, OTHERS = "T1c", ("T1", "T2", "FLAIR")
ENDINGS = {
    "t1": "T1",
    "t1n": "T1",
    "t1ce": "T1c",
    "t1c": "T1c",
    "t2": "T2",
    "t2w": "T2",
    "flair": "FLAIR",
    "t2f": "FLAIR",
}
NAME = re.compile(r"[-_](t1n|t1ce|t1c|t1|t2w|t2f|t2|flair|segm?)\.nii(\.gz)?$", re.IGNORECASE)
TOGETHER = ("FLAIR", "T1", "T1c", "T2")  # the order in the Decathlon's volumes
KINDS = {"MEN": "meningioma", "MET": "brain metastasis"}  # BraTS-MEN-…, BraTS-MET-…; all others are gliomas
PARTS = ("necrotic core", "peritumoral edema", "enhancing tumour")
LABELS = {"2021": (1, 2, 4), "2023": (1, 2, 3), "decathlon": (2, 1, 3)}  # of the parts; 4 is a cavity from 2024 on
ENOUGH = 1 / 8  # of a slice that has to be brain
BRIGHTEST = 99.5  # percentile of the brain in a volume that becomes white


@dataclass(frozen=True)
class Case:
    """The volumes of one examination: a file a contrast, or one for all of them."""

    name: str
    release: str
    volumes: dict[str, Path] = field(default_factory=dict)
    mask: Path | None = None

    @property
    def patient(self) -> str:
        """From 2023 on a name ends in the number of the examination: ``BraTS-GLI-00000-001``."""
        return self.name.rpartition("-")[0] if self.release == "2023" and self.name.count("-") > 2 else self.name

    @property
    def fingerprint(self) -> str:
        """Changes with the volumes, and with how they are turned into slices."""
        files = sorted({*self.volumes.values(), *([self.mask] if self.mask and self.mask.is_file() else [])})
        facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return hashlib.sha256(repr((facts, BRIGHTEST, self.release)).encode()).hexdigest()[:8]

    @property
    def kind(self) -> str:
        """The tumour that every patient of this challenge has."""
        return next((kind for mark, kind in KINDS.items() if f"-{mark}-" in self.name), "glioma")


def open_source(source: Path, work: Path) -> Source:
    """``work`` receives the slices; those of unchanged volumes are kept, so that an import can be gone on with."""
    cases = _together(source) if (source / "imagesTr").is_dir() else _apart(source)
    if not cases:
        raise DataError(f"{source}: has no case such as BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz, and no imagesTr")
    kinds = tuple(dict.fromkeys(case.kind for case in cases))
    return Source((*kinds, *PARTS), _records(cases, kinds, work), OTHERS)


def _together(source: Path) -> list[Case]:
    return [
        Case(path.name.partition(".")[0], "decathlon", dict.fromkeys(TOGETHER, path), source / "labelsTr" / path.name)
        for path in sorted((source / "imagesTr").glob("*.nii*"))
        if not path.name.startswith(".")
    ]


def _apart(source: Path) -> list[Case]:
    folders: dict[Path, dict[str, Path]] = {}
    for path in sorted(source.rglob("*.nii*")):
        if path.is_file() and not path.name.startswith(".") and (found := NAME.search(path.name)):
            folders.setdefault(path.parent, {})[found[1].lower()] = path
    cases = []
    for folder, files in folders.items():
        release = "2023" if files.keys() & {"t1n", "t1c", "t2w", "t2f"} else "2021"
        volumes = {ENDINGS[name]: path for name, path in files.items() if name in ENDINGS}
        cases.append(Case(folder.name, release, volumes, files.get("seg") or files.get("segm")))
    return cases


def _records(cases: list[Case], kinds: tuple[str, ...], work: Path) -> Iterator[Record]:
    faults = []
    for case in cases:
        try:
            yield from _slices(case, kinds, work)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"{len(faults)} of {len(cases)} cases cannot be used: {'; '.join(faults[:20])}")


def _slices(case: Case, kinds: tuple[str, ...], work: Path) -> Iterator[Record]:
    if missing := [name for name in (SHOWN, *OTHERS) if name not in case.volumes]:
        raise DataError(f"{case.name}: has no {', '.join(missing)}")
    volumes = {
        name: _grey(load(path, TOGETHER.index(name) if case.release == "decathlon" else None), path)
        for name, path in case.volumes.items()
    }
    parts = load(case.mask, None) if case.mask and case.mask.is_file() else None
    shapes = {v.shape for v in volumes.values()} | ({parts.shape} if parts is not None else set())
    if len(shapes) > 1:
        raise DataError(f"{case.name}: its volumes differ in shape: {', '.join(map(str, sorted(shapes)))}")
    folder = work / f"{case.name}-{case.fingerprint}"
    brain = np.logical_or.reduce([v > 0 for v in volumes.values()]).mean(axis=(0, 1))
    for k in np.flatnonzero(brain >= ENOUGH):
        files = {name: folder / f"{k:03d}_{name}.png" for name in volumes}
        for name, path in files.items():
            _save(volumes[name][..., k], path)
        findings: dict[str, int | None] = dict.fromkeys((*kinds, *PARTS))
        mask = ""
        if parts is not None:
            labels = LABELS[case.release]
            here = {part: bool((parts[..., k] == label).any()) for part, label in zip(PARTS, labels, strict=True)}
            findings |= dict.fromkeys(kinds, 0) | {part: int(seen) for part, seen in here.items()}
            findings[case.kind] = int(any(here.values()))
            mask = str(folder / f"{k:03d}_mask.png")
            _save(np.isin(parts[..., k], labels).astype(np.uint8) * 255, Path(mask))
        contrasts = {name: str(files[name]) for name in OTHERS}
        shown = str(files[SHOWN])
        yield Record(shown, case.patient, view="axial", mask=mask, findings=findings, contrasts=contrasts)


def load(path: Path, channel: int | None) -> NDArray[np.float32]:
    """A volume (rows, columns, slices) as radiologists see it: front up, the patient's right on the left, feet first."""
    import nibabel

    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        proxy: Any = image.dataobj
        values = np.asarray(proxy if channel is None else proxy[..., channel], np.float32)
    except Exception as error:  # nibabel, gzip and zlib raise a dozen types
        raise DataError(f"{path}: is not a readable NIfTI volume ({type(error).__name__})") from None
    if values.ndim != 3 or not np.isfinite(values).all():
        raise DataError(
            f"{path}: has shape {values.shape} or values that are no numbers; a finite 3-D volume is needed"
        )
    return values.transpose(1, 0, 2)[::-1, ::-1]


def _grey(values: NDArray[np.float32], path: Path) -> NDArray[np.uint16]:
    """uint16, 0 outside the brain, 65535 at its brightest percentile in the whole volume."""
    brain = values[values > 0]
    if not brain.size:
        raise DataError(f"{path}: is empty")
    top = float(np.percentile(brain, BRIGHTEST))
    return np.round(np.clip(values / top, 0, 1) * 65535).astype(np.uint16)


def _save(pixels: NDArray[np.uint16] | NDArray[np.uint8], path: Path) -> None:
    from counterscan.imaging.raster import save_png

    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(np.ascontiguousarray(pixels), path, {})
