"""Figures with pillow alone, so that drawing one costs milliseconds. All images in are float arrays in the unit
scale.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TITLES = ("original", "counterfactual", "difference", "on the original")
RED, BLUE = np.array([0.79, 0.0, 0.13]), np.array([0.02, 0.31, 0.68])  # denser, more lucent
GAP, TITLE = 6, 22


def panels(factual: np.ndarray, counterfactual: np.ndarray, difference: np.ndarray, *, side: int = 320) -> Image.Image:
    """Original, counterfactual, signed difference (blue less, white none, red more), and the difference on the
    original.
    """
    scale = difference_scale(difference)
    pictures = [
        colour(factual),
        colour(counterfactual),
        signed_map(difference, scale),
        overlay(factual, difference, scale),
    ]
    height, width = difference.shape
    size = (max(1, round(width * side / height)), side)
    canvas = Image.new("RGB", (4 * size[0] + 5 * GAP, side + TITLE + 2 * GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for i, (picture, title) in enumerate(
        zip(pictures, (*TITLES[:2], f"difference, ±{scale:.2g}", TITLES[3]), strict=True)
    ):
        left = GAP + i * (size[0] + GAP)
        canvas.paste(as_image(picture).resize(size, Image.Resampling.LANCZOS), (left, TITLE + GAP))
        draw.text((left, GAP), title, fill="black", font=font)
    return canvas


def difference_scale(difference: np.ndarray) -> float:
    """The absolute difference that is drawn in full colour: the largest but for 1 in 1000, at least 0.05."""
    return max(0.05, float(np.quantile(np.abs(difference), 0.999)))


def signed_map(difference: np.ndarray, scale: float) -> np.ndarray:
    """Signed (H, W) → RGB (H, W, 3): blue is ``-scale`` and below, white 0, red ``scale`` and above."""
    strength = np.clip(difference / scale, -1, 1)[..., None]
    end = np.where(strength > 0, RED, BLUE)
    return 1 - np.abs(strength) * (1 - end)


def overlay(image: np.ndarray, difference: np.ndarray, scale: float) -> np.ndarray:
    """The image (H, W[, 3]) tinted red where the counterfactual is denser, blue where it is less dense."""
    strength = np.clip(difference / scale, -1, 1)[..., None]
    tint = np.where(strength > 0, RED, BLUE)
    alpha = 0.7 * np.abs(strength)
    return (1 - alpha) * colour(image) + alpha * tint


def colour(image: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 3) or (H, W, C) → (H, W, 3); of more than three contrasts the last three are red, green and blue."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., -3:]


def as_image(array: np.ndarray) -> Image.Image:
    """RGB (H, W, 3) in [0, 1] → an 8-bit picture."""
    return Image.fromarray((np.clip(array, 0, 1) * 255).round().astype(np.uint8))
