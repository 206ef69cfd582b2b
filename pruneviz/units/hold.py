"""Zeros that stay zero through any training loop."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from pruneviz.door.parameters import named
from pruneviz.units.masks import Mask, matched


class Hold:
    """Keeps what a mask prunes at exactly zero while anybody trains the model: see :func:`hold`.

    A context manager; :meth:`remove` ends it. Copies of the model are held too, from their first forward pass on.
    """

    def __init__(self, model: nn.Module, mask: Mask | Mapping[str, Tensor]):
        keep = matched(model, mask.everything if isinstance(mask, Mask) else mask)
        self._gone = {name: ~kept for name, (_, kept) in keep.items()}
        self._begin()
        self._watch(model)
        self._handles += [
            model.register_forward_pre_hook(self._forward),
            model.register_load_state_dict_post_hook(self._loaded),
            model.register_state_dict_pre_hook(self._saved),
        ]

    def _begin(self) -> None:
        self._active = True
        self._gradients: dict[int, tuple[weakref.ref[Tensor], Any]] = {}
        self._models: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._handles: list[Any] = []
        this = weakref.ref(self)

        def stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            held = this()
            if held is not None:
                held._stepped(optimizer)

        handle = register_optimizer_step_post_hook(stepped)
        self._handles.append(handle)
        weakref.finalize(self, handle.remove)  # a model that is gone holds nothing any more

    def remove(self) -> None:
        """Let go: the zeros are zero now, and free to move."""
        for model in list(self._models):
            self._zero_(model)
        self._active = False
        for handle in [*self._handles, *(handle for _, handle in self._gradients.values())]:
            handle.remove()
        self._models.clear()
        self._gradients.clear()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def names(self, model: nn.Module) -> set[str]:
        """The parameters of the model that are held, by every name they have; none after :meth:`remove`."""
        if not self._active or model not in self._models:
            return set()
        mine = {id(parameter) for parameter, _ in self._pairs(model)}
        return {name for name, parameter in named(model).items() if id(parameter) in mine}

    def _pairs(self, model: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter as it is now, and which of its entries are gone. What a copy no longer has is passed over."""
        params = named(model)
        for name, gone in self._gone.items():
            parameter = params.get(name)
            if isinstance(parameter, nn.Parameter) and parameter.shape == gone.shape:
                if gone.device != parameter.device:
                    gone = self._gone[name] = gone.to(parameter.device)
                yield parameter, gone

    def _watch(self, model: nn.Module) -> None:
        """Zero the model now, its gradients as they come, and itself after every step of an optimiser that has its parameters."""
        for parameter, gone in self._pairs(model):
            _zero_(parameter, gone)
            known = self._gradients.get(id(parameter))
            if parameter.requires_grad and parameter.is_leaf and (known is None or known[0]() is not parameter):
                self._gradients = {i: pair for i, pair in self._gradients.items() if pair[0]() is not None}
                handle = parameter.register_post_accumulate_grad_hook(_clearing(gone))
                self._gradients[id(parameter)] = weakref.ref(parameter), handle
        self._models.add(model)

    def _zero_(self, model: nn.Module) -> None:
        for parameter, gone in self._pairs(model):
            _zero_(parameter, gone)

    def _forward(self, model: nn.Module, inputs: Any) -> None:
        if self._active:
            self._watch(model)

    def _loaded(self, model: nn.Module, keys: Any) -> None:
        if self._active:
            self._watch(model)

    def _saved(self, model: nn.Module, prefix: str, keep_vars: bool) -> None:
        if self._active:
            self._zero_(model)

    def _stepped(self, optimizer: Optimizer) -> None:
        moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for model in list(self._models):
            for parameter, gone in self._pairs(model):
                if id(parameter) in moved:
                    _zero_(parameter, gone)

    def __deepcopy__(self, memo: Any) -> Hold:
        return self  # a copy of the model keeps the same zeros

    def __getstate__(self) -> dict[str, Any]:
        return {"gone": {name: gone.cpu() for name, gone in self._gone.items()}, "active": self._active}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._gone = state["gone"]
        self._begin()
        if not state["active"]:
            self.remove()


def hold(model: nn.Module, mask: Mask | Mapping[str, Tensor]) -> Hold:
    """Keep what ``mask`` prunes at exactly zero through any training loop: ``with pv.hold(model, mask): train(model)``.

    Zeroed are the model at once, the gradients of what is pruned as they come, and the pruned entries after each step of any
    ``torch.optim`` optimiser (whatever its momentum and weight decay), before each forward pass, after ``load_state_dict``
    and before ``state_dict``. Returns a handle: leave the ``with``, or call ``.remove()``, to let go.

    ``mask``: a :class:`~pruneviz.units.masks.Mask`, or bool tensors by parameter name, True = kept. Any name of a tied weight
    will do; of a parametrized one, that of the parameter (``"0.parametrizations.weight.original1"``).
    Raises: Unsuitable, where the model has no parameter of a name, or of another shape.
    """
    return Hold(model, mask)


def held(model: nn.Module) -> set[str]:
    """The names of all parameters that :func:`hold` keeps zeros in."""
    hooks = [getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values()]
    return set().union(*(hook.names(model) for hook in hooks if isinstance(hook, Hold)))


def _zero_(parameter: Tensor, gone: Tensor) -> None:
    """In place, beside autograd: what is zero already changes nothing, and graphs that read it stay valid."""
    parameter.data.masked_fill_(gone, 0)


def _clearing(gone: Tensor):
    def clear(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.data.masked_fill_(gone.to(parameter.grad.device), 0)

    return clear
