"""Train the conditional denoiser (U-Net and text encoder together) from latents that were encoded once.

Two kinds of samples share a batch. A plain one is denoised under its own caption. A counterfactual one is a noisy image
under the caption of its *twin* (the same patient with one finding changed, exact in a world), and the clean twin is the
target: ``network(s z + n ε, t, caption') -> z'``. At high noise, where the finding cannot be seen, the two agree; below
that plain training never shows a prompt that contradicts the picture, and the network learns to believe its eyes: the
prompt is what an edit needs it to believe. As often, a sample of such a pair is KEPT under a caption that says so, and
where the twins differ it counts as much: with removals alone weighted, the network took every device away whatever the
prompt said (share of the change made: 0.73 under the image's own caption, 0.78 under its twin's).

Most counterfactual samples show the image WITHOUT noise, at the times where the network would expect a little: the question
"what would this be" is then all that there is to learn. Of the loss with noise, more than half was noise that nobody can
predict, and 1 000 steps that halved it taught next to nothing about edits.

Some of these show it PART OF THE WAY to its twin (as inversion by direct iteration does, Delbracio and Milanfar, 2023): a
second pass can then finish what the first left faint.

What is to be ADDED is shown under noise most of the time, and part of the way as well: where it would lie is a guess, without
noise the best answer is the faint mean of all guesses, and only noise makes up its mind (a bridge between image and
counterfactual, as Liu et al., I2SB, 2023).
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
from counterscan.training.words import teach, tokens_of

LEAST_NOISE = 0.35
CLEAN = 0.1, 0.2  # of the chain: times at which images without noise are shown
HARD = frozenset((*DEVICES, "lung nodule", "pneumothorax", "atelectasis"))  # small or faint: learned last


@dataclass(frozen=True)
class DenoiserSettings:
    """``steps`` of ``batch`` latents; cosine decay from ``rate`` (times ``text_rate`` for the text encoder); exponential
    moving average of the weights.

    ``shift`` moves the drawn times towards noise, ``u -> shift u / (1 + (shift - 1) u)`` (Esser et al., 2024): large
    latents keep their layout until very late, and it is there that the prompt decides. The v-prediction error is not
    weighted further: min-SNR weights vanish with the signal-to-noise ratio, and measured here the prompt was then
    still ignored after 12 000 images. ``word_steps`` teach the text encoder its words first; while the denoiser is trained,
    reading them back counts ``word_weight``. ``twins`` is the share of counterfactual samples (of rows that have a twin).
    ``crops`` is the share of steps that train on removals alone, in ``2 * batch`` crops of half the latent's side around
    what goes away: half the cost of a step for many times the gradient of what is small. Removals only, because where
    something is to be ADDED a crop cannot tell.

    ``clean`` is the share of counterfactual samples that show the image without any noise, at the low times :data:`CLEAN`,
    ``clean_additions`` that of those to which something is added; ``partway`` is the share of them that show the image
    blended with its twin; of additions under noise all do.
    ``edits`` are their captions: mostly the one finding in question, as an edit has it, with its side and place.
    """

    steps: int = 3000
    batch: int = 32
    rate: float = 6e-4
    warmup: int = 100
    ema: float = 0.998
    shift: float = 2.5
    text_rate: float = 0.15
    word_steps: int = 0
    word_weight: float = 1.0
    seed: int = 0
    twins: float = 0.9
    keep: float = 0.35
    crops: float = 0.35
    clean: float = 0.85
    clean_additions: float = 0.4
    partway: float = 0.25
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
class Batch:
    """Clean latents to be noised, clean targets, captions, the weight of each place (B, 1, h, w), and, bool (B,), which are of
    a pair and which are asked for something more.
    """

    z: Tensor
    target: Tensor
    captions: list[str]
    weight: Tensor
    paired: Tensor
    adds: Tensor

    @property
    def plain(self) -> Tensor:
        """Bool (B,): which samples are denoised to themselves."""
        return (self.z == self.target).flatten(1).all(1)


def draw(corpus: Corpus, settings: DenoiserSettings, rng: np.random.Generator) -> Batch:
    """One batch of plain and counterfactual samples."""
    chance = corpus.weights / corpus.weights.sum()
    pick = rng.choice(len(chance), settings.batch, p=chance)
    paired = (corpus.patients[pick] >= 0) & (rng.random(len(pick)) < settings.twins)
    other = np.array([twin(corpus, int(i), rng) if p else i for i, p in zip(pick, paired, strict=True)])
    z, twins = (torch.from_numpy(corpus.latents[k].astype(np.float32)) for k in (pick, other))
    rows = [(corpus.rows[i], corpus.rows[j]) for i, j in zip(pick, other, strict=True)]
    weight = torch.stack([change_weight(corpus.latents[[i, *relatives(corpus, int(i))]]) for i in pick])
    keep = ~paired | (rng.random(len(rows)) < settings.keep)
    captions = _captions(rows, keep, settings, rng)
    target = torch.where(torch.from_numpy(keep).view(-1, 1, 1, 1), z, twins)
    more = np.array([set(other.present) > set(row.present) for row, other in rows])
    return Batch(z, target, captions, weight, torch.from_numpy(paired), torch.from_numpy(more & ~keep))


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


def removals(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every (row, twin) (N, 2) whose twin only lacks findings that the row has, and their chances (N,)."""
    present = [set(row.present) for row in corpus.rows]
    found, weight = [], []
    for i, patient in enumerate(corpus.patients):
        for j in range(max(i - 8, 0), min(i + 9, len(present))) if patient >= 0 else ():
            if corpus.patients[j] == patient and present[j] < present[i]:
                found.append((i, j))
                hard = any(fact[0] in HARD for fact in present[i] - present[j])
                weight.append(corpus.weights[i] * (3.0 if hard else 1.0))
    return np.array(found, np.int64).reshape(-1, 2), np.array(weight) / (sum(weight) or 1)


