"""What a run says of its network on its way: numbers, arrays, and warnings where no signal passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from pruneviz import probes
from pruneviz.config import RunConfig, Stage
from pruneviz.cost import BATCHES, Cost, cost, latencies
from pruneviz.curvature.sweep import Statistics
from pruneviz.datasets.base import Splits
from pruneviz.events import Arrays, Event, Metric, Progress
from pruneviz.loss import Loss
from pruneviz.masks import Mask, Scores, broken_at
from pruneviz.methods.base import Method, Unit
from pruneviz.pruning import threshold
from pruneviz.removal import smaller
from pruneviz.rotation import Directions, plain
from pruneviz.statistic import Kronecker
from pruneviz.task import Task, generator_for
from pruneviz.training import evaluate


@dataclass
class Measurements:
    """Of one run. ``say(stage, message)`` makes a line of progress; ``dense`` is the trained dense network."""

    config: RunConfig
    method: Method
    data: Splits
    loss: Loss
    device: torch.device
    statistics: Statistics
    dense: nn.Module
    say: Callable[[str, str], Progress]
    _paid: dict[float, Cost] = field(default_factory=dict)

    def measure(self, model: nn.Module, sparsity: float, stage: str) -> Iterator[Metric]:
        for split in ("val", "test"):
            for name, value in evaluate(model, *getattr(self.data, split), loss=self.loss).items():
                yield self.metric(sparsity, stage, split, name, value)

    def pruned(self, model: nn.Module, s: float, scores: Scores, before: Mask, mask: Mask) -> Iterator[Event]:
        """Right after pruning to sparsity ``s``, before any training."""
        yield from self.measure(model, s, "pruned")
        yield from self.cost_of(model, mask, s, "pruned")
        cut = threshold(scores, before, mask)
        yield self.metric(s, "pruned", "", "reached", mask.sparsity)
        yield self.metric(s, "pruned", "", "threshold", cut)
        if "saliency" in self.config.probes:
            found, layers = probes.saliency(scores, before, mask)
            yield self.arrays(f"saliency-{s:g}", {**found, "threshold": np.array([cut])}, layers)
        if mask.layout is not None and self.method.card.unit is Unit.EIGENBASIS and "spectra" in self.config.probes:
            yield self.arrays(f"directions-pruned-{s:g}", *probes.cut(model, mask))
        yield from self.probe(model, f"pruned-{s:g}", spectra=False)

    def tuned(self, model: nn.Module, stage: Stage, mask: Mask) -> Iterator[Event]:
        """At the end of a stage, trained again."""
        s = stage.target
        yield from self.measure(model, s, "tuned")
        yield from self.cost_of(model, mask, s, "tuned")
        yield self.metric(s, "tuned", "", "reached", mask.sparsity)
        yield self.metric(s, "tuned", "", "epochs", self.config.epochs_spent(stage))
        yield from self.probe(model, f"tuned-{s:g}")
        if "masks" in self.config.probes:
            yield self.arrays(f"masks-{s:g}", *probes.masked(model, mask, self.data.train[0][:1]))

    def structure(self, model: nn.Module, mask: Mask, task: Task) -> Iterator[Event]:
        """What is measured once where whole units leave: the dense network's latency, directions, sensitivity of layers."""
        for batch, seconds in cost(self.dense, self.data.train[0][:1]).latency.items():
            yield self.metric(0.0, "dense", "", f"latency_{batch}", seconds)
        if self.method.card.unit is Unit.FILTER and "saliency" in self.config.probes:
            yield self.say("dense", "removing filters of one layer at a time")
            scores = self.method.score(model, task, mask)
            yield self.arrays("sensitivity-start", *probes.sensitivity(model, scores, mask, *self.data.val))

    def cost_of(self, model: nn.Module, mask: Mask | None, sparsity: float, stage: str) -> Iterator[Event]:
        """Parameters and operations; where whole units leave, those of the smaller network, and its measured latency."""
        sample = self.data.train[0][:1]
        if mask is None or mask.layout is None:
            spent = cost(model, sample, mask)
        elif stage == "tuned" and sparsity in self._paid:  # training removes nothing
            spent = self._paid[sparsity]
        else:
            small, whole = smaller(model, sample)
            spent = self._paid[sparsity] = cost(small, sample)
            for batch in BATCHES:
                dense, now = latencies([self.dense, small], sample, batch)
                yield self.metric(sparsity, stage, "", f"latency_{batch}", now)
                yield self.metric(sparsity, stage, "", f"speedup_{batch}", dense / now)
            if self.method.card.unit is Unit.EIGENBASIS:
                yield from self.counted(mask, sparsity, stage)
                if whole:
                    yield self.say(
                        f"{sparsity:g}", f"left in one piece, since three would be larger: {', '.join(whole)}"
                    )
        yield self.metric(sparsity, stage, "", "parameters", spent.parameters)
        yield self.metric(sparsity, stage, "", "flops", spent.flops)

    def counted(self, mask: Mask, sparsity: float, stage: str) -> Iterator[Metric]:
        """The sparsity reached by both counts: rotations included, and the cores alone."""
        layout = mask.layout
        assert isinstance(layout, Directions)
        for counted in ("compacted", "core"):
            reached = 1 - layout.left(mask.units, counted) / layout.size
            yield self.metric(sparsity, stage, "", f"reached_{counted}", reached)

    def collapse(self, model: nn.Module, stage: Stage, mask: Mask) -> Iterator[Event]:
        """Warn, and go on, where a layer lost everything or no path is left from input to output."""
        end = broken_at(model, mask, self.data.train[0][:1])
        if stage.requested:
            yield self.metric(stage.target, "pruned", "", "connected", float(end is None))
        said = [f"{', '.join(mask.empty_layers)} lost every weight"] if mask.empty_layers else []
        said += [f"no path is left from input to output: they end at layer {end!r}"] if end is not None else []
        if said:
            yield replace(self.say(stage.name, "; ".join(said)), warning=True)

    def probe(self, model: nn.Module, when: str, *, spectra: bool = True) -> Iterator[Event]:
        x, y = self.data.train
        model = plain(model)  # the layers that people know, multiplied out
        if spectra and "spectra" in self.config.probes:
            n = probes.SPECTRUM_SAMPLES
            task = Task(
                lambda: [(x[:n], y[:n])],
                generator_for(self.config.seed, "spectra"),
                loss=self.loss,
                device=self.device,
            )
            task.statistics = self.statistics
            factors = task.statistic(model, Kronecker())
            yield self.arrays(f"spectra-{when}", *probes.spectra(factors))
            if self.method.card.unit is not Unit.WEIGHT:
                yield self.arrays(f"directions-{when}", *probes.directions(model, factors, x[:1]))
        if "jacobians" in self.config.probes:
            yield self.arrays(f"jacobians-{when}", *probes.jacobians(model, x))

    def metric(self, sparsity: float, stage: str, split: str, name: str, value: float) -> Metric:
        return Metric(self.config.id, sparsity, stage, split, name, float(value))

    def arrays(self, name: str, found: probes.Probe, layers: list[str]) -> Arrays:
        return Arrays(self.config.id, name, found, {"layers": "\n".join(layers)})
