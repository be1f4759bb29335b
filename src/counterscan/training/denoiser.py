"""Train the conditional denoiser (U-Net and text encoder together) from latents that were encoded once.

The network sees an image beside the latent, as in InstructPix2Pix (Brooks et al., 2023): the U-Net's first convolution takes
both. It is asked three questions, which share a batch:

* PLAIN: no image beside it (zeros). A noisy image is denoised under its own caption: text to image.
* DRAWN: beside the image stands its noisy *twin* (the same patient with one finding changed, exact in a world), denoised under
  the twin's caption. So what is added is drawn from all that it could be, and not as the faint mean of it.
* SEEN: the image itself, WITHOUT noise, in the place of the noisy one, at times where a little noise would be expected, and
  the twin is the target. What goes is seen, so one evaluation answers. Of the loss with noise more than half is noise that
  nobody can predict, and 1 000 steps that halved it taught next to nothing about what to remove. Some are shown PART OF THE WAY
  to the twin (as by direct iteration, Delbracio and Milanfar, 2023), so that a second pass can finish what the first left.

Of drawn and seen samples ``keep`` are asked for what the image is already, and stay as they are; where twins differ that counts
as much: with changes alone weighted, the network took every device away whatever the prompt said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from counterscan.training.autoencoder import cosine
from counterscan.training.captions import DEVICES, CaptionSettings, Row, caption, twin_caption
from counterscan.training.objective import LEAST_NOISE, differing, seen_times
from counterscan.training.words import teach, tokens_of

IN_CROPS = 0.5  # of the chain: with more noise than this, a crop cannot tell where something is to be added
HARD = frozenset((*DEVICES, "lung nodule", "pneumothorax", "atelectasis"))  # small or faint: learned last


@dataclass(frozen=True)
class DenoiserSettings:
    """``steps`` of ``batch`` latents; cosine decay from ``rate`` (times ``text_rate`` for the text encoder); exponential
    moving average of the weights.

    ``shift`` moves the drawn times towards noise, ``u -> shift u / (1 + (shift - 1) u)`` (Esser et al., 2024): large
    latents keep their layout until very late, and it is there that the prompt decides. The v-prediction error is not
    weighted further: min-SNR weights vanish with the signal-to-noise ratio, and measured here the prompt was then
    still ignored after 12 000 images. ``word_steps`` teach the text encoder its words first; while the denoiser is trained,
    reading them back counts ``word_weight``. ``plain`` is the share of plain samples (rows without a twin are always plain),
    ``additions`` that of pairs to which something is added, ``keep`` that of pairs that stay as they are.
    ``seen`` is the share of removals that are seen and not drawn, ``seen_additions`` that of additions, and ``partway`` the
    share of the seen ones that are shown part of the way; of additions all are.
    ``crops`` is the share of steps that train on pairs alone, in ``2 * batch`` crops of half the latent's side around what
    goes or comes: half the cost of a step for many times the gradient of what is small.
    ``compiled`` runs the denoiser through ``torch.compile``: without bfloat16 a third faster, after minutes of compiling.
    ``edits`` are the captions of pairs: mostly the one finding in question, as an edit has it, with its side and place.
    """

    steps: int = 3000
    batch: int = 32
    rate: float = 6e-4
    warmup: int = 100
    ema: float = 0.998
    shift: float = 2.0
    text_rate: float = 0.15
    word_steps: int = 0
    word_weight: float = 1.0
    seed: int = 0
    plain: float = 0.25
    additions: float = 0.65
    keep: float = 0.25
    crops: float = 0.35
    seen: float = 0.85
    seen_additions: float = 0.15
    partway: float = 0.25
    compiled: bool = False
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    edits: CaptionSettings = field(
        default_factory=lambda: CaptionSettings(full=0.15, side=0.95, place=0.9, severity=0.8)
    )


@dataclass(frozen=True)
class Corpus:
    """Latents (N, C, h, w) float16, already scaled, with what is known of each image and its sampling weight.

    Rows of one ``patients`` number, neighbours in the arrays, are exact counterfactuals of each other; -1 has none.
    """

    latents: NDArray[np.float16]
    rows: Sequence[Row]
    weights: NDArray[np.float64]
    patients: NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Neighbouring rows (N, 2) of a corpus that differ in one finding, and their chances (N,): every finding about as often,
    those of :data:`HARD` twice as often.
    """

    rows: NDArray[np.int64]
    chance: NDArray[np.float64]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2)."""
        return self.rows[rng.choice(len(self.rows), count, p=self.chance)]


def pairs(corpus: Corpus, *, adds: bool) -> Pairs:
    """Every (row, twin) whose twin only has one finding more, or only lacks one."""
    present = [set(row.present) for row in corpus.rows]
    found, names, weight = [], [], []
    for i in range(len(present)):
        for j in relatives(corpus, i):
            less, more = (present[i], present[j]) if adds else (present[j], present[i])
            if less < more and len(more - less) == 1:
                found.append((i, j))
                names.append(next(iter(more - less))[0])
                weight.append(corpus.weights[i])
    chance = np.array(weight)
    for name in set(names):
        same = np.array(names) == name
        chance[same] *= (2.0 if name in HARD else 1.0) / (chance[same].sum() or 1)
    return Pairs(np.array(found, np.int64).reshape(-1, 2), chance / (chance.sum() or 1))


@dataclass(frozen=True)
class Batch:
    """What is shown in the place of the noisy latent, ``z``; what stands beside it, ``image``, zeros where nothing does; clean
    targets; captions; the weight of each place (B, 1, h, w); and, bool (B,), which are pairs, and of these which may add.
    """

    z: Tensor
    image: Tensor
    target: Tensor
    captions: list[str]
    weight: Tensor
    paired: Tensor
    adds: Tensor


def draw(corpus: Corpus, removed: Pairs, added: Pairs, settings: DenoiserSettings, rng: np.random.Generator) -> Batch:
    """One batch of whole images: plain ones, and pairs."""
    size = settings.batch
    single = rng.choice(len(corpus.rows), size, p=corpus.weights / corpus.weights.sum())
    paired = (rng.random(size) >= settings.plain) & (len(added.rows) > 0)
    adds = paired & (rng.random(size) < settings.additions)
    chosen = np.stack([single, single], 1)
    for kind, some in ((added, adds), (removed, paired & ~adds)):
        if some.any():
            chosen[some] = kind.draw(int(some.sum()), rng)
    z, twins = (torch.from_numpy(corpus.latents[k].astype(np.float32)) for k in chosen.T)
    rows = [(corpus.rows[i], corpus.rows[j]) for i, j in chosen]
    weight = torch.stack([change_weight(corpus.latents[[i, *relatives(corpus, int(i))]]) for i in chosen[:, 0]])
    keep = ~paired | (rng.random(size) < settings.keep)
    target = torch.where(torch.from_numpy(keep).view(-1, 1, 1, 1), z, twins)
    seen = torch.from_numpy(paired).view(-1, 1, 1, 1)
    return Batch(
        z, z * seen, target, _captions(rows, keep, settings, rng), weight, *map(torch.from_numpy, (paired, adds))
    )


def _captions(
    rows: list[tuple[Row, Row]], keep: NDArray[np.bool_], settings: DenoiserSettings, rng: np.random.Generator
) -> list[str]:
    """For every image and its twin, in words: the change into the twin, or what is to be kept."""
    captions = []
    for (row, another), stays in zip(rows, keep, strict=True):
        if not stays:
            captions.append(twin_caption(row, another, rng, settings.edits))
        elif another is not row and rng.random() < 0.5:
            captions.append(twin_caption(another, row, rng, settings.edits))
        else:  # what is not mentioned is kept as well
            captions.append(caption(row, rng, settings.captions))
    return captions


def draw_crops(
    corpus: Corpus, removed: Pairs, added: Pairs, settings: DenoiserSettings, rng: np.random.Generator
) -> Batch:
    """Crops around what is removed or added, each with a caption that says so, or that all stays as it is."""
    chosen = np.concatenate([removed.draw(settings.batch, rng), added.draw(settings.batch, rng)])
    adds = torch.arange(len(chosen)) >= settings.batch
    keep = rng.random(len(chosen)) < settings.keep
    done = keep & (rng.random(len(chosen)) < 0.5)  # the image that lacks it, or has it, already: it stays as it is
    side = corpus.latents.shape[-1] // 2
    z, target = (torch.empty(len(chosen), corpus.latents.shape[1], side, side) for _ in range(2))
    weight = torch.empty(len(chosen), 1, side, side)
    for k, pair in enumerate(chosen):
        before, after = (torch.from_numpy(corpus.latents[i].astype(np.float32)) for i in pair)
        change = (after - before).abs().amax(0).numpy() + 1e-6  # a finding hidden behind another changes nothing
        y, x = np.unravel_index(rng.choice(change.size, p=(change / change.sum()).ravel()), change.shape)
        top, left = (int(np.clip(at - rng.integers(side), 0, side)) for at in (y, x))
        here = (..., slice(top, top + side), slice(left, left + side))
        z[k] = (after if done[k] else before)[here]
        target[k] = z[k] if keep[k] else after[here]
        weight[k] = change_weight(corpus.latents[[pair[0], *relatives(corpus, int(pair[0]))]])[here]
    rows = [(corpus.rows[i], corpus.rows[j]) for i, j in chosen]
    rows = [pair[::-1] if swap else pair for pair, swap in zip(rows, done, strict=True)]
    return Batch(z, z, target, _captions(rows, keep, settings, rng), weight, torch.ones_like(adds), adds)


def relatives(corpus: Corpus, i: int) -> list[int]:
    """The other images of the same patient."""
    near = range(max(i - 8, 0), min(i + 9, len(corpus.rows))) if corpus.patients[i] >= 0 else ()
    return [j for j in near if corpus.patients[j] == corpus.patients[i] and j != i]


def change_weight(family: NDArray[np.float16], energy: float = 0.04, least: float = 2.0, most: float = 40.0) -> Tensor:
    """(1, h, w) from the latents (1 + k, C, h, w) of an image and its k relatives: 1, and more wherever one of them differs,
    so that every finding teaches about as much.

    The squared difference of a nodule's twin, averaged over the latent, is 250 times smaller than that of an effusion's:
    unweighted, a network learns to take away what is large, and only much later what is small. ALL relatives count,
    whichever is the target: weighted only where it is asked to change, a network that is not sure which finding was meant
    does best to take away a little of every one.
    """
    every = torch.from_numpy(family.astype(np.float32))
    difference = every[1:] - every[:1]
    changed = differing(difference)
    mean = difference.square().mean(dim=(1, 2, 3), keepdim=True)
    weight = 1 + changed * ((energy / mean.clamp(min=1e-6)).clamp(least, most) - 1)
    return torch.cat([weight, torch.ones(1, *weight.shape[1:])]).amax(0)


def questions(
    batch: Batch, settings: DenoiserSettings, steps: int, generator: torch.Generator, most: float = 1.0
) -> tuple[Batch, Tensor, Tensor]:
    """The batch as it is shown; timesteps (B,), up to the share ``most`` of the chain; which samples have no noise, bool (B,).

    Times are stratified, so that every batch covers the whole chain, which lowers the variance of the loss.
    """
    size = len(batch.captions)
    u = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
    kind, chance, done = torch.rand(3, size, generator=generator)
    share = settings.seen + batch.adds * (settings.seen_additions - settings.seen)
    seen = batch.paired & (kind < share)
    noisy = most * settings.shift * u / (1 + (settings.shift - 1) * u)
    t = torch.where(seen, seen_times(u, steps), (noisy * steps).long()).clamp(max=steps - 1)
    done = torch.where(seen, done * (batch.adds | (chance < settings.partway)), torch.ones(size))
    return replace(batch, z=batch.z.lerp(batch.target, done.view(-1, 1, 1, 1))), t, seen


def loss(unet: Any, context: Tensor, batch: Batch, t: Tensor, noise: Tensor, signal: Tensor, scale: float) -> Tensor:
    """The error of the clean image in units of the noise: where ``z`` is the target, the v-prediction error itself.

    With v = (s x - clean) / n the error of v is that of the clean image over n; from an image to its twin the v that is asked
    for grows without bound as n falls, so there n counts as :data:`LEAST_NOISE` at least. What stands beside goes in divided
    by the autoencoder's ``scale``, as InstructPix2Pix has it.
    """
    s, n = signal.view(-1, 1, 1, 1), (1 - signal**2).sqrt().view(-1, 1, 1, 1)
    noisy = s * batch.z + n * noise
    beside = torch.cat([noisy, batch.image / scale], 1)
    v = unet(beside, t, encoder_hidden_states=context, return_dict=False)[0].float()
    denoised = noise.flatten(1).any(1)
    return clean_error(s * noisy - n * v, batch.target, denoised, n, batch.weight)


def clean_error(clean: Tensor, target: Tensor, plain: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean square of ``clean - target`` (B, C, h, w) in units of ``noise`` (B, 1, 1, 1), which counts as
    :data:`LEAST_NOISE` at least where a sample is asked for its twin, not ``plain`` (B,).
    """
    scale = torch.where(plain.view(-1, 1, 1, 1), noise.clamp(min=0.02), noise.clamp(min=LEAST_NOISE))
    return (((clean - target) / scale).square() * weight).mean()


