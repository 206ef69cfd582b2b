"""Filters by the size of their weights, Li et al. 2017."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Literal

from pydantic import Field, field_validator

from pruneviz.citation import Paper
from pruneviz.errors import Unsuitable
from pruneviz.methods._kronecker import FilterMethod, filter_rows
from pruneviz.methods.base import Card, Scope, Start, Unit

ORDER = 15


class L1Filters(FilterMethod):
    """Sum of a filter's absolute weights; the smallest leave, the same share in every layer of a stage."""

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
    def _ratios(cls, value):
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
    def _names(cls, value):
        if isinstance(value, str | int):  # forms and the command line give text, or a number for a single one
            value = [part.strip() for part in str(value).split(",") if part.strip()]
        if not isinstance(value, list | tuple | set):
            raise ValueError(f"skip is a list of layers; found {value!r}")
        return tuple(str(part) for part in value)

    @classmethod
    def suits(cls, model):
        if not model.convolutions:
            raise Unsuitable(
                f"L1 filters needs a convolution; {model.key!r} has none. Try magnitude, or lenet-5-caffe."
            )

    @classmethod
    def share(cls):
        return None

    def full(self, model, task):
        from torch import nn

        full = super().full(model, task)
        names = [group.layer for group in full.units]
        if not any(isinstance(model.get_submodule(name), nn.Conv2d) for name in names):
            raise Unsuitable(
                "L1 filters needs a convolution, and this network has none whose filters can leave. Try Kron-OBD."
            )
        return full

    def score(self, model, task, mask):
        from torch import nn

        from pruneviz.masks import Scores

        groups = [g for g in mask.units if isinstance(model.get_submodule(g.layer), nn.Conv2d)]
        return Scores({group: filter_rows(model, group).abs().sum(1) for group in groups})

    def choose(self, model, task, scores, mask, target):
        """Counts by one ratio for all, scaled to the target; which filters, by mode."""
        from pruneviz.structured import select_units

        ratios = self._most(model, task, list(scores.values))
        most = {g: min(g.size - floor(g.size * (1 - Fraction(repr(r)))), g.size - 1) for g, r in ratios.items()}
        values = scores.values
        if task.scope != "global":  # filter i of n leaves as soon as the scale t of all ratios r exceeds i / (n r)
            values = {g: v / (ratios[g] or 1.0) for g, v in self.ranked(scores, mask, task.scope).items()}
        found = select_units(values, mask, target, most=most)
        return mask.keeping(self._greedy(model, scores, mask, found.units)) if self.mode == "greedy" else found

    def _greedy(self, model, scores, mask, units):
        """As many filters of each layer as ``units`` keeps, chosen without the channels that earlier layers lost."""
        import torch

        from pruneviz.curvature.layers import layer_called
        from pruneviz.masks import remove_lowest

        found = dict(units)
        channels = mask.layout.channels
        gone = torch.zeros(len(channels.free), dtype=torch.bool)
        for group in scores.values:
            rows = layer_called(group.layer, model).weight.detach().abs()
            present = ~gone[channels.reads[group.layer]]
            left = rows[:, present.to(rows.device)].flatten(1).sum(1)
            stays = ~mask.may_leave(group)
            lost = int((~units[group]).sum() - (~mask.units[group]).sum())
            found[group] = remove_lowest(torch.where(stays, torch.inf, left), mask.units[group], lost)
            gone[channels.writes[group.layer][~found[group].cpu()]] = True
        return found

    def _most(self, model, task, groups):
        """The share of each group's filters that may leave. Raises Unsuitable for a stage or layer that is not there."""
        stages = stages_of(model, next(iter(task.batches()))[0][:1])
        numbers = {name: str(i) for i, name in enumerate(stages, 1)}
        known = {*stages, *numbers.values()}
        if unknown := [name for name in self.skip if name not in known]:
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
            found[group] = 0.0 if {group.layer, number} & set(self.skip) else ratio
        return found


def stages_of(model, sample) -> dict[str, int]:
    """Convolution -> its stage, 1, 2, …: convolutions whose outputs are images of the same size, in forward order."""
    import torch
    from torch import nn

    from pruneviz.curvature.gradients import untouched

    sizes: dict[str, tuple[int, ...]] = {}
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}

    def note(module, inputs, output) -> None:
        sizes[names[module]] = tuple(output.shape[2:])

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        with untouched(model), torch.no_grad():
            model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    seen = list(dict.fromkeys(sizes.values()))
    return {name: seen.index(size) + 1 for name, size in sizes.items()}
