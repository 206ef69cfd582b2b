"""What goes into each Linear and Conv2d layer and what comes out, and the loss's slopes there, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.errors import UnsupportedLayer


def layer_called(name: str, model: nn.Module) -> nn.Linear | nn.Conv2d:
    """The Linear or Conv2d of this name."""
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear | nn.Conv2d)
    return found


class Recorder:
    """Inputs and outputs of every Linear and Conv2d in one forward pass."""

    def __init__(self, model: nn.Module, *, groups: bool = False):
        """``groups``: whether grouped convolutions are understood; they are refused otherwise."""
        self._grouped = groups
        self.layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def __enter__(self) -> Recorder:
        self.handles = [m.register_forward_hook(self._hook(n)) for n, m in self.layers.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _hook(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name in self.outputs:
                raise UnsupportedLayer(
                    f"Layer {name!r} is used twice in one forward pass: its curvature would be wrong. "
                    "Give each use its own layer."
                )
            if not self._grouped and self.groups(name) != 1:
                raise UnsupportedLayer(
                    f"Layer {name!r} is a convolution with {self.groups(name)} groups; this curvature is computed for "
                    "groups=1 only. Choose Kron-OBD, EigenDamage or a method without curvature."
                )
            self.inputs[name], self.outputs[name] = inputs[0].detach(), output
            return output.clone()  # an activation that works in place must not overwrite what was recorded

        return hook

    def clear(self) -> None:
        self.inputs.clear()
        self.outputs.clear()

    def groups(self, name: str) -> int:
        """Groups of a convolution; 1 for any other layer."""
        layer = self.layers[name]
        return layer.groups if isinstance(layer, nn.Conv2d) else 1

    def portions(self, name: str, entries: int) -> Iterator[Tensor]:
        """:meth:`rows` of some samples at a time, so that none has many more than ``entries`` entries."""
        layer, each = self.layers[name], self.outputs[name][0]
        kernel = layer.weight[0].numel() * self.groups(name)
        positions = each[0].numel() if isinstance(layer, nn.Conv2d) else each.numel() // each.shape[-1]
        step = max(1, entries // (kernel * positions))
        for part in self.inputs[name].split(step):
            yield self.rows(name, part)

    def rows(self, name: str, x: Tensor | None = None) -> Tensor:
        """What the layer multiplies with its weight, for all samples or for inputs ``x``: [samples, positions, in]."""
        layer = self.layers[name]
        x = self.inputs[name] if x is None else x
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                raise UnsupportedLayer(f"Layer {name!r}: only zero padding given in numbers is supported.")
            return F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
        return x.reshape(len(x), -1, x.shape[-1])

    def slopes(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient at the layer's output: [samples, positions, out]."""
        if isinstance(self.layers[name], nn.Conv2d):
            return gradient.flatten(2).transpose(1, 2)
        return gradient.reshape(len(gradient), -1, gradient.shape[-1])

    def gradients(self, cotangent: Tensor, outputs: Tensor, names: list[str] | None = None) -> dict[str, Tensor]:
        """Layer name -> the slope at its output [samples, positions, out], for this slope at the network's outputs."""
        names = list(self.outputs) if names is None else names
        if not names:
            return {}
        at = [self.outputs[n] for n in names]
        found = torch.autograd.grad(outputs, at, cotangent, retain_graph=True, allow_unused=True)
        return {
            n: self.slopes(n, torch.zeros_like(z) if g is None else g) for n, z, g in zip(names, at, found, strict=True)
        }
