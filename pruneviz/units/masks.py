"""Units, scores, masks, and the exact choice by rank."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import StoreError, Unsuitable
from pruneviz.door.parameters import named
from pruneviz.records.base import Recorded
from pruneviz.records.units import Unit

FILE = "pruneviz mask 1"  # what a mask's file says it is; the number is raised when older readers would misread it
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


@dataclass(frozen=True)
class Slot:
    """Where a unit lives in a parameter: ``axes`` () single weights, (0,) output units, (1,) input units."""

    param: str
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """Units that leave together: row 3 of a core and column 3 of what reads it. A weight tensor is a group of one slot.

    ``name``: of the parameter for single weights; of the layer for its filters; "layer out" and "layer in" for directions.
    """

    name: str
    members: tuple[Slot, ...]
    size: int

    @property
    def layer(self) -> str:
        """The layer that the units are of, without the side."""
        return self.name.partition(" ")[0]

    @classmethod
    def weights(cls, name: str, tensor: Tensor) -> Group:
        """The single weights of one parameter."""
        return cls(name, (Slot(name),), tensor.numel())


@dataclass(frozen=True)
class Scores:
    """One value per unit of each group, flat, higher = keep.

    ``plan`` is what a method found along the way and reads again when it chooses and repairs (OBS: its inverse Hessian).
    """

    values: Mapping[Group, Tensor]
    plan: Any = None

    def __post_init__(self):
        for group, value in self.values.items():
            if not bool(torch.isfinite(value).all()):
                raise Unsuitable(
                    f"The scores of {group.name!r} are not all finite. Check the network's weights and the data for "
                    "infinities or NaN, or train with a lower learning rate."
                )

    @classmethod
    def of_weights(cls, tensors: Mapping[str, Tensor], plan: Any = None) -> Scores:
        """Scores shaped like the parameters they rank."""
        return cls({Group.weights(name, value): value.detach().flatten() for name, value in tensors.items()}, plan)


class Layout(ABC):
    """How units larger than a weight lie in a network: what leaves with each, and how many weights are left.

    A kind of unit is one class; ``unit`` has its words. Whatever is asked of a unit elsewhere is asked here.
    """

    unit: ClassVar[Unit]
    layer_by_layer: ClassVar[bool] = (
        False  # a share of one layer's units can leave alone: its sensitivity is worth measuring
    )
    groups: tuple[Group, ...]
    size: int  # prunable weights of the dense network

    @abstractmethod
    def may_leave(self, group: Group) -> Tensor:
        """Which units can be removed at all: bool [size]."""

    @abstractmethod
    def most(self, group: Group) -> int:
        """How many of them may go; the others stay, so that no layer is cut through."""

    @abstractmethod
    def left(self, units: Mapping[Group, Tensor]) -> int:
        """Prunable weights that are left where these units are kept."""

    @abstractmethod
    def mask(self, units: Mapping[Group, Tensor]) -> Mask:
        """The mask that keeps these units."""

    def full(self) -> Mask:
        """Everything kept."""
        return self.mask({group: torch.ones(group.size, dtype=torch.bool) for group in self.groups})

    def reached(self, units: Mapping[Group, Tensor]) -> dict[str, float]:
        """Metric name -> the sparsity by another way of counting, where there are several."""
        return {}

    def cut(self, units: Mapping[Group, Tensor]) -> Recorded | None:
        """What is worth recording of these units right after the cut, beside the mask."""
        return None


class Mask(Mapping[str, Tensor]):
    """Parameter name -> bool tensor, True = kept, for every prunable parameter.

    ``units`` keeps the choice unit by unit: group -> bool [size]. For units larger than a weight there is a ``layout``;
    ``coupled`` holds what else is zero then (biases and normalisation of removed filters), and ``size`` and ``left`` count
    the prunable weights of the dense and of the compacted network, where these are not just the mask's entries.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        units: Mapping[Group, Tensor] | None = None,
        *,
        coupled: Mapping[str, Tensor] | None = None,
        size: int | None = None,
        left: int | None = None,
        layout: Layout | None = None,
    ):
        self._params = {name: keep.bool() for name, keep in params.items()}
        self.units = dict(units) if units else {Group.weights(n, k): k.flatten() for n, k in self._params.items()}
        self.coupled = {name: keep.bool() for name, keep in (coupled or {}).items()}
        self.layout = layout
        self._size, self._left = size, left

    @classmethod
    def full(cls, model: nn.Module, names: Iterable[str], alive: Mapping[str, Tensor] | None = None) -> Mask:
        """Every single weight kept; of parameters in ``alive`` those that it says are there."""
        params, there = named(model), alive or {}
        return cls(
            {
                name: there[name].to(params[name].device)
                if name in there
                else torch.ones_like(params[name], dtype=torch.bool)
                for name in names
            }
        )

    def keeping(self, units: Mapping[Group, Tensor]) -> Mask:
        """The mask of the same network that keeps these units. Raises Unsuitable for whole units of a mask from a file."""
        if self.layout is not None:
            return self.layout.mask(units)
        if any(group.name not in self for group in units):
            raise Unsuitable(
                "This mask was read from a file, which says which units are gone and not how they lie in a network. "
                "Pass it to pv.prune as mask=, with the network."
            )
        return Mask({group.name: keep.view(self[group.name].shape) for group, keep in units.items()}, units)

    def may_leave(self, group: Group) -> Tensor:
        """Which of a group's units are there and can be removed: bool [size]."""
        kept = self.units[group]
        return kept if self.layout is None else kept & self.layout.may_leave(group)

    def __getitem__(self, name: str) -> Tensor:
        return self._params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    @property
    def size(self) -> int:
        """Number of prunable weights of the dense network."""
        return self._size if self._size is not None else sum(keep.numel() for keep in self._params.values())

    @property
    def removed(self) -> int:
        """Number of them that are gone."""
        left = self._left if self._left is not None else sum(int(keep.sum()) for keep in self._params.values())
        return self.size - left

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable parameters that is gone."""
        return self.removed / self.size

    def per_layer(self) -> dict[str, float]:
        """Parameter name -> fraction of it that is gone."""
        return {name: 1 - int(keep.sum()) / keep.numel() for name, keep in self._params.items()}

    @property
    def empty_layers(self) -> tuple[str, ...]:
        """Parameters that lost everything."""
        return tuple(name for name, keep in self._params.items() if not keep.any())

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set every pruned parameter of the model to zero, and what is coupled to them.

        Raises: Unsuitable, before anything is changed, where the model has no parameter of a name, or of another shape.
        """
        for parameter, keep in matched(model, self.everything).values():
            parameter.masked_fill_(~keep, 0)

    @property
    def everything(self) -> dict[str, Tensor]:
        """Parameter name -> bool tensor, biases and normalisation of removed filters included."""
        return self._params | self.coupled

    def to(self, device: torch.device | str) -> Mask:
        """The same mask on another device."""
        return Mask(
            {n: k.to(device) for n, k in self._params.items()},
            {g: k.to(device) for g, k in self.units.items()},
            coupled={n: k.to(device) for n, k in self.coupled.items()},
            size=self._size,
            left=self._left,
            layout=self.layout,
        )

    def save(self, path: Path | str) -> None:
        """Keep the mask as a safetensors file: bool tensors ``kept/<parameter>``, ``coupled/<parameter>`` and, for whole
        units, ``unit/<number>``. The file is there whole or not at all.

        Raises: StoreError where it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        whole = [] if self._of_weights else list(self.units)
        tensors = {f"kept/{name}": keep for name, keep in self._params.items()}
        tensors |= {f"coupled/{name}": keep for name, keep in self.coupled.items()}
        tensors |= {f"unit/{i}": self.units[group] for i, group in enumerate(whole)}
        content = {
            "kept": list(self._params),
            "coupled": list(self.coupled),
            "units": [asdict(g) for g in whole],
            "size": self._size,
            "left": self._left,
        }
        path = Path(path)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            save_file(
                {name: keep.detach().cpu().contiguous().clone() for name, keep in tensors.items()},
                temporary,
                {"format": FILE, "mask": json.dumps(content)},
            )
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"The mask cannot be written to {path} ({error}). Choose a folder that is there."
            ) from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str) -> Mask:
        """The mask that :meth:`save` wrote, on the CPU. One of whole units comes without its layout: it can be applied, held,
        counted and given as ``mask=``.

        Raises: StoreError, where the file is missing, damaged or no mask.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise StoreError(f"There is no mask at {path}. Write one with Mask.save.")
        try:
            with safe_open(path, "pt") as file:
                said = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} is no mask, or was cut short ({error}). Save the mask again.") from None
        if said.get("format") != FILE:
            found = said.get("format", "another safetensors file")
            raise StoreError(f"{path} holds no mask that this version reads (it is {found}). Write one with Mask.save.")
        try:
            return cls._read(json.loads(said["mask"]), tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error!r}). Save the mask again.") from None

    @classmethod
    def _read(cls, content: dict[str, Any], tensors: Mapping[str, Tensor]) -> Mask:
        """What a file's description and its tensors say. Raises KeyError, TypeError, ValueError where they do not fit."""
        groups = [
            Group(g["name"], tuple(Slot(s["param"], tuple(s["axes"])) for s in g["members"]), g["size"])
            for g in content["units"]
        ]
        units = {group: tensors[f"unit/{i}"] for i, group in enumerate(groups)}
        wrong = [name for name, t in tensors.items() if t.dtype is not torch.bool]
        wrong += [group.name for group, keep in units.items() if keep.shape != (group.size,)]
        if wrong:
            raise ValueError(f"{wrong[0]} is not what a mask holds")
        return cls(
            {name: tensors[f"kept/{name}"] for name in content["kept"]},
            units or None,
            coupled={name: tensors[f"coupled/{name}"] for name in content["coupled"]},
            size=content["size"],
            left=content["left"],
        )

    @property
    def _of_weights(self) -> bool:
        """Whether the units are the entries of the mask."""
        return all(group.members == (Slot(group.name),) and group.name in self for group in self.units)


