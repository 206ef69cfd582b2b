"""Filters by the size of their weights, Li et al. 2017."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import Unsuitable
from pruneviz.methods._kronecker import FilterMethod, filter_rows
from pruneviz.methods.base import Card, Scope, Start, Unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from torch import Tensor, nn

    from pruneviz.curvature.task import Task
    from pruneviz.door.samples import Samples
    from pruneviz.models.base import ModelCard
    from pruneviz.units.masks import Group, Mask, Scores

ORDER = 15


class L1Filters(FilterMethod):
    """Sum of a filter's absolute weights; the smallest leave, the same share in every layer of a stage."""

    slopes = False
    card = Card(
        key="l1-filters",
        title="L1 filters",
        idea="A filter of small weights gives small outputs: remove whole filters, and the network really shrinks.",
        formula=r"s_j = \sum |F_j|, \qquad \text{keep } \lfloor n_\ell (1 - r) \rfloor \text{ filters of layer } \ell",
        symbols=(
            (r"F_j", "weights of filter j, over all its input channels and its kernel"),
            (r"n_\ell", "filters of layer ℓ"),
            (r"r", "share of filters that leaves, one for all layers of a stage (same size of image)"),
        ),
        criterion="filter size",
        starts=Start.TRAINED,
        unit=Unit.FILTER,
        scope=Scope.STAGE,
        paper=Paper(
            "li2017pruning",
            "Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf",
            "Pruning Filters for Efficient ConvNets",
            2017,
            "International Conference on Learning Representations",
            "https://arxiv.org/abs/1608.08710",
            "sections 3.1 to 3.3",
        ),
        steps=(
            "Train the network.",
            "Add up the absolute weights of each filter.",
            "In every layer, remove the same share of filters, the smallest; leave sensitive layers out.",
            "Their biases, normalisation and the weights that read them go along.",
            "Train again.",
        ),
        departures=(
            "mode=greedy leaves out the weights that read filters already removed, as the paper's second variant does.",
            "scope global ranks the filters of all layers together, which removes whole layers first.",
            "Convolutions alone lose filters; dense layers only lose what read them.",
        ),
        colour="#3397c1",
        mark="square",
    )  # fmt: skip
    mode: Literal["independent", "greedy"] = Field(
        "independent", description="Score filters as they are, or without the channels that earlier layers lost"
    )
    per_stage: dict[str, float] = Field(
        default_factory=dict,
        description="Most of the filters that leaves in a stage (1, 2, …) or a layer; the sparsity asked for scales all alike",
    )
    skip: tuple[str, ...] = Field(
        (), description="Layers left whole: names, or the number of the convolution, the first being 1"
    )

    @field_validator("per_stage", mode="before")
    @classmethod
    def _ratios(cls, value: Any) -> dict[str, float]:
        """Forms and the command line give text: "1=0.5, 4=0.5"."""
        if isinstance(value, str):
            parts = [part.split("=") for part in value.replace(";", ",").split(",") if part.strip()]
            if any(len(part) != 2 for part in parts):
                raise ValueError(f"per_stage is written 1=0.5,4=0.5; found {value!r}")
            value = {name.strip(): ratio for name, ratio in parts}
        if not isinstance(value, dict):
            raise ValueError(f"per_stage is a mapping of ratios such as {{1: 0.5}}; found {value!r}")
        try:
            found = {str(name): float(ratio) for name, ratio in value.items()}
        except (TypeError, ValueError):
            raise ValueError(f"per_stage is a mapping of ratios such as {{1: 0.5}}; found {value!r}") from None
        if any(not 0 <= ratio < 1 for ratio in found.values()):
            raise ValueError(f"per_stage holds shares of filters, at least 0 and below 1; found {found}")
        return found

    @field_validator("skip", mode="before")
    @classmethod
    def _names(cls, value: Any) -> tuple[str, ...]:
        if isinstance(value, str | int):  # forms and the command line give text, or a number for a single one
            value = [part.strip() for part in str(value).split(",") if part.strip()]
        if not isinstance(value, list | tuple | set):
            raise ValueError(f"skip is a list of layers; found {value!r}")
        return tuple(str(part) for part in value)

    @classmethod
    def patterns(cls, skip: Iterable[str]) -> tuple[str, ...]:
        return tuple(part for part in skip if not part.isdecimal())  # the others number convolutions

    @classmethod
    def suits(cls, model: ModelCard) -> None:
        if not model.convolutions:
            raise Unsuitable(
                f"L1 filters needs a convolution; {model.key!r} has none. Try magnitude, or lenet-5-caffe."
            )

    @classmethod
    def share(cls) -> float | None:
        return None

    def full(self, model: nn.Module, task: Task) -> Mask:
        from pruneviz.door.parameters import Convolution

        full = super().full(model, task)
        names = [group.layer for group in full.units]
        if not any(isinstance(model.get_submodule(name), Convolution) for name in names):
            raise Unsuitable(
                "L1 filters needs a convolution, and this network has none whose filters can leave. Try Kron-OBD."
            )
        return full

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.door.parameters import Convolution
        from pruneviz.units.masks import Scores

        groups = [g for g in mask.units if isinstance(model.get_submodule(g.layer), Convolution)]
        return Scores({group: filter_rows(model, group).abs().sum(1) for group in groups})

    def choose(self, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
        """Counts by one ratio for all, scaled to the target; which filters, by mode."""
        from pruneviz.units.choice import select_units

        ratios = self._most(model, task, list(scores.values))
        most = {g: min(g.size - floor(g.size * (1 - Fraction(repr(r)))), g.size - 1) for g, r in ratios.items()}
        values = scores.values
        if task.scope != "global":  # filter i of n leaves as soon as the scale t of all ratios r exceeds i / (n r)
            values = {g: v / (ratios[g] or 1.0) for g, v in self.ranked(scores, mask, task.scope, task.seed).items()}
        found = select_units(values, mask, target, most=most, seed=task.seed if task.scope == "global" else None)
        return (
            mask.keeping(self._greedy(model, scores, mask, found.units, task.seed)) if self.mode == "greedy" else found
        )

    def _greedy(
        self, model: nn.Module, scores: Scores, mask: Mask, units: Mapping[Group, Tensor], seed: int
    ) -> dict[Group, Tensor]:
        """As many filters of each layer as ``units`` keeps, chosen without the channels that earlier layers lost."""
        import torch

        from pruneviz.curvature.layers import layer_called
        from pruneviz.units.choice import remove_lowest
        from pruneviz.units.filters import Filters

        found = dict(units)
        assert isinstance(mask.layout, Filters)
        channels = mask.layout.channels
        gone = torch.zeros(len(channels.free), dtype=torch.bool)
        for group in scores.values:
            rows = layer_called(group.layer, model).weight.detach().abs()
            present = ~gone[channels.reads[group.layer]]
            left = rows[:, present.to(rows.device)].flatten(1).sum(1)
            stays = ~mask.may_leave(group)
            lost = int((~units[group]).sum() - (~mask.units[group]).sum())
            left = torch.where(stays, torch.inf, left)
            found[group] = remove_lowest(left, mask.units[group], lost, name=group.name, seed=seed)
            gone[channels.writes[group.layer][~found[group].cpu()]] = True
        return found

    def _most(self, model: nn.Module, task: Task, groups: Iterable[Group]) -> dict[Group, float]:
        """The share of each group's filters that may leave. Raises Unsuitable for a stage or layer that is not there."""
        stages = stages_of(model, task.sample(model))
        from pruneviz.units.weights import called, skips

        numbers = {name: str(i) for i, name in enumerate(stages, 1)}
        known = {*stages, *numbers.values()}
        layers = task.network(model).weights.values() if set(self.skip) - known else ()
        if unknown := [name for name in self.skip if name not in known and not any(skips((name,), w) for w in layers)]:
            raise Unsuitable(
                f"No convolution is called {unknown[0]!r}; there are {', '.join(stages)}, or 1 to {len(stages)}."
            )
        if unknown := [name for name in self.per_stage if name not in {*stages, *map(str, stages.values())}]:
            raise Unsuitable(
                f"per_stage names {unknown[0]!r}; there are stages 1 to {max(stages.values())}, and layers {', '.join(stages)}."
            )
        found = {}
        for group in groups:
            stage, number = str(stages[group.layer]), numbers[group.layer]
            usual = 1.0 if not self.per_stage else 0.0
            ratio = self.per_stage.get(group.layer, self.per_stage.get(stage, usual))
            whole = number in self.skip or any(called(group.layer, name) for name in self.skip if not name.isdecimal())
            found[group] = 0.0 if whole or group.layer in self.skip else ratio
        return found


def stages_of(model: nn.Module, sample: Samples) -> dict[str, int]:
    """Convolution -> its stage, 1, 2, …: convolutions whose outputs are images of the same size, in forward order."""
    import torch

    from pruneviz.door.parameters import Convolution
    from pruneviz.door.samples import forward
    from pruneviz.door.untouched import untouched

    sizes: dict[str, tuple[int, ...]] = {}
    names: dict[nn.Module, str] = {m: name for name, m in model.named_modules() if isinstance(m, Convolution)}

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        sizes[names[module]] = tuple(output.shape[2:])

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        with untouched(model), torch.no_grad():
            forward(model, sample)
    finally:
        for hook in hooks:
            hook.remove()
    seen = list(dict.fromkeys(sizes.values()))
    return {name: seen.index(size) + 1 for name, size in sizes.items()}
