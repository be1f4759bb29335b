"""Small models in the real format: a randomly initialised Stable Diffusion pipeline folder, ready to train.

The folder opens in plain diffusers (``StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)``) and in
``counterscan.load``. Its text encoder is a small BERT whose word list holds the words of the field, and every printable
ASCII character as a fallback, so no word is ever unknown.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from counterscan.backbones import tiny
from counterscan.backbones.card import Card
from counterscan.backbones.quiet import quiet

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build(
    folder: str | Path,
    *,
    words: Sequence[str],
    name: str | None = None,
    channels: int = 1,
    resolution: int = 256,
    latent_channels: int = 4,
    vae_kind: Literal["kl", "tiny"] = "kl",
    vae_blocks: Sequence[int] = (16, 32, 64, 128),
    unet_blocks: Sequence[int] = (64, 128, 192, 256),
    unet_layers: int = 1,
    unet_attention: Sequence[bool] | None = None,
    unet_heads: int = 4,
    sees_image: bool = False,
    text_hidden: int = 128,
    text_layers: int = 2,
    text_heads: int = 4,
    max_length: int = 64,
    prediction_type: Literal["v_prediction", "epsilon", "sample"] = "v_prediction",
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    zero_snr: bool = False,
    template: str = "chest radiograph",
    findings: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """Write a randomly initialised pipeline folder and return its path.

    ``vae_blocks`` are the channels of the image levels (n levels shrink the image by ``2 ** (n - 1)``), equal ones for
    ``vae_kind="tiny"``, an autoencoder for a CPU (:mod:`counterscan.backbones.tiny`); ``unet_blocks`` those of the latent
    levels; ``unet_attention`` says which latent levels read the prompt (default: all but the finest), with ``unet_heads``,
    which divide ``text_hidden``. ``sees_image`` makes it an InstructPix2Pix, whose U-Net takes an image beside the latent.
    ``words`` are words or phrases the tokenizer keeps whole. ``zero_snr`` makes the last timestep pure noise (with
    ``v_prediction`` only). Same arguments, same weights; the global random state is left as it was. ``ValueError`` for
    sizes that do not go together.
    """
    folder = Path(folder)
    latent = resolution // 2 ** (len(vae_blocks) - 1)
    if latent * 2 ** (len(vae_blocks) - 1) != resolution or latent % 2 ** (len(unet_blocks) - 1):
        raise ValueError(f"resolution {resolution} cannot be halved {len(vae_blocks) + len(unet_blocks) - 2} times")
    if zero_snr and prediction_type != "v_prediction":
        raise ValueError("zero_snr needs prediction_type='v_prediction': epsilon says nothing about pure noise")
    attention = [level > 0 for level in range(len(unet_blocks))] if unet_attention is None else list(unet_attention)
    if len(attention) != len(unet_blocks):
        raise ValueError(f"unet_attention has {len(attention)} levels, unet_blocks {len(unet_blocks)}")
    narrowest = min([width for width, reads in zip(unet_blocks, attention, strict=True) if reads] + [unet_blocks[-1]])
    if unet_heads < 1 or text_hidden % unet_heads or unet_heads > narrowest:
        raise ValueError(
            f"unet_heads is {unet_heads}; it has to divide text_hidden {text_hidden}, and be at most {narrowest}, the "
            "channels of a level of unet_blocks that reads the prompt"
        )
    if vae_kind not in ("kl", "tiny"):
        raise ValueError(f"vae_kind is {vae_kind!r}; there are kl and tiny")
    vae = _tiny if vae_kind == "tiny" else _vae
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = word_list(words)
    with seeded(seed), quiet():
        vae(channels, resolution, latent_channels, vae_blocks).save_pretrained(folder / "vae")
        beside = latent_channels if sees_image else 0
        unet = _unet(latent, latent_channels, beside, unet_blocks, unet_layers, attention, unet_heads, text_hidden)
        unet.save_pretrained(folder / "unet")
        _text(len(vocabulary), text_hidden, text_layers, text_heads, max_length).save_pretrained(
            folder / "text_encoder"
        )
    _write_tokenizer(folder / "tokenizer", vocabulary, max_length)
    _write_scheduler(folder / "scheduler", prediction_type, beta_start, beta_end, zero_snr)
    _write_index(folder, "AutoencoderTiny" if vae_kind == "tiny" else "AutoencoderKL", sees_image)
    card = Card(name or folder.name, "stable_diffusion", tuple(findings), template, channels, resolution)
    (replace(card, default_method="instruct") if sees_image else card).write(folder)
    return folder


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch layers initialise themselves from the global CPU generator: seed it here, put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def word_list(words: Sequence[str]) -> list[str]:
    """The word-piece vocabulary: special tokens, characters, characters inside a word, then the whole words, sorted."""
    characters = [c for c in string.printable if not c.isspace() and not c.isupper()]
    whole = {w for phrase in words for w in re.findall(r"[a-z0-9]+", phrase.lower()) if len(w) > 1}
    return [*SPECIAL, *characters, *("##" + c for c in characters), *sorted(whole)]


def _vae(channels: int, resolution: int, latent_channels: int, blocks: Sequence[int]) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=latent_channels,
        sample_size=resolution,
        block_out_channels=tuple(blocks),
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        layers_per_block=1,
        norm_num_groups=math.gcd(8, *blocks),
        mid_block_add_attention=False,  # attention over the whole image is most of a small autoencoder's time
        force_upcast=False,
    )


def _tiny(channels: int, resolution: int, latent_channels: int, blocks: Sequence[int]) -> Any:
    if len(set(blocks)) > 1 or len(blocks) < 3:
        raise ValueError(f"a tiny autoencoder has 3 levels or more of one width, got vae_blocks {list(blocks)}")
    vae = tiny.build(channels, latent_channels, blocks[0], len(blocks))
    tiny.start_as_wavelet(vae)
    return vae


def _unet(
    latent: int,
    channels: int,
    beside: int,
    blocks: Sequence[int],
    layers: int,
    attention: Sequence[bool],
    heads: int,
    text_hidden: int,
) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=latent,
        in_channels=channels + beside,
        out_channels=channels,
        block_out_channels=tuple(blocks),
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        layers_per_block=layers,
        attention_head_dim=heads,  # diffusers reads this as the NUMBER of heads in this class
        cross_attention_dim=text_hidden,
        # at least four channels a group: a norm of single channels would take the added condition away again
        norm_num_groups=math.gcd(8, *blocks),
        resnet_time_scale_shift="scale_shift",
        # the pooled prompt also joins the time embedding: small models learn to obey it far sooner than by attention alone
        addition_embed_type="text",
        addition_embed_type_num_heads=heads,
    )


def _text(vocabulary: int, hidden: int, layers: int, heads: int, max_length: int) -> Any:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=max_length,
        initializer_range=0.1,  # BERT's 0.02 is for wide layers: a narrow encoder then takes its words for one another
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    config.use_attention_mask = True  # diffusers passes the padding mask only when this is set
    return BertModel(config, add_pooling_layer=False)


def _write_tokenizer(folder: Path, vocabulary: Sequence[str], max_length: int) -> None:
    from transformers import BertTokenizer

    vocab = {word: index for index, word in enumerate(vocabulary)}
    BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=max_length).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def _write_scheduler(folder: Path, prediction_type: str, beta_start: float, beta_end: float, zero_snr: bool) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    DDIMScheduler(
        beta_start=beta_start,
        beta_end=beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing" if zero_snr else "leading",
    ).save_pretrained(folder)


def _write_index(folder: Path, vae: str, sees_image: bool) -> None:
    from diffusers import __version__

    index = {
        "_class_name": "StableDiffusionInstructPix2PixPipeline" if sees_image else "StableDiffusionPipeline",
        "_diffusers_version": __version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", vae],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
