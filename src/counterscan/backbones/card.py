"""The model card, ``counterscan.json`` beside a diffusers folder: what the model knows and how to speak to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from counterscan.errors import ModelError
from counterscan.types import Sides

FILE = "counterscan.json"
Ways = Literal["prompt", "edits"]


@dataclass(frozen=True)
class Card:
    """What a model was trained for.

    ``findings`` are canonical names; ``template`` the words a prompt starts with ("nih chest radiograph");
    ``channels`` and ``resolution`` (pixels, square) are what ``encode`` takes; ``value_range`` the range of its images.
    ``classes`` are the words of a class-conditional model's classes, by number; "" is the one that says nothing.
    ``contrasts`` are the channels' names where they are contrasts of one slice, as manifests name them: ``path_T2``.
    ``method_settings`` are, by the method's name, what suits this model better than the method's own defaults;
    ``generate_by`` is "prompt" where images from text are drawn under the whole prompt, and "edits" where the findings it
    tells of come out better as edits of an image without them; ``null_change`` is, for each finding, the strongest change
    that removing it makes in 95 % of images without it. ``sides`` says whose "left" and "right" are in its words: the patient's,
    who faces the reader, or the image's.
    """

    name: str
    family: str = "stable_diffusion"
    findings: tuple[str, ...] = ()
    template: str = "chest radiograph"
    channels: int = 3
    resolution: int = 512
    value_range: tuple[float, float] = (0.0, 1.0)
    default_method: str = "edit-friendly"
    method_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    null_change: Mapping[str, float] = field(default_factory=dict)
    license: str = ""
    credit: str = ""
    classes: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()
    generate_by: Ways = "prompt"
    sides: Sides = "patient"

    @staticmethod
    def read(folder: Path) -> Card | None:
        """The card of a model folder; ``None`` when there is none. Keys of later versions are passed over."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {f.name: values[f.name] for f in fields(Card) if f.name in values}
            for key in ("findings", "classes", "contrasts"):
                known[key] = tuple(str(name) for name in known.get(key, ()))
            settings = dict(known.get("method_settings", {}))
            known["method_settings"] = {str(name): dict(values) for name, values in settings.items()}
            low, high = known.get("value_range", (0.0, 1.0))
            known["value_range"] = (float(low), float(high))
            for name, choices in (("generate_by", get_args(Ways)), ("sides", get_args(Sides))):
                if known.get(name, choices[0]) not in choices:
                    raise ValueError(f"{name} is {known[name]!r}; there are {', '.join(choices)}")
            card = Card(**known)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"{path}: not a model card ({error}); compare it with the card of a built-in model"
            ) from error
        if card.channels < 1 or card.resolution < 1:
            raise ModelError(
                f"{path}: channels and resolution must be positive, got {card.channels} and {card.resolution}"
            )
        return card

    def write(self, folder: Path) -> Path:
        """Write the card into a model folder; returns its path."""
        path = folder / FILE
        draft = path.with_name(f".{FILE}.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(draft, path)
        return path
