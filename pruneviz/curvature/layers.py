"""What goes into each Linear and Conv2d layer in one forward pass, and the loss's slopes at what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pruneviz.curvature.products import groups_of, positions
from pruneviz.errors import UnsupportedLayer
from pruneviz.loss import Loss


def layer_called(name: str, model: nn.Module) -> nn.Linear | nn.Conv2d:
    """The Linear or Conv2d of this name."""
    found = model.get_submodule(name)
    assert isinstance(found, nn.Linear | nn.Conv2d)
    return found


class Recorder:
    """Inputs of every Linear and Conv2d in one forward pass, and the places in its graph where their outputs leave.

    ``inputs``: layer name -> input; ``positions``: at how many positions of a sample its weight is used; ``bytes``: of all
    their outputs, for a sample. A layer that works in place on an output changes nothing here: the place in the graph stays.
    """

    def __init__(self, model: nn.Module, *, groups: bool = False):
        """``groups``: whether grouped convolutions are understood; they are refused otherwise."""
        self._grouped = groups
        self.layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self.positions: dict[str, int] = {}
        self.bytes = 0
        self._inputs: dict[str, tuple[Tensor, int]] = {}
        self._edges: dict[str, GradientEdge] = {}
        self._shapes: dict[str, torch.Size] = {}

    def __enter__(self) -> Recorder:
        self.handles = [m.register_forward_hook(self._hook(n)) for n, m in self.layers.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _hook(self, name: str) -> Callable:
        def hook(module: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in self._edges:
                raise UnsupportedLayer(
                    f"Layer {name!r} is used twice in one forward pass: its curvature would be wrong. "
                    "Give each use its own layer."
                )
            if not self._grouped and groups_of(module) != 1:
                raise UnsupportedLayer(
                    f"Layer {name!r} is a convolution with {groups_of(module)} groups; this curvature is computed for "
                    "groups=1 only. Choose Kron-OBD, EigenDamage or a method without curvature."
                )
            x = inputs[0].detach()
            self._inputs[name], self._edges[name] = (x, x._version), get_gradient_edge(output)
            self._shapes[name] = output.shape
            self.positions[name] = positions(module, output)
            self.bytes += output[0].numel() * output.element_size()

        return hook

    def __iter__(self) -> Iterator[str]:
        """Names of the layers used, in forward order."""
        return iter(list(self._edges))

    def forward(self, model: nn.Module, x: Tensor) -> Tensor:
        """The network's outputs, everything recorded anew."""
        self._inputs.clear()
        self._edges.clear()
        self.bytes = 0
        return model(x)

    def input(self, name: str) -> Tensor:
        """What went into a layer. Raises UnsupportedLayer where an operation has overwritten it since."""
        x, version = self._inputs[name]
        if x._version != version:
            raise UnsupportedLayer(
                f"The input of layer {name!r} was overwritten by an operation that works in place. "
                "Write y = y + x where the forward pass has y += x, or use inplace=False."
            )
        return x

    def edge(self, name: str) -> GradientEdge:
        """Where a layer's output leaves, as ``torch.autograd.grad`` takes it."""
        return self._edges[name]

    def shape(self, name: str) -> torch.Size:
        """The output's shape."""
        return self._shapes[name]

    def slopes(
        self, cotangent: Tensor, outputs: Tensor, names: Sequence[str], also: Sequence[Tensor] = ()
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Slopes at the outputs of these layers, shaped like them, and at ``also``, for this slope at the network's outputs."""
        at: Any = [*(self._edges[n] for n in names), *also]
        found = torch.autograd.grad(outputs, at, cotangent, retain_graph=True, allow_unused=True)
        here = [outputs.new_zeros(self._shapes[n]) if g is None else g for n, g in zip(names, found, strict=False)]
        return here, [torch.zeros_like(p) if g is None else g for p, g in zip(also, found[len(names) :], strict=True)]


class Gatherer:
    """One statistic in the making. What it is told of a portion of samples is forgotten before the next one."""

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        """The network's outputs, with their graph."""

    def inputs(self, recorder: Recorder, name: str, x: Tensor) -> None:
        """What went into a layer."""

    def slope(self, recorder: Recorder, name: str, slope: Tensor, of: int) -> None:
        """A slope at what came out [n, ...], one of so many that the statistic reads."""

    def slopes_end(self, recorder: Recorder, name: str) -> None:
        """All slopes that it reads have been told for this portion; or it is time to let go of those kept."""

    def found(self, seen: int) -> Any:
        """The statistic, after so many samples."""
        raise NotImplementedError