def matched(model: nn.Module, tensors: Mapping[str, Any]) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Parameter name -> the model's parameter, and what is given for it as bool on its device.

    Raises: Unsuitable, where the model has no parameter of a name, or of another shape.
    """
    params, found = named(model), {}
    for name, given in tensors.items():
        if name not in params:
            raise Unsuitable(
                f"The network has no parameter called {name!r}, which the mask names. {_mend(name, params)}"
            )
        keep = torch.as_tensor(given)
        if keep.shape != params[name].shape:
            raise Unsuitable(
                f"The mask's {name!r} is {list(keep.shape)}, and the network's is {list(params[name].shape)}. "
                "Build the network that the mask was made for."
            )
        found[name] = params[name], keep.to(params[name].device).bool()
    return found


def _mend(name: str, known: Iterable[str]) -> str:
    """What to do about a name that is not known."""
    known = list(known)
    for prefix in WRAPPERS:
        if name.removeprefix(prefix) in known:
            return (
                f"Take {prefix!r} off the mask's names: the network is not wrapped, and the mask was made when it was."
            )
        if prefix + name in known:
            return f"The network is wrapped: give what is inside (its names begin with {prefix!r})."
    near = get_close_matches(name, known, n=1, cutoff=0.4)
    return f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known[:5]) or 'none'}."
