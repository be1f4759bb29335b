"""Attention under control: while a ``controlled`` block lasts, a function of yours answers every attention layer.

The layers' own processors stay in place and still do what is particular to their family (norms, rotary positions, added
projections, adapters); only the one call in which queries meet keys is taken over. So what works on Stable Diffusion works
on joint attention too, and every processor of diffusers that attends by ``scaled_dot_product_attention`` can be controlled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from counterscan.backbones.attention import Attention, Control
from counterscan.errors import ModelError

TextKeys = Callable[[int, int | None], slice]


@contextmanager
def controlled(network: nn.Module, text_keys: TextKeys, control: Control) -> Iterator[None]:
    """Inside, ``control`` answers every attention layer of diffusers in ``network``.

    ``text_keys(keys, text)`` says which of a layer's keys are the prompt's, where ``text`` is the length of the text that
    the layer is given (``None``: none). Raises ``ModelError`` for a layer that attends by other means than
    ``scaled_dot_product_attention``.
    """
    from diffusers.models.attention import AttentionModuleMixin

    with ExitStack() as stack:
        mode = stack.enter_context(_TakeOver(text_keys, control))
        for module in network.modules():
            if isinstance(module, AttentionModuleMixin) or type(module).__name__ == "Attention":
                for hook in (
                    module.register_forward_pre_hook(mode.enter, with_kwargs=True),
                    module.register_forward_hook(mode.leave),
                ):
                    stack.callback(hook.remove)
        yield


class _TakeOver(TorchFunctionMode):
    """Hands the one call of a layer to the control. Between layers, and inside the control, torch is as always."""

    def __init__(self, text_keys: TextKeys, control: Control) -> None:
        super().__init__()
        self.text_keys, self.control = text_keys, control
        self.text: int | None = None  # length of the text given to the layer at work
        self.waiting = False  # inside a layer that has not attended yet

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
        self.text, self.waiting = None if text is None else int(text.shape[1]), True

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.waiting:
            raise ModelError(
                f"{type(module).__name__} does not use scaled_dot_product_attention: its attention cannot be controlled"
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention or not self.waiting:
            return func(*args, **kwargs)
        self.waiting = False
        query, key, value = args[:3] if len(args) >= 3 else (kwargs["query"], kwargs["key"], kwargs["value"])
        text = self.text_keys(key.shape[2], self.text)
        mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
        return self.control(Attention(query, key, value, text, mask, kwargs.get("scale")))
