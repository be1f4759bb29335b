"""Tiny pipelines of every family, built from configs and saved by diffusers and transformers themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from counterscan.backbones.quiet import quiet

WORDS = ("no", "small", "left", "pleural", "effusion", "pacemaker", "chest", "radiograph")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.:"
SIDE = 32


def clip_tokenizer(length: int = 24) -> Any:
    from transformers import CLIPTokenizer

    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        merges += [("".join(pieces[:i]), pieces[i]) for i in range(1, len(pieces))]
    whole = ["".join(pair) for pair in merges]
    tokens = [*LETTERS, *(f"{c}</w>" for c in LETTERS), *whole, "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=length)


def t5_tokenizer(length: int = 24) -> Any:
    from transformers import T5Tokenizer

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), *((c, -6.0) for c in LETTERS)]
    vocab += [(f"▁{word}", -1.0) for word in WORDS]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def clip(tokenizer: Any, *, projected: bool, hidden: int = 16) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=tokenizer.model_max_length, projection_dim=hidden,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, initializer_range=0.5,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5(tokenizer: Any, hidden: int = 32) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer), d_model=hidden, d_ff=32, d_kv=8, num_heads=2, num_layers=1, dropout_rate=0.0
    )
    return T5EncoderModel(config).eval()


def vae(latent: int = 4, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    settings: dict[str, Any] = {
        "block_out_channels": (8, 16), "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "latent_channels": latent, "norm_num_groups": 4,
        "sample_size": SIDE,
    }  # fmt: skip
    return AutoencoderKL(**(settings | changes)).eval()


def unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": SIDE // 2, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16),
        "layers_per_block": 1, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (1, 2), "norm_num_groups": 4,
        "cross_attention_dim": 32,
    }  # fmt: skip
    return UNet2DConditionModel(**(settings | changes)).eval()


def sdxl(folder: Path, **changes: Any) -> Path:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    tokenizer = clip_tokenizer()
    with seeded(), quiet():
        network = unet(
            addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=40,
            transformer_layers_per_block=(1, 2), use_linear_projection=True,
        )  # fmt: skip
        StableDiffusionXLPipeline(
            vae(), clip(tokenizer, projected=False), clip(tokenizer, projected=True), tokenizer, tokenizer, network,
            EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                timestep_spacing="leading",
            ), **changes,
        ).save_pretrained(folder)  # fmt: skip
    return folder


def sd3(folder: Path, *, with_t5: bool = True, **changes: Any) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, words = clip_tokenizer(), t5_tokenizer()
    with seeded(), quiet():
        settings: dict[str, Any] = {
            "sample_size": SIDE // 2, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2,
            "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 32, "caption_projection_dim": 16,
            "pooled_projection_dim": 32, "pos_embed_max_size": 16,
        }  # fmt: skip
        StableDiffusion3Pipeline(
            SD3Transformer2DModel(**(settings | changes)).eval(), FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
            clip(tokenizer, projected=True), tokenizer, clip(tokenizer, projected=True), tokenizer,
            t5(words) if with_t5 else None, words if with_t5 else None,
        ).save_pretrained(folder)  # fmt: skip
    return folder


def flux(folder: Path, **changes: Any) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    tokenizer, words = clip_tokenizer(), t5_tokenizer()
    with seeded(), quiet():
        settings: dict[str, Any] = {
            "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8,
            "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 16, "guidance_embeds": True,
            "axes_dims_rope": (2, 2, 4),
        }  # fmt: skip
        FluxPipeline(
            FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae(shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False),
            clip(tokenizer, projected=False), tokenizer, t5(words), words,
            FluxTransformer2DModel(**(settings | changes)).eval(),
        ).save_pretrained(folder)  # fmt: skip
    return card(folder, "flux")


def seeded() -> Any:
    from counterscan.backbones.compact import seeded as fresh

    return fresh(0)


def card(folder: Path, family: str) -> Path:
    """Beside the pipeline, so that families whose configs do not say it work at the tiny size."""
    from counterscan.backbones.card import Card

    Card(folder.name, family, ("pleural effusion", "pacemaker"), channels=3, resolution=SIDE).write(folder)
    return folder


def images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def kandinsky(folder: Path) -> Path:
    """The decoder and the prior in one folder, as ``KandinskyV22CombinedPipeline`` saves them."""
    from diffusers import DDPMScheduler, KandinskyV22CombinedPipeline, PriorTransformer, UnCLIPScheduler, VQModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    tokenizer = clip_tokenizer()
    with seeded(), quiet():
        network = unet(
            out_channels=8, cross_attention_dim=8, encoder_hid_dim=16, encoder_hid_dim_type="image_proj",
            addition_embed_type="image", class_embed_type=None, resnet_time_scale_shift="scale_shift",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), attention_head_dim=4,
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        )  # fmt: skip
        movq = VQModel(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), latent_channels=4, norm_num_groups=4,
            norm_type="spatial", num_vq_embeddings=12, vq_embed_dim=4,
        )  # fmt: skip
        vision = CLIPVisionConfig(
            hidden_size=16, image_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
            patch_size=8, projection_dim=16,
        )  # fmt: skip
        prior = PriorTransformer(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16,
            num_embeddings=tokenizer.model_max_length, additional_embeddings=4,
        )  # fmt: skip
        prior.clip_std.data.fill_(0.5)  # a fresh prior has zeros here, and all prompts would look alike
        prior.clip_mean.data.fill_(0.1)
        KandinskyV22CombinedPipeline(
            network.eval(), DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False), movq.eval(),
            prior.eval(), CLIPVisionModelWithProjection(vision).eval(), clip(tokenizer, projected=True), tokenizer,
            UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0),
            CLIPImageProcessor(crop_size=16, size=16),
        ).save_pretrained(folder)  # fmt: skip
    return card(folder, "kandinsky")


def kandinsky_apart(folder: Path, root: Path) -> Path:
    """The combined folder taken apart into ``tiny-decoder`` and ``tiny-prior``, as on the hub."""
    import json
    import shutil

    decoder, prior = root / "tiny-decoder", root / "tiny-prior"
    for name in ("unet", "movq", "scheduler"):
        shutil.copytree(folder / name, decoder / name)
    index = json.loads((folder / "model_index.json").read_text())
    parts = [name for name in index if name.startswith("prior_")]
    for name in parts:
        shutil.copytree(folder / name, prior / name.removeprefix("prior_"))
    common = {"_diffusers_version": index["_diffusers_version"]}
    split = [
        (decoder, "KandinskyV22Pipeline", {name: index[name] for name in ("unet", "movq", "scheduler")}),
        (prior, "KandinskyV22PriorPipeline", {name.removeprefix("prior_"): index[name] for name in parts}),
    ]
    for place, kind, members in split:
        (place / "model_index.json").write_text(json.dumps({"_class_name": kind, **common, **members}))
    return card(decoder, "kandinsky")


def stable_diffusion(
    folder: Path, tokenizer: Any, encoder: Any, *, pipeline: str = "StableDiffusionPipeline", **changes: Any
) -> Path:
    """Stable Diffusion with any text encoder, saved by diffusers."""
    import diffusers
    from diffusers import DDIMScheduler

    with seeded(), quiet():
        getattr(diffusers, pipeline)(
            vae(), encoder, tokenizer, unet(**changes), DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
            None, None, requires_safety_checker=False,
        ).save_pretrained(folder)  # fmt: skip
    return card(folder, "stable_diffusion")


def instruct_pix2pix(folder: Path, **changes: Any) -> Path:
    """Its U-Net takes the latent of an image as well."""
    tokenizer = clip_tokenizer()
    with seeded():
        encoder = clip(tokenizer, projected=False, hidden=32)
    kind = "StableDiffusionInstructPix2PixPipeline"
    return stable_diffusion(folder, tokenizer, encoder, pipeline=kind, **({"in_channels": 8} | changes))


def bert_tokenizer(length: int = 24) -> Any:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=length)


def bert(kind: str, tokenizer: Any, positions: int = 24, hidden: int = 32) -> Any:
    """A ``bert`` or ``roberta`` encoder; the first two positions of the latter are never used."""
    import transformers

    config, model = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
    }[kind]
    settings = config(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions, initializer_range=0.5,
        pad_token_id={"bert": 0, "roberta": 1}[kind],
    )  # fmt: skip
    return model(settings, add_pooling_layer=False).eval()
