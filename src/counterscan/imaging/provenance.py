"""What every image that we write says about itself: that it is synthetic, how it was made, and not for diagnosis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SOFTWARE = "Counterscan"
DISCLAIMER = "Synthetic image made by software. Not for diagnosis."
LONGEST = 1024
"""Characters that DICOM allows in a DerivationDescription."""


def software_version() -> str:
    """The installed version, or ``unknown`` when run from a plain checkout."""
    try:
        return version("counterscan")
    except PackageNotFoundError:
        return "unknown"


def as_json(note: Mapping[str, Any]) -> str:
    """The note as one line of JSON, keys sorted."""
    return json.dumps(dict(note), sort_keys=True, default=str)


def derivation(note: Mapping[str, Any], longest: int = LONGEST) -> str:
    """The note as one ASCII sentence of at most ``longest`` characters.

    The free text under ``words`` comes last, so that it is what gets cut and never the model's fingerprint or the seed.
    """
    facts = {key: value for key, value in note.items() if key != "words"}
    if "words" in note:
        facts["words"] = note["words"]
    text = f"{SOFTWARE}: synthetic, not for diagnosis. " + ", ".join(f"{k}: {v}" for k, v in facts.items())
    text = text.encode("ascii", "replace").decode()
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())  # ESC would switch character sets
    return text if len(text) <= longest else text[: longest - 3] + "..."
