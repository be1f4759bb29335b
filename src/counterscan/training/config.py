"""A training run as data: one YAML file, overridden by ``key=value`` words; every wrong field is named at once."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from counterscan.errors import WordsError
from counterscan.types import Sides

Part = Literal["unet", "transformer", "text_encoder", "vae", "lora", "token"]


class Strict(BaseModel):
    """Frozen; a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Captions(Strict):
    """Where the words of an image come from.

    ``source``: its ``caption``, its ``findings``, ``auto`` (the caption where there is one), or ``either`` of the two, half
    and half, so that a model reads whole prompts and can be asked by ``--remove`` and ``--add`` as well. Captions that hold
    several wordings between ``separator`` give a random one. ``drop`` is the share of empty captions, which guidance needs.
    ``text`` stands for every caption, for textual inversion. The rest is for captions made of findings, of all of them or
    those that ``findings`` names: ``template`` opens them; ``mention`` and ``deny`` are the chances of naming a present or
    an absent finding in a ``full`` caption; ``uncertain`` labels (-1) are not mentioned, or called "possible".
    """

    source: Literal["auto", "caption", "findings", "either"] = "auto"
    separator: str | None = None
    text: str | None = None
    findings: tuple[str, ...] = ()
    template: str = "chest radiograph"
    drop: float = Field(default=0.1, ge=0, le=1)
    full: float = Field(default=0.6, ge=0, le=1)
    mention: float = Field(default=0.8, ge=0, le=1)
    deny: float = Field(default=0.14, ge=0, le=1)
    view: float = Field(default=0.7, ge=0, le=1)
    sex: float = Field(default=0.5, ge=0, le=1)
    uncertain: Literal["ignore", "words"] = "ignore"


class Augment(Strict):
    """Random changes of an image that keep its caption true.

    ``flip``: left to right, ``words`` with the sides in the caption exchanged too, ``dropped`` only where the
    caption was dropped, ``free`` where left and right mean nothing. ``rotate`` in degrees, ``zoom`` and ``shift`` as
    fractions of the side, ``light`` as a factor of brightness and contrast: each the largest change, either way.
    """

    flip: Literal["never", "words", "dropped", "free"] = "never"
    rotate: float = Field(default=0, ge=0, le=45)
    zoom: float = Field(default=0, ge=0, lt=0.5)
    shift: float = Field(default=0, ge=0, lt=0.5)
    light: float = Field(default=0, ge=0, lt=1)

    @property
    def moves(self) -> bool:
        """True where an image is never the same twice, so that its latent cannot be kept."""
        return bool(self.rotate or self.zoom or self.shift or self.light)


class Data(Strict):
    """What is read: the rows of ``manifest`` whose split is ``split`` (empty: all).

    ``balance`` names finding columns: rows with and without each are drawn equally often. ``before`` makes pairs: where a row has
    a file in the column ``path_BEFORE``, the network sees that image beside the noisy one and learns to draw the row's own, as
    its caption says (InstructPix2Pix); pairs have captions of their own, which are never dropped. ``cache`` keeps the latents of
    a frozen autoencoder on disk; by default wherever that is right. ``cache_text`` keeps what prompts become under a frozen
    text encoder; by default where they are too many to be remembered and few enough for a gigabyte.
    ``workers`` threads read images.
    """

    manifest: Path
    split: str | None = "train"
    captions: Captions = Captions()
    augment: Augment = Augment()
    balance: tuple[str, ...] = ()
    before: str | None = None
    cache: bool | None = None
    cache_text: bool | None = None
    workers: int = Field(default=2, ge=1, le=64)


