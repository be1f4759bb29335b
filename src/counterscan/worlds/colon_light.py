"""How the colon looks: mucosa with vessels, wet highlights, a light beside the lens, and the video system's frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from counterscan.worlds.colon_objects import COLOURS, Polyp, Rod, hit
from counterscan.worlds.colon_scene import Waves, stream
from counterscan.worlds.geometry import Array, ramp

GREEN = (0.09, 0.62, 0.51)  # of the scope guide's box


def column(red: float, green: float, blue: float) -> Array:
    """A colour (3, 1), to lie over (3, N)."""
    return np.array([[red], [green], [blue]], np.float32)


def falls(distance: Array) -> Array:
    """How light falls with distance: less than by its square, since the walls light each other and the light is not a point."""
    return (distance + np.float32(0.5)) ** np.float32(-2.3)


def mucosa(seed: int, p: Array) -> Array:
    """Reflectance (3, N) of the wall at the points (3, N): blotches, vessels on patches, residue of stool."""
    rng = stream(seed, "mucosa")
    green = rng.uniform(0.32, 0.5)
    base = column(1.1, green, green * rng.uniform(0.5, 0.95)) * np.float32(rng.uniform(0.85, 1.15))
    blotch = np.float32(0.09) * Waves.draw(rng, 0.9, 6)(p) + np.float32(0.06) * Waves.draw(rng, 0.16, 8)(p)
    fade = np.exp(blotch)
    colour = base * np.stack([np.sqrt(fade), fade, fade])
    amount, patch = max(rng.uniform(-0.2, 0.9), 0.0), Waves.draw(rng, 1.3, 5)(p)
    warped = p.copy()
    for axis in (0, 1):
        warped[axis] += np.float32(0.06) * Waves.draw(rng, 0.4, 4)(p)
    lines = np.zeros(p.shape[1], np.float32)
    for wavelength, thin, share in ((0.75, 0.06, 1.0), (0.3, 0.11, 0.6)):
        ridge = Waves.draw(rng, wavelength, 8)(warped) * np.float32(1 / thin)
        np.maximum(lines, np.float32(share) * np.exp(-ridge * ridge), out=lines)
    lines *= np.float32(amount) * np.clip(0.5 + 0.5 * patch, 0, 1)
    colour *= 1 - lines * column(0.35, 0.75, 0.65)
    dirt = Waves.draw(rng, 0.55, 6)(p) + np.float32(0.5) * Waves.draw(rng, 0.14, 6)(p)
    dirty = np.float32(0.6) * ramp(dirt - np.float32(1.0 + 2.4 * rng.random() ** 0.5), 0.8)
    return colour + dirty * (column(0.95, 0.62, 0.12) * np.float32(rng.uniform(0.8, 1.1)) - colour)


def skin(polyp: Polyp, p: Array, mean: Array) -> Array:
    """The polyp's reflectance (3, N) where the wall's is ``mean`` (3, 1) on average: no vessels, a fine pattern of pits."""
    return mean * column(*COLOURS[polyp.colour]) * np.exp(column(0.05, 0.12, 0.11) * polyp.texture(p))


def lit(seed: int, p: Array, rays: Array, t: Array, normal: Array, colour: Array, gain: float) -> Array:
    """Light (3, N) that reaches the camera from the wall: diffuse, reflected between walls, and the wet film's glints."""
    rng = stream(seed, "light")
    ripple = 0.011 * rng.uniform(0.2, 1.2) * Waves.draw(rng, 0.09, 10).gradient(p)
    ripple += 0.02 * rng.uniform(0.4, 1.6) * Waves.draw(rng, 0.28, 8).gradient(p)
    facing = -(normal * rays).sum(0)
    fall = gain * falls(t)
    bumped = normal - 0.22 * ripple
    bumped /= np.sqrt((bumped * bumped).sum(0))
    shade = 0.36 + 0.64 * np.clip(0.7 * -(bumped * rays).sum(0) + 0.3 * facing, 0, None) ** np.float32(1.3)
    wet = normal - ripple
    wet /= np.sqrt((wet * wet).sum(0))
    glint = np.clip(-(wet * rays).sum(0), 0, 1) ** np.float32(rng.uniform(200, 700)) * (facing > 0)
    glint *= np.clip(0.7 + 0.6 * Waves.draw(rng, 0.8, 5)(p), 0, 1.6)  # the film of water lies here and there
    ambient = 0.2 * gain / (t + np.float32(0.3))
    light = colour * (shade * fall) + np.square(colour) * ambient
    return light + np.float32(rng.uniform(0.7, 2.5)) * glint * np.minimum(fall, 1.6)


