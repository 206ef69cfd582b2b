"""What goes into each layer in one forward pass, and the loss's slopes at what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from pruneviz.curvature.products import Product
from pruneviz.curvature.uses import Use, use_of
from pruneviz.door.loss import Loss
from pruneviz.door.network import Network
from pruneviz.door.parameters import Layer, named
from pruneviz.door.samples import Samples, answered
from pruneviz.door.traced import CALLS, arguments


def layer_called(name: str, model: nn.Module) -> Layer:
    """The Linear, Conv1d or Conv2d of this name."""
    found = model.get_submodule(name)
    assert isinstance(found, Layer)
    return found


class Recorder(TorchFunctionMode):
    """Every weight that is read by one call of ``linear`` or ``conv``, by its name: what it multiplies, and where that leaves.

    ``bytes``: of all their outputs, for a sample. A layer that works in place on an output changes nothing here: the place
    in the graph stays.
    """

    def __init__(self, model: nn.Module, network: Network):
        super().__init__()
        params = named(model)
        self.network = network
        self._known = {id(params[w.name]): w for w in network.weights.values() if w.factors and w.slope}
        self._uses: dict[str, Use] = {}
        self._samples = self.bytes = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in CALLS and (known := self._known.get(id(arguments(args, kwargs)[1]))) is not None:
            edge = get_gradient_edge(result)
            self._uses[known.name] = use_of(known, self._samples, (name, args, kwargs), edge, result.shape)
            self.bytes += result.numel() // self._samples * result.element_size()
        return result

    def __iter__(self) -> Iterator[str]:
        """Names of the weights used, in forward order."""
        return iter(list(self._uses))

    def forward(self, model: nn.Module, x: Samples) -> Tensor:
        """The network's outputs, everything recorded anew."""
        self._uses.clear()
        self._samples, self.bytes = len(x), 0
        with self:
            return answered(model, x)

    def use(self, name: str) -> Use:
        """How a weight is used."""
        return self._uses[name]

    def product(self, name: str) -> Product:
        """What it takes part in."""
        return self._uses[name].product

    def slopes(
        self, cotangent: Tensor, outputs: Tensor, names: Sequence[str], also: Sequence[Tensor] = ()
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Slopes at the outputs of these, samples first, and at ``also``, for this slope at the network's outputs."""
        at: Any = [*(self._uses[n].edge for n in names), *also]
        if not at:  # no weight is read by one call of linear or a convolution
            return [], []
        found = torch.autograd.grad(outputs, at, cotangent, retain_graph=True, allow_unused=True)
        here = []
        for name, g in zip(names, found, strict=False):
            use = self._uses[name]
            here.append(use.slope(outputs.new_zeros(use.shape) if g is None else g))
        return here, [torch.zeros_like(p) if g is None else g for p, g in zip(also, found[len(names) :], strict=True)]


class Gatherer:
    """One statistic in the making. What it is told of a portion of samples is forgotten before the next one."""

    def direct(self, product: Product) -> bool:
        """Whether it takes what goes into a product and comes back to it; else it is told gradients of single samples."""
        return True

    def single(self, network: Network) -> tuple[str, ...]:
        """Weights (and biases) whose gradients it wants sample by sample where they can't be had directly; by default none."""
        return ()

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        """The network's outputs, with their graph."""

    def inputs(self, recorder: Recorder, name: str, x: Tensor) -> None:
        """What went into a layer."""

    def slope(self, recorder: Recorder, name: str, slope: Tensor, of: int) -> None:
        """A slope at what came out [n, ...], one of so many that the statistic reads."""

    def slopes_end(self, recorder: Recorder, name: str) -> None:
        """All slopes that it reads have been told for this portion; or it is time to let go of those kept."""

    def gradients(self, sample: int, gradients: dict[str, Tensor]) -> None:
        """Of one sample of this portion: parameter -> its gradient for each of the slopes that the statistic reads [k, ...]."""

    def found(self, seen: int) -> Any:
        """The statistic, after so many samples."""
        raise NotImplementedError