def draw_crops(
    corpus: Corpus,
    pairs: tuple[NDArray[np.int64], NDArray[np.float64]],
    settings: DenoiserSettings,
    rng: np.random.Generator,
) -> Batch:
    """Crops around what a removal takes away, each with a caption that says so, or that it stays, or is not there."""
    chosen = pairs[0][rng.choice(len(pairs[0]), 2 * settings.batch, p=pairs[1])]
    keep = rng.random(len(chosen)) < settings.keep
    gone = keep & (rng.random(len(chosen)) < 0.5)  # the image that lacks it already: it stays as it is
    side = corpus.latents.shape[-1] // 2
    z, target = (torch.empty(len(chosen), corpus.latents.shape[1], side, side) for _ in range(2))
    weight = torch.empty(len(chosen), 1, side, side)
    for k, pair in enumerate(chosen):
        before, after = (torch.from_numpy(corpus.latents[i].astype(np.float32)) for i in pair)
        change = (after - before).abs().amax(0).numpy() + 1e-6  # a finding hidden behind another changes nothing
        y, x = np.unravel_index(rng.choice(change.size, p=(change / change.sum()).ravel()), change.shape)
        top, left = (int(np.clip(at - rng.integers(side), 0, side)) for at in (y, x))
        here = (..., slice(top, top + side), slice(left, left + side))
        z[k] = (after if gone[k] else before)[here]
        target[k] = z[k] if keep[k] else after[here]
        weight[k] = change_weight(corpus.latents[[pair[0], *relatives(corpus, int(pair[0]))]])[here]
    rows = [(corpus.rows[i], corpus.rows[j]) for i, j in chosen]
    rows = [pair[::-1] if swap else pair for pair, swap in zip(rows, gone, strict=True)]
    every = torch.ones(len(rows), dtype=torch.bool)
    return Batch(z, target, _captions(rows, keep, settings, rng), weight, every, ~every)


def relatives(corpus: Corpus, i: int) -> list[int]:
    """The other images of the same patient."""
    near = range(max(i - 8, 0), min(i + 9, len(corpus.rows))) if corpus.patients[i] >= 0 else ()
    return [j for j in near if corpus.patients[j] == corpus.patients[i] and j != i]


def twin(corpus: Corpus, i: int, rng: np.random.Generator) -> int:
    """Another image of the same patient: one that differs in :data:`HARD` findings three times as often, one that has more
    findings eight times as often, as only whole images can teach to add, and one that differs in several a quarter as often.
    """
    twins = relatives(corpus, i)
    differ = [set(corpus.rows[i].present) ^ set(corpus.rows[j].present) for j in twins]
    weight = np.array([max((3.0 if fact[0] in HARD else 1.0 for fact in facts), default=1.0) for facts in differ])
    weight *= [8.0 if set(corpus.rows[j].present) > set(corpus.rows[i].present) else 1.0 for j in twins]
    weight *= [0.25 if len(facts) > 1 else 1.0 for facts in differ]
    return int(rng.choice(twins, p=weight / weight.sum()))


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
    changed = (difference.abs().amax(1, keepdim=True) > 0.25).float()
    changed = nn.functional.max_pool2d(changed, 3, stride=1, padding=1)
    mean = difference.square().mean(dim=(1, 2, 3), keepdim=True)
    weight = 1 + changed * ((energy / mean.clamp(min=1e-6)).clamp(least, most) - 1)
    return torch.cat([weight, torch.ones(1, *weight.shape[1:])]).amax(0)


