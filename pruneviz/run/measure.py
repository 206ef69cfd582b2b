"""What a run says of its network on its way: numbers, arrays, and warnings where no signal passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from pruneviz.basics.errors import PrunevizError, Unsuitable
from pruneviz.basics.events import Arrays, Event, Metric, Progress
from pruneviz.curvature.statistic import Kronecker
from pruneviz.curvature.task import Task, generator_for
from pruneviz.datasets.base import Splits
from pruneviz.door.loss import Loss
from pruneviz.door.network import Network
from pruneviz.methods.base import Method
from pruneviz.plan.config import RunConfig, Step
from pruneviz.records import metrics
from pruneviz.records.base import Recorded
from pruneviz.records.stages import Stage
from pruneviz.run import probes
from pruneviz.run.statistics import Statistics
from pruneviz.run.step import COVERED, TIED, threshold
from pruneviz.run.training import evaluate
from pruneviz.units.choice import at_the_cut
from pruneviz.units.compact import smaller
from pruneviz.units.cost import BATCHES, Cost, cost, latencies
from pruneviz.units.directions import plain
from pruneviz.units.masks import Mask, Scores
from pruneviz.units.paths import broken_at
from pruneviz.units.weights import share


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
    _tied: bool = False
    _left: set[str] = field(default_factory=set)

    def measure(self, model: nn.Module, sparsity: float, stage: Stage) -> Iterator[Metric]:
        for split in (metrics.VALIDATION, metrics.TEST):
            for name, value in evaluate(model, *getattr(self.data, split), loss=self.loss).items():
                yield self.metric(sparsity, stage, split, name, value)

    def pruned(self, model: nn.Module, s: float, scores: Scores, before: Mask, mask: Mask) -> Iterator[Event]:
        """Right after pruning to sparsity ``s``, before any training."""
        yield from self.measure(model, s, Stage.PRUNED)
        yield from self.cost_of(model, mask, s, Stage.PRUNED)
        yield from self.ties(s, at_the_cut(scores, before, mask))
        cut = threshold(scores, before, mask)
        yield self.metric(s, Stage.PRUNED, "", metrics.REACHED, mask.sparsity)
        yield self.metric(s, Stage.PRUNED, "", metrics.THRESHOLD, cut)
        if "saliency" in self.config.probes:
            yield self.recorded(probes.saliency(scores, before, mask, cut), s)
        seen = mask.layout.cut(mask.units) if mask.layout is not None and "spectra" in self.config.probes else None
        if seen is not None:
            yield self.recorded(seen, s)
        yield from self.probe(model, Stage.PRUNED, s, spectra=False)

    def tuned(self, model: nn.Module, step: Step, mask: Mask) -> Iterator[Event]:
        """At the end of a stage, trained again."""
        s = step.target
        yield from self.measure(model, s, Stage.TUNED)
        yield from self.cost_of(model, mask, s, Stage.TUNED)
        yield self.metric(s, Stage.TUNED, "", metrics.REACHED, mask.sparsity)
        yield self.metric(s, Stage.TUNED, "", metrics.EPOCHS, self.config.epochs_spent(step))
        yield from self.probe(model, Stage.TUNED, s)
        if "masks" in self.config.probes:
            yield self.recorded(probes.masked(model, mask, self.data.train[0][:1]), s)

    def structure(self, model: nn.Module, mask: Mask, task: Task) -> Iterator[Event]:
        """What is measured once where whole units leave: the dense network's latency, directions, sensitivity of layers."""
        for batch, seconds in cost(self.dense, self.data.train[0][:1]).latency.items():
            yield self.metric(0.0, Stage.DENSE, "", metrics.latency(batch), seconds)
        if mask.layout is not None and mask.layout.layer_by_layer and "saliency" in self.config.probes:
            yield self.say(Stage.DENSE, "removing filters of one layer at a time")
            scores = self.method.score(model, task, mask)
            yield self.recorded(probes.sensitivity(model, scores, mask, *self.data.val))

    def cost_of(self, model: nn.Module, mask: Mask | None, sparsity: float, stage: Stage) -> Iterator[Event]:
        """Parameters and operations; where whole units leave, those of the smaller network, and its measured latency."""
        sample = self.data.train[0][:1]
        if mask is None or mask.layout is None:
            spent = cost(model, sample, mask)
        elif stage is Stage.TUNED and sparsity in self._paid:  # training removes nothing
            spent = self._paid[sparsity]
        else:
            small, whole = smaller(model, sample)
            spent = self._paid[sparsity] = cost(small, sample)
            for batch in BATCHES:
                dense, now = latencies([self.dense, small], sample, batch)
                yield self.metric(sparsity, stage, "", metrics.latency(batch), now)
                yield self.metric(sparsity, stage, "", metrics.speedup(batch), dense / now)
            for name, reached in mask.layout.reached(mask.units).items():
                yield self.metric(sparsity, stage, "", name, reached)
            if whole:
                yield self.say(f"{sparsity:g}", f"left in one piece, since three would be larger: {', '.join(whole)}")
        yield self.metric(sparsity, stage, "", metrics.PARAMETERS, spent.parameters)
        if spent.flops is not None:
            yield self.metric(sparsity, stage, "", metrics.FLOPS, spent.flops)

    def covered(self, network: Network, mask: Mask) -> Iterator[Progress]:
        """Warn where a sparsity is about less than 90% of the matrix weights, layers that were to be left alone aside."""
        counted = share(network, mask, skip=self.method.patterns(self.config.skip))
        if counted < COVERED:
            said = f"only {100 * counted:.0f}% of the matrix weights are scored and counted"
            yield replace(self.say(Stage.DENSE, said), warning=True)

    def ties(self, sparsity: float, tied: float) -> Iterator[Progress]:
        """Warn, once a run, where chance decides between units of equal score at the cut."""
        if tied > TIED and not self._tied:
            self._tied = True
            said = f"{100 * tied:.0f}% of the units are tied at the cut: chance decides which of them leave"
            yield replace(self.say(f"{sparsity:g}", said), warning=True)

    def collapse(self, model: nn.Module, step: Step, mask: Mask) -> Iterator[Event]:
        """Warn, and go on, where a layer lost everything or no path is left from input to output."""
        end = broken_at(model, mask, self.data.train[0][:1])
        if step.requested:
            yield self.metric(step.target, Stage.PRUNED, "", metrics.CONNECTED, float(end is None))
        said = [f"{', '.join(mask.empty_layers)} lost every weight"] if mask.empty_layers else []
        said += [f"no path is left from input to output: they end at layer {end!r}"] if end is not None else []
        if said:
            yield replace(self.say(step.name, "; ".join(said)), warning=True)

    def probe(self, model: nn.Module, stage: Stage, sparsity: float = 0.0, *, spectra: bool = True) -> Iterator[Event]:
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
            yield from self.tried("spectra", lambda: self._curvature(model, task, x[:1]), sparsity, stage)
        if "jacobians" in self.config.probes:
            yield from self.tried("Jacobians", lambda: [probes.jacobians(model, x)], sparsity, stage)

    def _curvature(self, model: nn.Module, task: Task, sample: torch.Tensor) -> list[Recorded]:
        factors = task.statistic(model, Kronecker())
        if not factors:
            raise Unsuitable("No layer's curvature is a Kronecker product here.")
        found: list[Recorded] = [probes.spectra(factors)]
        return [*found, probes.directions(model, factors, sample)] if self.method.card.unit.whole else found

    def tried(
        self, what: str, make: Callable[[], Sequence[Recorded]], sparsity: float = 0.0, stage: Stage | None = None
    ) -> Iterator[Event]:
        """What a probe recorded; where it does not serve this network, that is said once and the run goes on."""
        try:
            for record in make():
                yield self.recorded(record, sparsity, stage)
        except PrunevizError as error:
            if what not in self._left:
                self._left.add(what)
                yield replace(self.say(Stage.DENSE, f"no {what} are recorded. {error}"), warning=True)

    def metric(self, sparsity: float, stage: str, split: str, name: str, value: float) -> Metric:
        return Metric(self.config.id, sparsity, stage, split, name, float(value))

    def recorded(self, what: Recorded, sparsity: float = 0.0, stage: Stage | None = None) -> Arrays:
        return Arrays(self.config.id, what.name(sparsity, stage), *what.write())
