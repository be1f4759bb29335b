"""Feature spaces of every kind, from small files in the real formats."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterscan.errors import ModelError, WordsError
from counterscan.evaluate.fidelity import fidelity
from counterscan.evaluate.spaces import open_space


def images(n, channels, size):
    return torch.rand((n, channels, size, size), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A dual encoder of random weights with its processor and tokenizer, as a hub folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("hub") / "tiny-clip"
    words = {"[PAD]": 0, "[UNK]": 1, "effusion": 2, "normal": 3}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=small | {"vocab_size": 8, "max_position_embeddings": 16, "eos_token_id": 3},
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    facts = {"crop_size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


def test_a_classifier_gives_features_and_probabilities(judge):
    space, x = open_space(str(judge)), images(3, 1, 32)
    assert space(x).shape == (3, space.dimensions)
    assert space.labels == ("pleural effusion", "pacemaker")
    assert len(space.key) == 8 and space.key == open_space(str(judge)).key
    from counterscan.robustness.classifier import Classifier

    torch.testing.assert_close(space.read(space(x)).detach(), Classifier.load(judge).probabilities(x))


def test_a_dual_encoder_normalises_as_its_processor_says_and_scores_words(clip, world, tmp_path):
    from transformers import CLIPModel

    space, x = open_space(f"hf:{clip}", offline=True), images(2, 3, 32)
    assert (space.name, space.size, space.dimensions) == ("tiny-clip", 32, 12)
    pixels = (x - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        vision = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    torch.testing.assert_close(space(x), vision, atol=1e-5, rtol=1e-4)
    told = fidelity(world / "manifest.csv", world / "made.csv", tmp_path, spaces=[f"hf:{clip}"], offline=True)
    score = told["spaces"][0]["scores"]["image-text/tiny-clip"]
    assert -1 <= score["low"] <= score["mean"] <= score["high"] <= 1 and score["n"] == 40


class FakeClip(torch.nn.Module):
    """Three numbers an image or text, which tell what was asked."""

    def __init__(self):
        super().__init__()
        settings = {"size": (24, 24), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
        self.visual = SimpleNamespace(preprocess_cfg=settings)

    def encode_image(self, x):
        return x.mean((2, 3))

    def encode_text(self, tokens):
        return tokens.float()


@pytest.fixture
def biomed(tmp_path, monkeypatch):
    """A folder as OpenCLIP saves one, and a package in its place that records what it is asked."""
    asked = []

    def create_model(name, **settings):
        asked.append((name, settings))
        return FakeClip()

    package = SimpleNamespace(
        create_model=create_model,
        get_tokenizer=lambda name: lambda words: torch.tensor([[len(word), 1, 0] for word in words]),
    )
    monkeypatch.setitem(sys.modules, "open_clip", package)
    folder = tmp_path / "tiny-biomed"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": {}}}))
    return folder, asked


def test_open_clip_opens_a_folder_and_scores_words(biomed, world, tmp_path):
    folder, asked = biomed
    space, x = open_space(f"open_clip:{folder}", offline=True), images(2, 3, 24)
    assert asked == [(f"local-dir:{folder}", {"require_pretrained": True, "weights_only": True})]
    assert (space.name, space.size, space.channels, space.dimensions) == ("tiny-biomed", 24, 3, 3)
    wanted = (x.mean((2, 3)) - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])
    torch.testing.assert_close(space(x), wanted)
    assert space.texts(["ab", "abcd"]).tolist() == [[2, 1, 0], [4, 1, 0]]
    told = fidelity(world / "manifest.csv", world / "made.csv", tmp_path, spaces=[f"open_clip:{folder}"], offline=True)
    assert told["spaces"][0]["scores"]["image-text/tiny-biomed"]["n"] == 40


def test_open_clip_reaches_for_the_hub_only_where_it_may(biomed, monkeypatch):
    folder, asked = biomed
    fetched = []

    def snapshot_download(name, local_files_only):
        fetched.append((name, local_files_only))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for offline in (False, True):
        assert open_space("open_clip:someone/biomed", offline=offline).name == "biomed"
    assert fetched == [("someone/biomed", False), ("someone/biomed", True)]
    assert asked[0][0] == f"local-dir:{folder}"
    text = {"hf_model_name": "someone/bert"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": text}}))
    assert open_space(f"open_clip:{folder}").name == "tiny-biomed"
    with pytest.raises(ModelError, match="hf_model_name, someone/bert, is on the hub"):
        open_space(f"open_clip:{folder}", offline=True)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ModelError, match="cannot be opened .*open_clip_config.json"):
        open_space(f"open_clip:{folder}")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ModelError, match=r"needs open-clip-torch; pip install 'counterscan\[metrics\]'"):
        open_space(f"open_clip:{folder}")


def test_open_clip_that_is_not_in_the_cache_is_refused(biomed):
    with pytest.raises(ModelError, match="open_clip:someone/absent: cannot be opened"):
        open_space("open_clip:someone/absent", offline=True)


def test_inception_is_asked_as_its_torchscript_file_wants(tmp_path):
    class Fake(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            assert x.dtype == torch.uint8 and return_features
            return x.float().mean((2, 3))

    torch.jit.script(Fake()).save(str(tmp_path / "inception-2015-12-05.pt"))
    space = open_space(f"inception:{tmp_path / 'inception-2015-12-05.pt'}")
    assert (space.name, space.size, space.dimensions) == ("inception", 299, 3)
    np.testing.assert_allclose(space(images(2, 3, 299)), (images(2, 3, 299) * 255).mean((2, 3)), atol=0.1)


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    for spec, error in (
        ("absent-judge", WordsError),
        (f"inception:{tmp_path / 'bad.pt'}", ModelError),
        (f"hf:{tmp_path}", ModelError),
        ("xrv:all", ModelError),
        ("json:absent", WordsError),
    ):
        with pytest.raises(error):
            open_space(spec, offline=True)
    with pytest.raises(
        WordsError, match="no classifier 'absent-judge': name a built-in one .chest-nih-judge, chest-world"
    ):
        open_space("absent-judge")


@pytest.mark.parametrize("spec", ["os:getcwd", "os:curdir", "json:dumps"])
def test_a_callable_that_is_no_space_is_refused_in_one_line(spec):
    with pytest.raises(WordsError, match=f"^{spec}: gives no features for images .*TypeError") as refusal:
        open_space(spec)
    assert "\n" not in str(refusal.value)
