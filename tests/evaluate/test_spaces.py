"""Feature spaces of every kind, from small files in the real formats."""

from __future__ import annotations

import json

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
        ("absent-judge", ModelError),
        (f"inception:{tmp_path / 'bad.pt'}", ModelError),
        (f"hf:{tmp_path}", ModelError),
        ("xrv:all", ModelError),
        ("json:absent", WordsError),
    ):
        with pytest.raises(error):
            open_space(spec, offline=True)
