"""``edit``: words and an image in, a counterfactual out. Everything between is someone else's: this file only joins
them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterscan.blending import blend
from counterscan.errors import ImageError, WordsError
from counterscan.result import Counterfactual

if TYPE_CHECKING:
    from torch import Tensor

    from counterscan.backbones.base import Backbone
    from counterscan.imaging import Picture, Placement
    from counterscan.methods import Method, Progress
    from counterscan.types import Edit

BATCH = 4

# Named regions as (top, left, bottom, right) fractions of the image. Sides are the PATIENT's: on a frontal radiograph
# the patient's left is on the right of the image. Coarse on purpose: give a mask where the border matters.
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "left lung": (0.05, 0.5, 0.95, 1.0),
    "right lung": (0.05, 0.0, 0.95, 0.5),
    "left upper zone": (0.05, 0.5, 0.4, 1.0),
    "left middle zone": (0.3, 0.5, 0.65, 1.0),
    "left lower zone": (0.55, 0.5, 1.0, 1.0),
    "right upper zone": (0.05, 0.0, 0.4, 0.5),
    "right middle zone": (0.3, 0.0, 0.65, 0.5),
    "right lower zone": (0.55, 0.0, 1.0, 0.5),
    "upper zones": (0.0, 0.0, 0.45, 1.0),
    "lower zones": (0.5, 0.0, 1.0, 1.0),
    "heart": (0.35, 0.25, 0.95, 0.85),
    "mediastinum": (0.0, 0.3, 0.9, 0.7),
    "left": (0.0, 0.5, 1.0, 1.0),
    "right": (0.0, 0.0, 1.0, 0.5),
}


def edit(
    image: Any,
    *,
    remove: str | Sequence[str] = (),
    add: str | Sequence[str] = (),
    source: str | None = None,
    target: str | None = None,
    instruct: str | None = None,
    region: str | None = None,
    mask: Any = None,
    keep: str | Sequence[str] = (),
    method: str | Method | None = None,
    model: str | Path | Backbone = "chest-nih",
    seed: int = 0,
    progress: Progress | None = None,
) -> Any:
    """What the image would look like with findings removed or added: a ``Counterfactual``, or a list for a list.

    ``image`` is a path, array, PIL image or ``Picture``, or a list of these. Say what to change by ``remove``/``add``
    names, by ``source`` and ``target`` prompts, or by an instruction. ``region`` (a key of ``REGIONS``) or ``mask``
    (a path or an array of the image's own size, non-zero = may change) limits where. Every image gets the same
    ``seed``, so its result does not depend on the others in the list. ``progress(done, total)`` counts steps over the
    whole list.
    """
    from counterscan import methods
    from counterscan.backbones.text import tell_unknown
    from counterscan.language import resolve

    check_seed(seed)
    several = isinstance(image, list | tuple)
    pictures = [as_picture(item) for item in (image if several else [image])]
    backbone = as_backbone(model)
    if method is None or isinstance(method, str):
        method = methods.suited(backbone.card, method, keep=bool(keep))
    request = resolve(
        remove=_names(remove),
        add=_names(add),
        source=source,
        target=target,
        instruct=instruct,
        region=region,
        keep=_names(keep),
        card=backbone.card,
    )
    if mask is not None:
        request = replace(request, mask=read_mask(mask))
    if pictures and source is not None:
        tell_unknown(backbone, request.source, request.target)
    results = apply(pictures, request, method, backbone, seed=seed, progress=progress)
    return results if several else results[0]


def apply(
    pictures: Sequence[Picture],
    request: Edit,
    method: Method,
    backbone: Backbone,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Counterfactual]:
    """One resolved edit on many pictures, ``BATCH`` at a time in the model's own size."""
    for picture in pictures:
        allowed_area(request, picture.unit().shape[:2])  # refuse a bad mask or region before any work is done
    results: list[Counterfactual] = []
    for start in range(0, len(pictures), BATCH):
        group = pictures[start : start + BATCH]
        results += _apply_group(
            group, request, method, backbone, seed, _over(progress, start, len(group), len(pictures))
        )
    return results


def _apply_group(
    pictures: Sequence[Picture], request: Edit, method: Method, backbone: Backbone, seed: int, progress: Progress | None
) -> list[Counterfactual]:
    import torch

    from counterscan.imaging import fit

    began, spent = time.perf_counter(), backbone.evaluations
    fitted = [fit(picture.unit(), backbone.resolution) for picture in pictures]
    batch = torch.stack([to_tensor(square, backbone.channels) for square, _ in fitted]).to(backbone.device)
    generators = [torch.Generator().manual_seed(seed) for _ in pictures]
    edited = method(backbone, batch, request, generator=generators, progress=progress)
    reconstruction = backbone.decode(backbone.encode(batch))
    evaluations = (backbone.evaluations - spent) // len(pictures)
    facts: dict[str, Any] = {"seed": seed, "model": backbone.card.name, "fingerprint": backbone.fingerprint}
    results = [
        finished(picture, *where, before, after, request, method, evaluations=evaluations, **facts)
        for picture, where, before, after in zip(pictures, fitted, reconstruction, edited, strict=True)
    ]
    seconds = (time.perf_counter() - began) / len(pictures)
    return [replace(result, seconds=seconds) for result in results]


def _native_change(
    picture: Picture,
    square: np.ndarray,
    reconstruction: np.ndarray,
    edited: np.ndarray,
    placement: Placement,
    request: Edit,
) -> tuple[np.ndarray, np.ndarray]:
    """The change and its weight at the picture's own size. The weight is exactly 0 outside the allowed area."""
    from counterscan.imaging import fit

    allowed = allowed_area(request, picture.unit().shape[:2])
    inside = None if allowed is None else fit(allowed.astype(np.float32), square.shape[0])[0] > 0.5
    change, weight = blend(square, reconstruction, edited, region_mask=inside)
    change, weight = placement.restore(change), np.clip(placement.restore(weight), 0, 1)
    weight[weight < 1 / 512] = 0  # resampling leaves traces around zero
    if allowed is not None:
        weight[~allowed] = 0
    return change, weight


def finished(
    picture: Picture,
    square: np.ndarray,
    placement: Placement,
    reconstruction: Tensor,
    edited: Tensor,
    request: Edit,
    method: Method,
    **facts: Any,
) -> Counterfactual:
    """What the model made of a picture's ``square``, both (C, S, S), put into the picture; ``facts`` go into the result."""
    from counterscan.imaging import composite

    grey = square.ndim == 2
    before, after = to_array(reconstruction, grey), to_array(edited, grey)
    change, weight = _native_change(picture, square, before, after, placement, request)
    counterfactual = picture.with_pixels(composite(picture, change, weight))
    difference = _flat(counterfactual.unit() - picture.unit())
    return Counterfactual(
        factual=picture,
        counterfactual=counterfactual,
        difference=difference.astype(np.float32),
        mask=weight > 0,
        edit=request,
        method=method.name,
        settings=asdict(method),  # type: ignore[call-overload]
        unblended=_flat(change).astype(np.float32),
        **facts,
    )


def _flat(change: np.ndarray) -> np.ndarray:
    """A signed change (H, W[, C]) as one (H, W): the mean over colours.

    Of contrasts, in which a lesion is dark here and bright there so that a mean would hide it, the mean size, with the sign
    of the contrast that changes most.
    """
    if change.ndim == 2 or change.shape[2] == 3:
        return change if change.ndim == 2 else change.mean(axis=2)
    most = np.take_along_axis(change, np.abs(change).argmax(axis=2, keepdims=True), axis=2)[..., 0]
    return np.asarray(np.abs(change).mean(axis=2) * np.sign(most))


def as_picture(image: Any) -> Picture:
    """A ``Picture`` from a path, an array, a PIL image or a ``Picture``."""
    from counterscan.imaging import Picture, from_array, read

    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return read(Path(image))
    try:
        array = np.asarray(_plain(image) if hasattr(image, "convert") else image)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that needs gradients
        raise ImageError(f"cannot read an image from {type(image).__name__}: {error}") from error
    return from_array(array)


def _plain(image: Any) -> Any:
    """A PIL image of grey levels or colours, upright, without palette or transparency, as the readers of files make it."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    return (
        image.convert("RGB")
        if image.mode in ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
        else image
    )


def as_backbone(model: str | Path | Backbone) -> Backbone:
    """A loaded model, from its name, folder or hub id where it is not loaded yet."""
    if isinstance(model, str | Path):
        from counterscan.backbones import load

        return load(model)
    return model


def read_mask(mask: Any) -> Tensor:
    """A bool tensor (H, W), True where the image may change, from a path (drawn on = True) or an array (non-zero = True)."""
    import torch

    try:
        array = _mask_file(Path(mask)) if isinstance(mask, str | Path) else np.asarray(mask)
    except ValueError as error:
        raise ImageError(f"a mask is a picture (H, W): {error}") from None
    if array.ndim == 3:
        array = np.any(array, axis=2, keepdims=True)[..., 0]
    if array.ndim != 2:
        raise ImageError(f"a mask is a picture of one layer (H, W), got shape {array.shape}")
    if not array.any():
        raise ImageError("the mask is empty: nothing may change; draw the area that may")
    return torch.from_numpy(array != 0)


def _mask_file(path: Path) -> np.ndarray:
    """Where a picture is drawn on, bool (H, W[, C]): neither black nor transparent; of a JPEG, whose black is unclean, bright."""
    from PIL import Image

    from counterscan.imaging.masks import opaque

    try:
        with Image.open(path) as file:
            return np.asarray(opaque(file)) > (127 if file.format == "JPEG" else 0)
    except (OSError, Image.DecompressionBombError) as error:  # OSError: also for a file that pillow does not know
        raise ImageError(f"{path}: the mask cannot be read ({error}); save it as a black and white PNG") from error


def allowed_area(request: Edit, size: tuple[int, int]) -> np.ndarray | None:
    """Where an image (H, W) may change, bool; ``None`` = everywhere. A mask and a region limit together."""
    area: np.ndarray | None = None
    if request.region is not None:
        if request.region not in REGIONS:
            raise WordsError(f"no region {request.region!r}: known are {', '.join(sorted(REGIONS))}; or give a mask")
        height, width = size
        top, left, bottom, right = REGIONS[request.region]
        area = np.zeros(size, bool)
        area[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    if request.mask is not None:
        mask: np.ndarray = request.mask.cpu().numpy().astype(bool)
        if mask.shape != tuple(size):
            raise ImageError(
                f"the mask is {mask.shape[1]}x{mask.shape[0]}, the image {size[1]}x{size[0]}; draw it on the image"
            )
        area = mask if area is None else area & mask
    return area


def to_tensor(square: np.ndarray, channels: int) -> Tensor:
    """A fitted image (S, S[, C]) as (C, S, S), grey repeated or colours averaged to the model's channels.

    Contrasts are neither: an ``ImageError`` says how many the model takes.
    """
    import torch

    image = torch.from_numpy(np.ascontiguousarray(square, dtype=np.float32))
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    if image.shape[0] == channels:
        return image
    if not {image.shape[0], channels} <= {1, 3}:
        raise ImageError(
            f"the image has {image.shape[0]} channels, the model takes {channels}; give an array (H, W, {channels}), "
            "such as a .npy file"
        )
    return image.mean(0, keepdim=True).expand(channels, -1, -1)


def to_array(image: Tensor, grey: bool) -> np.ndarray:
    """The model's (C, S, S) as (S, S) for a grey picture, (S, S, 3) for a coloured one."""
    array = image.float().cpu().numpy()
    if grey:
        return array.mean(axis=0)
    return np.repeat(array[0][..., None], 3, axis=2) if array.shape[0] == 1 else np.moveaxis(array, 0, 2)


def check_seed(seed: Any) -> None:
    """``WordsError`` for what no random generator can begin with."""
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise WordsError(f"a seed is a whole number, 0 to 2^63 - 1, got {seed!r}")


def _names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _over(progress: Progress | None, start: int, size: int, total: int) -> Progress | None:
    """Progress of a group as progress of the whole list."""
    if progress is None:
        return None

    def report(done: int, steps: int) -> None:
        progress(start * steps + done * size, total * steps)

    return report