def train(
    unet: Any,
    text_encoder: Any,
    tokenizer: Any,
    alphas_cumprod: Tensor,
    corpus: Corpus,
    settings: DenoiserSettings,
    *,
    scale: float,
    log: Callable[[dict[str, float]], None],
    save: Callable[[nn.Module, nn.Module], None],
    every: int = 250,
) -> None:
    """Minimise :func:`loss`; ``save(unet, text_encoder)`` receives the averaged weights."""
    rng, generator = np.random.default_rng(settings.seed), torch.Generator().manual_seed(settings.seed)
    parts = nn.ModuleList([unet, text_encoder]).train()

    def of_any(rng: np.random.Generator) -> str:
        return caption(corpus.rows[int(rng.integers(len(corpus.rows)))], rng, settings.captions)

    reader = teach(
        text_encoder, unet.add_embedding, tokenizer, of_any, steps=settings.word_steps, seed=settings.seed, log=log
    )
    average = {name: p.detach().clone() for name, p in parts.named_parameters()}
    groups = [
        {"params": unet.parameters(), "scale": 1.0},
        {"params": [*text_encoder.parameters(), *reader.parameters()], "scale": settings.text_rate},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=1e-2, betas=(0.9, 0.98))
    removed, added = (pairs(corpus, adds=adds) for adds in (False, True))
    network = torch.compile(unet, dynamic=False) if settings.compiled else unet
    fast_bf16 = torch.backends.cpu.get_cpu_capability() == "AVX512"  # without, it is emulated, several times slower
    start, running = time.monotonic(), {False: 0.0, True: 0.0}
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * settings.rate * cosine(step, settings.steps, settings.warmup)
        cut = len(removed.rows) > 0 and rng.random() < settings.crops
        if cut:
            batch = draw_crops(corpus, removed, added, settings, rng)
        else:
            batch = draw(corpus, removed, added, settings, rng)
        ids, mask = tokens_of(tokenizer, batch.captions)
        batch, t, seen = questions(batch, settings, len(alphas_cumprod), generator, IN_CROPS if cut else 1.0)
        noise = torch.randn(batch.z.shape, generator=generator) * ~seen.view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16):
            context = text_encoder(ids, attention_mask=mask)[0]
            value = loss(network, context, batch, t, noise, alphas_cumprod[t].sqrt(), scale)
            words = reader.loss(context, unet.add_embedding(context), batch.captions)
        optimiser.zero_grad(set_to_none=True)
        (value + settings.word_weight * words).backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimiser.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), [p.detach() for p in parts.parameters()], 1 - decay)
        running[cut] = 0.98 * running[cut] + 0.02 * value.item() if running[cut] else value.item()
        if (step + 1) % 25 == 0:
            pace = (step + 1) / (time.monotonic() - start)
            log({"step": step + 1, "loss": running[False], "crop_loss": running[True], "steps_per_second": pace})
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            with_average(parts, average, lambda: save(unet, text_encoder))


def beside(unet: Any) -> Any:
    """A U-Net that takes an image beside the latent: ``unet`` itself where it does, or a copy that ignores it so far."""
    if unet.config.in_channels > unet.config.out_channels:
        return unet
    wider = type(unet).from_config({**unet.config, "in_channels": 2 * unet.config.in_channels})
    weights = unet.state_dict()
    weights["conv_in.weight"] = torch.cat([weights["conv_in.weight"], torch.zeros_like(weights["conv_in.weight"])], 1)
    wider.load_state_dict(weights)
    return wider


def with_average(parts: nn.Module, average: dict[str, Tensor], action: Callable[[], None]) -> None:
    """Run ``action`` while the modules hold the averaged weights, then put the trained ones back."""
    trained = {name: p.detach().clone() for name, p in parts.named_parameters()}
    with torch.no_grad():
        for name, p in parts.named_parameters():
            p.copy_(average[name])
        action()
        for name, p in parts.named_parameters():
            p.copy_(trained[name])