def times(batch: Batch, settings: DenoiserSettings, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Timesteps (B,), stratified so that every batch covers the whole chain, which lowers the variance of the loss, and
    which samples are shown without noise, bool (B,).

    Plain samples lean towards noise: there the layout is decided.
    """
    size = len(batch.captions)
    u = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
    share = settings.clean + batch.adds * (settings.clean_additions - settings.clean)
    clean = batch.paired & (torch.rand(size, generator=generator) < share)
    noisy = torch.where(batch.paired, u, settings.shift * u / (1 + (settings.shift - 1) * u))
    u = torch.where(clean, CLEAN[0] + (CLEAN[1] - CLEAN[0]) * u, noisy)
    return (u * steps).long().clamp(max=steps - 1), clean


def part_of_the_way(batch: Batch, clean: Tensor, settings: DenoiserSettings, generator: torch.Generator) -> Batch:
    """The batch with some of its ``clean`` samples (bool (B,)), and all noisy additions, changed part of the way towards what
    is asked for.
    """
    share, chance = torch.rand(2, len(clean), generator=generator)
    done = share * torch.where(clean, chance < settings.partway, batch.adds)
    return replace(batch, z=batch.z.lerp(batch.target, done.view(-1, 1, 1, 1)))


def loss(unet: Any, context: Tensor, batch: Batch, t: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
    """The error of the clean image in units of the noise: for plain samples the v-prediction error itself.

    With v = (s x - clean) / n the error of v is that of the clean image over n; towards a twin the v that is asked for
    grows without bound as n falls, so there n counts as :data:`LEAST_NOISE` at least.
    """
    s, n = signal.view(-1, 1, 1, 1), (1 - signal**2).sqrt().view(-1, 1, 1, 1)
    noisy = s * batch.z + n * noise
    v = unet(noisy, t, encoder_hidden_states=context, return_dict=False)[0].float()
    return clean_error(s * noisy - n * v, batch.target, batch.plain, n, batch.weight)


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
    log: Callable[[dict[str, float]], None],
    save: Callable[[nn.Module, nn.Module], None],
    every: int = 250,
) -> None:
    """Minimise :func:`loss`; ``save(unet, text_encoder)`` receives the averaged weights."""
    rng, generator = np.random.default_rng(settings.seed), torch.Generator().manual_seed(settings.seed)
    parts = nn.ModuleList([unet, text_encoder]).train()
    reader = teach(
        text_encoder, unet.add_embedding, tokenizer, corpus.rows, settings.captions,
        steps=settings.word_steps, seed=settings.seed, log=log,
    )  # fmt: skip
    average = {name: p.detach().clone() for name, p in parts.named_parameters()}
    groups = [
        {"params": unet.parameters(), "scale": 1.0},
        {"params": [*text_encoder.parameters(), *reader.parameters()], "scale": settings.text_rate},
    ]
    optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=1e-2, betas=(0.9, 0.98))
    pairs = removals(corpus)
    fast_bf16 = torch.backends.cpu.get_cpu_capability() == "AVX512"  # without, it is emulated, several times slower
    start, running = time.monotonic(), {False: 0.0, True: 0.0}
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = group["scale"] * settings.rate * cosine(step, settings.steps, settings.warmup)
        cut = len(pairs[0]) > 0 and rng.random() < settings.crops
        batch = draw_crops(corpus, pairs, settings, rng) if cut else draw(corpus, settings, rng)
        ids, mask = tokens_of(tokenizer, batch.captions)
        t, clean = times(batch, settings, len(alphas_cumprod), generator)
        batch = part_of_the_way(batch, clean, settings, generator)
        noise = torch.randn(batch.z.shape, generator=generator) * ~clean.view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16):
            context = text_encoder(ids, attention_mask=mask)[0]
            value = loss(unet, context, batch, t, noise, alphas_cumprod[t].sqrt())
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


def with_average(parts: nn.Module, average: dict[str, Tensor], action: Callable[[], None]) -> None:
    """Run ``action`` while the modules hold the averaged weights, then put the trained ones back."""
    trained = {name: p.detach().clone() for name, p in parts.named_parameters()}
    with torch.no_grad():
        for name, p in parts.named_parameters():
            p.copy_(average[name])
        action()
        for name, p in parts.named_parameters():
            p.copy_(trained[name])
