"""OpenVINO behind the waist: any backbone's ``encode``, ``decode`` and ``predict``, compiled for the CPU in float32.

What is traced are the three calls of the waist themselves, with any number of rows, so every family works that torch can
trace. Methods that look inside the network (attention) or differentiate through it need the plain backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterscan.backbones.base import sees_image
from counterscan.backbones.quiet import quiet
from counterscan.errors import ModelError
from counterscan.types import Condition, Prediction

if TYPE_CHECKING:
    from counterscan.backbones.base import Backbone
    from counterscan.backbones.card import Card
    from counterscan.diffusion import Schedule

ROWS = 2  # of the example that is traced: with one, a trace may take the 1 for a constant
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}  # the default may be bfloat16


class OpenVino:
    """A ``Backbone`` that computes with OpenVINO what ``inner``, a backbone on the CPU, computes with torch.

    A call is traced and compiled when it is first made, which takes seconds, once a process. Prompts are embedded by
    ``inner``.

    Raises ``ModelError`` when OpenVINO is not installed, or ``inner`` is not float32 on the CPU.
    """

    def __init__(self, inner: Backbone) -> None:
        self._core = _library().Core()
        if inner.device.type != "cpu" or inner.dtype != torch.float32:
            raise ModelError(
                f"{inner.card.name}: OpenVINO takes float32 on the CPU, not {inner.dtype} on {inner.device}"
            )
        self._inner = inner
        self._compiled: dict[Any, Any] = {}
        self.family: str = inner.family
        self.card: Card = inner.card
        self.schedule: Schedule = inner.schedule
        self.device, self.dtype = inner.device, inner.dtype
        self.evaluations = 0

    def __repr__(self) -> str:
        return f"<OpenVino {self._inner!r}>"

    @property
    def sees_image(self) -> bool:
        """Whether the network sees ``Condition.image`` beside the latent."""
        return sees_image(self._inner)

    @property
    def resolution(self) -> int:
        """Side of the square images that ``encode`` takes, in pixels."""
        return self._inner.resolution

    @property
    def channels(self) -> int:
        """Channels of the images that ``decode`` returns."""
        return self._inner.channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        return self._inner.latent_shape

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when the weights do."""
        return self._inner.fingerprint

    def encode(self, image: Tensor) -> Tensor:
        """Image float32 (B, C, H, W) in [0, 1] → latent float32 (B, c, h, w). Deterministic."""
        return self._run("encode", self._inner.encode, image)[0]

    def decode(self, z: Tensor) -> Tensor:
        """Latent → image float32 (B, C, H, W), clamped to [0, 1]."""
        return self._run("decode", self._inner.decode, z)[0]

    def embed(self, prompts: Sequence[str]) -> Condition:
        """One row of condition a prompt."""
        return self._inner.embed(prompts)

    def predict(
        self, z: Tensor, t: Tensor | int, condition: Condition, *, level: Tensor | int | None = None
    ) -> Prediction:
        """ONE network evaluation a row. See ``Backbone.predict``."""
        rows = z.shape[0]
        if len(condition) not in (1, rows):
            raise ValueError(f"{len(condition)} condition rows for {rows} latents")
        times = torch.as_tensor(t)
        levels = times if level is None else torch.as_tensor(level)
        parts = [condition.tokens, condition.pooled, condition.mask, condition.image]
        given = [part.expand(rows, *part.shape[1:]) for part in parts if part is not None]

        def traced(z: Tensor, t: Tensor, level: Tensor, *row: Tensor) -> tuple[Tensor, Tensor]:
            left = iter(row)
            made = Condition(*[None if part is None else next(left) for part in parts])  # type: ignore[arg-type]
            prediction = self._inner.predict(z, t, made, level=level)
            return prediction.clean, prediction.noise

        name = ("predict", *(part is not None for part in parts))
        clean, noise = self._run(name, traced, z, times.expand(rows), levels.expand(rows), *given)
        self.evaluations += rows
        return Prediction(clean, noise)

    def _run(self, name: Any, function: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            raise ModelError(f"{self.card.name}: the method needs gradients, OpenVINO has none; use the device cpu")
        key = name, tuple((tensor.dtype, tensor.shape[1:]) for tensor in inputs)
        if key not in self._compiled:
            self._compiled[key] = self._compile(function, inputs)
        outputs = self._compiled[key]([tensor.detach().contiguous().numpy() for tensor in inputs])
        return [torch.from_numpy(outputs[i].copy()) for i in range(len(outputs))]

    def _compile(self, function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
        """The function for any number of rows. Fixed numbers would be a little faster, but OpenVINO 2026.4 crashes on them."""
        settings = {**SETTINGS, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return self._core.compile_model(_trace(function, inputs), "CPU", settings)


class _Traced(torch.nn.Module):
    """A function as the module that OpenVINO wants."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _trace(function: Callable[..., Any], inputs: Sequence[Tensor]) -> Any:
    """OpenVINO's graph of the function for any number of rows."""
    import warnings

    openvino = _library()
    example = tuple(tensor[:1].expand(ROWS, *tensor.shape[1:]).contiguous() for tensor in inputs)
    shapes = [openvino.PartialShape([-1, *tensor.shape[1:]]) for tensor in inputs]
    with warnings.catch_warnings(), quiet(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # rows stay free, all else is constant on purpose
        warnings.simplefilter("ignore", DeprecationWarning)  # OpenVINO's own way to trace
        return openvino.convert_model(_Traced(function), example_input=example, input=shapes)


def _library() -> Any:
    try:
        import openvino
    except ImportError:
        raise ModelError("the device openvino needs OpenVINO: pip install 'counterscan[fast]'") from None
    return openvino
