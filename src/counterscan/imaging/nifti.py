"""NIfTI slices in and out: values, scaling, affine and header stay those of the source."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterscan.errors import ImageError
from counterscan.imaging.files import replacing
from counterscan.imaging.picture import Picture, check, check_size, middle_window
from counterscan.imaging.provenance import DISCLAIMER, SOFTWARE, as_json

MARK = f"{SOFTWARE}: synthetic, not for diagnosis".encode()


@dataclass(frozen=True, eq=False)
class Geometry:
    """What takes a picture back to its file: the nibabel header, the slope and intercept, and how it was turned."""

    header: Any
    shape: tuple[int, ...]
    scaling: tuple[float, float]
    turn: Turn


@dataclass(frozen=True)
class Turn:
    """From a file's two axes to rows and columns as radiologists see them: transposed first, then flipped."""

    transposed: bool = False
    rows: bool = False
    columns: bool = False

    def apply(self, plane: NDArray[Any]) -> NDArray[Any]:
        """The plane as shown."""
        plane = plane.T if self.transposed else plane
        return plane[:: -1 if self.rows else 1, :: -1 if self.columns else 1]

    def undo(self, shown: NDArray[Any]) -> NDArray[Any]:
        """The plane as stored."""
        plane = shown[:: -1 if self.rows else 1, :: -1 if self.columns else 1]
        return plane.T if self.transposed else plane


def turn_for(codes: tuple[str | None, str | None]) -> Turn:
    """How to show a plane whose axes run towards ``codes`` (R, L, A, P, S, I): head or front up, patient's right left."""
    down = next((i for pair in ("SI", "AP") for i in (0, 1) if codes[i] and str(codes[i]) in pair), None)
    if down is None or codes[1 - down] is None:
        return Turn()
    return Turn(transposed=down == 1, rows=codes[down] in ("S", "A"), columns=codes[1 - down] in ("R", "A"))


def read_nifti(path: Path, index: int | None = None) -> Picture:
    """A NIfTI file with one slice, or slice ``index`` of a volume's last axis. The window is cal_min to cal_max if set."""
    import nibabel
    from nibabel.arrayproxy import ArrayProxy

    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise ImageError(f"{path.name}: is not a NIfTI file")
        proxy: Any = image.dataobj
        axes = _axes(path.name, image.shape, index)
        dtype = image.get_data_dtype()
        if dtype.kind not in "uif" or dtype.itemsize > 8 or (dtype.kind in "ui" and dtype.itemsize > 4):
            raise ImageError(f"{path.name}: holds {dtype}; one grey value a pixel, up to 32 bits, is needed")
        check_size(path.name, image.shape[axes[1]], image.shape[axes[0]])
        # a second proxy without slope and intercept: the values as stored
        stored = ArrayProxy(proxy.file_like, (image.shape, dtype, proxy.offset))
        plane = np.asarray(stored[..., index] if index is not None else stored[...])
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise ImageError(f"{path.name}: is not a readable NIfTI file ({type(error).__name__})") from None
    plane = plane.reshape([image.shape[a] for a in axes], order="F").astype(dtype.newbyteorder("="))
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        raise ImageError(f"{path.name}: holds NaN or infinite values; replace them by the background's value")
    header = _slice_header(image, index) if index is not None else image.header.copy()
    oriented = header["sform_code"] > 0 or header["qform_code"] > 0
    codes = nibabel.aff2axcodes(image.affine) if oriented else (None, None, None)
    turn = turn_for((codes[axes[0]], codes[axes[1]]))
    geometry = Geometry(header, header.get_data_shape(), (proxy.slope, proxy.inter), turn)
    return replace(_picture(path, np.ascontiguousarray(turn.apply(plane)), geometry, axes), slice_index=index)


def _axes(name: str, shape: tuple[int, ...], index: int | None) -> tuple[int, int]:
    """The two axes of the plane that is meant; everything else has to have length 1."""
    long = [axis for axis, n in enumerate(shape) if n > 1]
    size = "x".join(map(str, shape))
    if any(axis > 2 for axis in long):
        raise ImageError(f"{name}: has {len(shape)} dimensions ({size}); save one slice of one volume as its own file")
    if len(long) == 3 and index is None:
        last = shape[2] - 1
        raise ImageError(
            f"{name}: is a volume of {size}; give a slice index from 0 to {last} (--slice), or save that slice as its own file"
        )
    if index is not None and (len(shape) != 3 or not 0 <= index < shape[2]):
        raise ImageError(f"{name}: has no slice {index} in {size}")
    if index is not None or len(long) < 2:
        return 0, 1
    return long[0], long[1]


def _slice_header(image: Any, index: int) -> Any:
    """The header of slice ``index`` alone: one slice thick, its origin moved to where the slice lies."""
    header, affine = image.header.copy(), image.affine.copy()
    affine[:3, 3] += affine[:3, 2] * index
    header.set_data_shape((*image.shape[:2], 1))
    if header["qform_code"] > 0:
        header.set_qform(affine, int(header["qform_code"]), strip_shears=True)
    if header["sform_code"] > 0:
        header.set_sform(affine, int(header["sform_code"]))
    return header


def _picture(path: Path, pixels: NDArray[Any], geometry: Geometry, axes: tuple[int, int]) -> Picture:
    header, (slope, intercept) = geometry.header, geometry.scaling
    low, high = ((float(header[key]) - intercept) / slope for key in ("cal_min", "cal_max"))
    low, high = min(low, high), max(low, high)
    if not (np.isfinite([low, high]).all() and low < high and low < pixels.max() and high > pixels.min()):
        low, high = middle_window(pixels)
    spacing = [float(header.get_zooms()[axis]) for axis in axes][:: -1 if geometry.turn.transposed else 1]
    return check(
        Picture(
            pixels, path, "nifti", pixels.dtype.itemsize * 8, low, high,
            inverted=slope < 0, spacing_mm=(spacing[0], spacing[1]) if min(spacing) > 0 else None, header=geometry,
            synthetic=header["descrip"].item() == MARK,
        )
    )  # fmt: skip


def write_nifti(picture: Picture, path: Path, note: Mapping[str, Any] | None) -> Path:
    """Write a picture that came from NIfTI with its source's header, marked synthetic in description and comment; with
    ``note`` ``None`` unmarked.
    """
    from nibabel.nifti1 import Nifti1Extension

    geometry = picture.header
    if not isinstance(geometry, Geometry):
        raise ImageError(f"{path.name}: only a picture read from NIfTI can be written as NIfTI; write .png")
    header = geometry.header.copy()
    header.set_slope_inter(*geometry.scaling)
    if note is not None:
        header["descrip"] = MARK
        comment = Nifti1Extension("comment", f"{DISCLAIMER} {as_json(note)}".encode())
        header.extensions = type(header.extensions)([*header.extensions, comment])
    header["vox_offset"] = 0  # nibabel puts the pixels right behind the extensions
    plane = geometry.turn.undo(picture.pixels).astype(header.get_data_dtype())
    data = plane.reshape(geometry.shape, order="F").tobytes(order="F")
    with replacing(path) as draft:
        opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
        with opener(draft, "wb") as file:
            header.write_to(file)
            file.write(b"\0" * (int(header["vox_offset"]) - file.tell()))
            file.write(data)
    return path