class Lora(Strict):
    """Low-rank adapters of the denoiser (Hu et al. 2022), on the layers whose names end in one of ``targets``."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=16, ge=1)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


class Token(Strict):
    """A new word (Gal et al. 2023, textual inversion). Its embedding alone learns, and begins as that of ``start``."""

    word: str = Field(default="<finding>", min_length=1)
    start: str = "finding"


class Objective(Strict):
    """What is minimised.

    ``prediction`` and ``zero_snr`` (Lin et al. 2024) change what the model predicts and its noise schedule; by default
    both stay. ``min_snr`` is the gamma of Hang et al. 2023 (5 is usual). ``times`` are drawn evenly, or logit-normally
    as for Stable Diffusion 3, and moved towards noise by ``shift``. ``seen`` is the share of pairs (``data.before``) shown
    WITHOUT noise, of which the network is asked for the image after: what goes is seen, and one evaluation then removes it, as
    the last passes of the method ``instruct`` ask. ``changed`` is how much more the places count where the images of a pair
    differ: they are few, and unweighted they are learned last.
    """

    prediction: Literal["epsilon", "v_prediction", "sample"] | None = None
    zero_snr: bool = False
    min_snr: float | None = Field(default=None, gt=0)
    loss: Literal["l2", "l1", "huber"] = "l2"
    times: Literal["uniform", "logit_normal"] = "uniform"
    shift: float = Field(default=1.0, gt=0)
    seen: float = Field(default=0, ge=0, le=1)
    changed: float = Field(default=1.0, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Objective:
        if self.zero_snr and self.prediction == "epsilon":
            raise ValueError("zero_snr needs prediction v_prediction or sample: epsilon says nothing of pure noise")
        return self


class Optimizer(Strict):
    """AdamW (``adamw8bit`` with bitsandbytes). ``rate`` after ``warmup`` steps; ``text_rate`` is the text encoder's share.

    ``clip`` is the largest norm of the gradient; ``null`` leaves it alone.
    """

    name: Literal["adamw", "adamw8bit"] = "adamw"
    rate: float = Field(default=1e-5, gt=0)
    text_rate: float = Field(default=1.0, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=1e-2, ge=0)
    clip: float | None = Field(default=1.0, gt=0)


class Autoencoder(Strict):
    """The loss of a VAE: squared or absolute error, plus ``ssim`` times (1 - SSIM), plus ``kl`` times the divergence.

    ``edges`` is the weight of the absolute error of neighbours' differences, for thin lines. ``noise`` is added to the
    latents of an autoencoder that has no posterior, so that it decodes smoothly between them.
    """

    ssim: float = Field(default=0.5, ge=0)
    kl: float = Field(default=1e-6, ge=0)
    edges: float = Field(default=0, ge=0)
    noise: float = Field(default=0, ge=0)


class Samples(Strict):
    """Images drawn while training: one a prompt, every ``every`` steps, always from the same noise."""

    prompts: tuple[str, ...] = ()
    every: int = Field(default=1000, ge=1)
    steps: int = Field(default=30, ge=1, le=1000)
    guidance: float = Field(default=3.0, ge=0, le=100)


class Validation(Strict):
    """Edits of held-out images, every ``every`` steps and at the end: the ``findings`` that the model is to remove.

    Each from the first ``images`` of ``split`` that have it, by ``method`` (the model's default otherwise). ``judge``, a
    classifier, tells what they gain; masks, where the manifest has them, whether the change is where the finding is.
    """

    findings: tuple[str, ...] = ()
    split: str = "val"
    images: int = Field(default=8, ge=1)
    every: int = Field(default=1000, ge=1)
    method: str | None = None
    judge: str | None = None


class Config(Strict):
    """One training run.

    ``model`` is where it starts: a built-in name, a folder or a hub id; or ``compact`` or ``pixel`` hold the arguments of
    ``build`` in :mod:`counterscan.backbones.compact` or ``compact_pixel``, for a model from nothing, and of ``compact`` also
    ``taught``: that many steps on the captions alone, before anything else, for its text encoder. ``text_encoder`` (a
    folder or a hub id) takes the place of the model's own, behind a projection that learns. ``train`` lists what else
    learns. One step takes ``batch`` images over all processes, ``micro_batch`` at a time: the result does not depend on
    how they are spread. With ``shard`` each process holds a part of what learns, its gradients and optimizer state (FSDP).
    """

    model: str | None = None
    compact: dict[str, Any] | None = None
    pixel: dict[str, Any] | None = None
    text_encoder: str | None = None
    output: Path
    name: str | None = None
    data: Data
    train: tuple[Part, ...] = ("unet",)
    lora: Lora = Lora()
    token: Token = Token()
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    autoencoder: Autoencoder = Autoencoder()
    steps: int = Field(default=1000, ge=1)
    batch: int = Field(default=16, ge=1)
    micro_batch: int = Field(default=4, ge=1)
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    frozen: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False
    shard: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    save_every: int = Field(default=500, ge=1)
    samples: Samples = Samples()
    validation: Validation = Validation()
    tracker: Literal["tensorboard", "wandb", "mlflow", "trackio"] | None = None
    default_method: str | None = None
    sides: Sides | None = None
    credit: str = ""

    @field_validator("train", mode="before")
    @classmethod
    def _one_part(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        starts = [name for name in ("model", "compact", "pixel") if getattr(self, name) is not None]
        if len(starts) != 1:
            raise ValueError(f"give one of model, compact and pixel, got {' and '.join(starts) or 'none'}")
        if not self.train and self.text_encoder is None:
            raise ValueError("train: name at least one part")
        if "vae" in self.train and len(self.train) > 1:
            raise ValueError("train: the vae is trained alone, before what reads its latents; use two runs")
        if "vae" in self.train and self.validation.findings:
            raise ValueError("validation: an autoencoder edits nothing; leave it out")
        if self.data.before and "vae" in self.train:
            raise ValueError("data.before: an autoencoder is trained on single images; leave it out")
        if self.data.before and self.compact is not None and not self.compact.get("sees_image"):
            raise ValueError("data.before: the model sees no image; set compact.sees_image to true")
        if self.objective.seen and not self.data.before:
            raise ValueError("objective.seen: only pairs are seen; name the column of the image before in data.before")
        if "lora" in self.train and {"unet", "transformer"} & set(self.train):
            raise ValueError("train: lora or the whole denoiser, not both")
        if "token" in self.train and "text_encoder" in self.train:
            raise ValueError("train: token or the whole text_encoder, not both")
        if self.frozen != "float32" and self.precision != self.frozen:
            raise ValueError(f"frozen: {self.frozen} weights need precision {self.frozen} too")
        if self.micro_batch > self.batch:
            raise ValueError(f"micro_batch {self.micro_batch} is more than batch {self.batch}")
        return self


def read(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The settings in a YAML file, with ``key=value`` words laid over them (``optimizer.rate=1e-4``).

    Paths in the file are relative to where the command runs. Raises ``WordsError`` that names every wrong field.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WordsError(f"{path}: {error.strerror or error}; name a training config, such as configs/") from error
    except (yaml.YAMLError, ValueError) as error:
        raise WordsError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise WordsError(f"{path}: expected fields such as 'model: chest-world', got {type(values).__name__}")
    for word in overrides:
        _override(values, word)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise WordsError(f"{path}: {'; '.join(_faults(error))}") from None


def _override(values: dict[str, Any], word: str) -> None:
    import yaml

    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise WordsError(f"{word!r}: write key=value, such as steps=100 or optimizer.rate=1e-4")
    *path, last = key.strip().split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise WordsError(f"{word!r}: {part} holds no fields")
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[last] = text


def _faults(error: ValidationError) -> list[str]:
    """One text a fault: the field, what is wrong, and what was given."""
    out = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ").replace("Field required", "is missing")
        given = f", got {fault['input']!r}" if where and fault["type"] not in ("missing", "extra_forbidden") else ""
        if fault["type"] == "extra_forbidden":
            what = _no_such(fault["loc"])
        out.append(": ".join(part for part in (where, what + given) if part))
    return out


def _no_such(where: tuple[int | str, ...]) -> str:
    """What to say of a field that does not exist: the nearest that does, or all of its neighbours."""
    holder: type[BaseModel] = Config
    for part in where[:-1]:
        kind = holder.model_fields[str(part)].annotation
        holder = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else holder
    known = list(holder.model_fields)
    near = get_close_matches(str(where[-1]), known, 1)
    return f"no such field; did you mean {near[0]}?" if near else f"no such field; there are {', '.join(known)}"
