"""A config is read, overridden and refused by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from counterscan.errors import WordsError
from counterscan.training.config import Config, read

MINIMAL = {"model": "chest-world", "output": "out", "data": {"manifest": "manifest.csv"}}
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def written(folder: Path, values: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def test_words_lie_over_the_file(tmp_path):
    asked = read(
        written(tmp_path, MINIMAL), ["steps=7", "optimizer.rate=1e-4", "train=[unet,text_encoder]", "ema=null"]
    )
    assert (asked.steps, asked.optimizer.rate, asked.train, asked.ema) == (7, 1e-4, ("unet", "text_encoder"), None)
    assert asked.data.captions.drop == 0.1, "guidance needs dropped prompts, so they are the default"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("steps=none", "steps"),
        ("optimizer.rat=1", "optimizer.rat: no such field; did you mean rate?"),
        ("objective.prediction=x0", "objective.prediction"),
        ("data.captions.drop=2", "data.captions.drop"),
        ("data.augment.flip=always", "data.augment.flip"),
        ("objective={prediction: epsilon, zero_snr: true}", "objective: zero_snr"),
        ("train=decoder", "train"),
        ("train=[]", "train"),
        ("train=[vae, unet]", "vae is trained alone"),
        ("train=[lora, unet]", "lora or the whole denoiser"),
        ("micro_batch=64", "micro_batch 64 is more than batch 16"),
        ("frozen=bfloat16", "frozen"),
        ("compact={}", "model and compact"),
        ("model.x=1", "model holds no fields"),
        ("steps", "key=value"),
        ("data.manifest=null", "data.manifest"),
    ],
)
def test_a_fault_names_its_field(tmp_path, word, names):
    with pytest.raises(WordsError, match=r".") as caught:
        read(written(tmp_path, MINIMAL), [word])
    assert names in str(caught.value)


def test_every_fault_is_named_at_once(tmp_path):
    with pytest.raises(WordsError) as caught:
        read(written(tmp_path, {"output": "out", "stepps": 3, "batch": 0, "model": "x"}))
    assert all(name in str(caught.value) for name in ("stepps", "did you mean steps", "batch", "data: is missing"))


@pytest.mark.parametrize(
    ("text", "says"), [("- a\n", "expected fields"), ("a: [", "not YAML"), ("", "expected fields")]
)
def test_a_file_that_is_no_config(tmp_path, text, says):
    with pytest.raises(WordsError, match=says):
        read(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WordsError, match="no.yaml"):
        read(tmp_path / "no.yaml")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_word_is_taken_or_refused(key, value):
    path = Path(__file__).parents[2] / "configs" / "quick-unet.yaml"
    with suppress(WordsError):
        assert isinstance(read(path, [f"{key}={value}"]), Config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_one(path):
    asked = read(path)
    assert asked.credit or path.stem.startswith("quick"), "a paper's recipe names the paper"
    assert path.read_text().startswith("# "), "a config opens by saying what it is"
