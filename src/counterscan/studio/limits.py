"""What one visitor may ask of the server, and how much the server holds at all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes and pixels, times in seconds, the rest in numbers.

    ``view_side`` is the longest side of what the browser is sent to look at; results keep their own size.
    ``series_bytes`` is the size of a zip of DICOM files and ``unpacked_bytes`` what may come out of it, ``instances`` how many
    files it may hold, ``series`` how many of them a session keeps.
    ``kept_pixels`` are the pixels of all counterfactuals that one job holds at once, some 15 bytes each.
    ``queued`` and ``queued_each`` count the jobs that wait or run, of all and of one session.
    """

    upload_bytes: int = 64 * 2**20
    pixels: int = 40_000_000
    view_side: int = 2048
    kept_pixels: int = 200_000_000
    images: int = 100
    series: int = 4
    series_bytes: int = 256 * 2**20
    unpacked_bytes: int = 2**30
    instances: int = 2000
    sessions: int = 200
    session_bytes: int = 2 * 2**30
    idle_seconds: float = 4 * 3600
    queued: int = 32
    queued_each: int = 8
    decoders: int = 2
    decode_seconds: float = 30
    decode_bytes: int = 4 * 2**30
