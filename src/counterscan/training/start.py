"""Where a run starts: the folder of a model that exists, or of one built from nothing."""

from __future__ import annotations

import inspect
import os
import shutil
from pathlib import Path
from typing import Any

from counterscan.backbones import compact, locate
from counterscan.errors import WordsError
from counterscan.training.config import Config
from counterscan.training.corpus import Corpus

BUILD = frozenset(inspect.signature(compact.build).parameters) - {"folder"}


def start_folder(config: Config, corpus: Corpus) -> Path:
    """The pipeline folder that is trained from; one from nothing is built once, in the run's folder."""
    if config.model is not None:
        return locate(config.model)
    folder = config.output / "start"
    if not (folder / "model_index.json").is_file():
        draft = config.output / f".start.{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        build_compact(config, corpus, draft)
        draft.rename(folder)
    return folder


def build_compact(config: Config, corpus: Corpus, folder: Path) -> None:
    """A small Stable Diffusion pipeline whose tokenizer knows the words of the corpus."""
    settings = dict(config.compact or {})
    unknown = sorted(set(settings) - BUILD)
    if unknown:
        raise WordsError(f"compact: no field {', '.join(unknown)}; there are {', '.join(sorted(BUILD))}")
    captions = config.data.captions
    own: dict[str, Any] = {
        "words": words(corpus) + list(settings.pop("words", ())),
        "name": config.name or config.output.name,
    }
    own |= {"template": captions.template, "findings": corpus.findings, "seed": config.seed}
    try:
        compact.build(folder, **(own | settings))
    except (ValueError, TypeError) as error:
        raise WordsError(f"compact: {error}") from error


def words(corpus: Corpus) -> list[str]:
    """Every word that a caption of the corpus can hold."""
    found = {w for text in dict.fromkeys(corpus.captions) for w in text.lower().split()}
    for row in corpus.rows:
        found.update(row.template.lower().split(), (row.view or "").lower().split(), (row.sex or "").split())
    found.update(w for name in corpus.findings for w in name.split())
    return sorted(found | {"no", "possible", "left", "right", "male", "female"})
