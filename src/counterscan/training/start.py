"""Where a run starts: the folder of a model that exists, or of one built from nothing."""

from __future__ import annotations

import inspect
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from counterscan.backbones import compact, compact_pixel, load, locate
from counterscan.backbones.components import read_json
from counterscan.errors import WordsError
from counterscan.training.config import Config
from counterscan.training.corpus import Corpus, fitting, words_of
from counterscan.training.finish import write_component
from counterscan.training.parts import encoders
from counterscan.training.words import teach


def start_folder(config: Config, corpus: Corpus, *, anew: bool = False) -> Path:
    """The pipeline folder that is trained from; one from nothing is built in the run's folder, once or ``anew``."""
    if config.model is not None:
        found = locate(config.model)
        if found.resolve() == config.output.resolve():
            raise WordsError(f"output: {config.output} is the model that is started from; name another folder")
        decoder = read_json(found / "model_index.json").get("_class_name") == "KandinskyV22Pipeline"
        if decoder and not Path(config.model).exists():  # on the hub its prior is a model of its own
            locate(config.model.replace("decoder", "prior"))
        return found
    folder = config.output / "start"
    built = (folder / "model_index.json").is_file()
    if anew or not built:
        draft = config.output / f".start.{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        build(config, corpus, draft)
        shutil.rmtree(folder, ignore_errors=True)  # all of it, also what a kill here left
        draft.rename(folder)
    return folder


def build(config: Config, corpus: Corpus, folder: Path) -> None:
    """A small model that knows the findings of the corpus and, where it has a tokenizer, the words."""
    kind, builder = ("pixel", compact_pixel.build) if config.pixel is not None else ("compact", compact.build)
    settings: dict[str, Any] = dict((config.pixel if kind == "pixel" else config.compact) or {})
    known = sorted({*inspect.signature(builder).parameters, *(["taught"] if kind == "compact" else [])} - {"folder"})
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise WordsError(f"{kind}: no field {', '.join(unknown)}; there are {', '.join(known)}")
    own: dict[str, Any] = {"name": config.name or config.output.name, "template": config.data.captions.template}
    own |= {"findings": corpus.findings, "seed": config.seed}
    taught = settings.pop("taught", 0)
    if not (isinstance(taught, int) and taught >= 0):
        raise WordsError(f"{kind}: taught is a number of steps, got {taught!r}")
    if kind == "compact":
        own["words"] = words(corpus) + list(settings.pop("words", ()))
    try:
        builder(folder, **(own | settings))
    except (ValueError, TypeError) as error:
        raise WordsError(f"{kind}: {error}") from error
    if taught:
        teach_words(folder, corpus, config, taught)


def teach_words(folder: Path, corpus: Corpus, config: Config, steps: int) -> None:
    """Teach the folder's text encoder, and what of its U-Net pools the tokens, to tell the captions of the corpus apart."""
    backbone: Any = load(folder, device="cpu")
    encoder, unet = (part.requires_grad_(True) for part in (backbone.text_encoder, backbone.unet))
    corpus = replace(corpus, fit=fitting(encoders(backbone), corpus.findings))

    def of_any(rng: np.random.Generator) -> str:
        return words_of(corpus, int(rng.integers(len(corpus))), config.data.captions, rng)

    teach(encoder, unet.add_embedding, backbone.tokenizer, of_any, steps=steps, seed=config.seed)
    write_component(encoder, folder / "text_encoder")
    write_component(unet, folder / "unet")


def words(corpus: Corpus) -> list[str]:
    """Every word that a caption of the corpus can hold."""
    found = {w for text in dict.fromkeys(corpus.captions) for w in text.lower().split()}
    for row in corpus.rows:
        found.update(row.template.lower().split(), (row.view or "").lower().split(), (row.sex or "").split())
    found.update(w for name in corpus.findings for w in name.split())
    return sorted(found | {"no", "possible", "left", "right", "male", "female"})