def with_rods(
    light: Array, t: Array, rods: Sequence[Rod], place: Array, rays: Array, gain: float, pixel: float
) -> Array:
    """The light (3, N) with instruments in front of what lies at depth ``t`` (N,)."""
    light, near = light.copy(), t.copy()
    for rod in rods:
        depth, cover, square, along = hit(rod, place, rays, pixel)
        front = cover * (depth < near)
        touched = np.flatnonzero(front > 0)
        d, square = depth[touched], square[touched]
        fall = 0.85 * gain * falls(d)
        if rod.shine:
            pitch = 0.55 + 0.45 * np.cos(2 * np.pi * along[touched] / rod.stripes) if rod.stripes else 1.0
            tone = 0.06 + 0.3 * square * pitch + 0.9 * square**12 * pitch
        else:
            tone = 0.1 + 0.5 * square**1.5 + 0.4 * square**40
        seen = np.array(rod.colour)[:, None] * (tone * fall)
        light[:, touched] += front[touched] * (seen - light[:, touched])
        near[touched] = np.where(front[touched] > 0.5, d, near[touched])
    return light


def window(seed: int, u: Array, v: Array) -> Array:
    """The video frame's opening (H, W): 1 inside, 0 in the black border; an octagon or a rounded square."""
    rng = stream(seed, "frame")
    soft = 2.2 / u.shape[0]
    x0, y0 = 0.02 * rng.standard_normal(2)
    if rng.random() < 0.8:
        half, cut = rng.uniform(0.97, 1.05, 2), rng.uniform(1.46, 1.66)
        edge = np.minimum(half[0] - np.abs(u - x0), half[1] - np.abs(v - y0))
        return ramp(np.minimum(edge, (cut - np.abs(u - x0) - np.abs(v - y0)) / np.float32(np.sqrt(2))), soft)
    inset = rng.uniform(0.06, 0.14)
    half, round_ = np.array([1 - inset, 1 - 0.6 * inset]), rng.uniform(0.12, 0.35)
    qx = np.clip(np.abs(u - x0) - half[0] + round_, 0, None)
    qy = np.clip(np.abs(v - y0) - half[1] + round_, 0, None)
    return ramp(round_ - np.sqrt(qx * qx + qy * qy), soft)


def has_text(seed: int) -> bool:
    """Whether the video system writes over the picture."""
    return bool(stream(seed, "has text").random() < 0.75)


def text(seed: int, size: int) -> Array:
    """The overlay's letters (size, size) in [0, 1], down the left side."""
    rng = stream(seed, "text")
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(0.034 * size, 4.5))
    x, y, tone = rng.uniform(0.02, 0.05) * size, rng.uniform(0.2, 0.42) * size, int(rng.uniform(225, 255))
    day = f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/20{rng.integers(10, 20)}"
    clock = f"{rng.integers(8, 17):02d}:{rng.integers(60):02d}:{rng.integers(60):02d}"
    for k, line in enumerate([day, clock, f"CVP:{rng.integers(1, 20)}", f"D.F:{rng.integers(1, 5)}", "Gn:  Nr:"]):
        draw.text((x, y + 0.042 * size * k), line, fill=tone, font=font)
    return np.asarray(canvas, np.float32) / 255


def box(seed: int, size: int) -> tuple[slice, slice, Array]:
    """The artefact at the lower left: rows, columns and its pixels (h, w, 3): black, or green with the scope's outline."""
    rng = stream(seed, "box")
    width, height = rng.uniform(0.26, 0.35), rng.uniform(0.26, 0.34)
    left, bottom = 0.0, 1.0
    if rng.random() < 0.5:
        colour = (0.0, 0.0, 0.0)
    else:
        colour = GREEN
        left, bottom = rng.uniform(0, 0.05), 1 - rng.uniform(0, 0.05)
    rows = slice(round((bottom - height) * size), round(bottom * size))
    columns = slice(round(left * size), round((left + width) * size))
    h, w = rows.stop - rows.start, columns.stop - columns.start
    canvas = Image.new("RGB", (w, h), tuple(round(255 * c) for c in colour))
    if any(colour):
        turns = np.cumsum(rng.normal(0, 0.35, 12)) + rng.uniform(-2.5, -0.6)
        path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0) * 0.06 + (rng.uniform(0.4, 0.8), 0.9)
        points = [(float(a * w), float(b * h)) for a, b in path]
        ImageDraw.Draw(canvas).line(points, fill=(12, 70, 58), width=max(round(0.012 * size), 1))
    return rows, columns, np.asarray(canvas, np.float32) / 255


def display(seed: int, light: Array) -> Array:
    """Light (H, W, 3) as shown, in [0, 1]: a soft shoulder, the lens's blur and the processor's edge enhancement."""
    rng = stream(seed, "video")
    size = light.shape[0]
    shown = 1 - np.exp(-light)
    sigma, wide, amount = rng.uniform(0.0015, 0.004) * size, 0.012 * size, rng.uniform(0, 0.6)
    blurred = gaussian_filter(shown, (sigma, sigma, 0), truncate=3)
    halo = gaussian_filter(blurred, (wide, wide, 0), truncate=2.5)
    balance = 1 + 0.05 * rng.standard_normal(3) * np.array([0.3, 0.7, 1.0])
    return np.clip((blurred + amount * (blurred - halo)) * balance, 0, 1).astype(np.float32)
