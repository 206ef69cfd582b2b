"""The one loop: every run is dense training, then prune and train for each sparsity or round.

It knows no store, no process and no browser. Each stage seeds its own generators from (seed, stage), so a run that was
cut off and resumed equals one that was not.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz import probes
from pruneviz.config import RunConfig, Stage, Training
from pruneviz.cost import BATCHES, Cost, cost, latencies
from pruneviz.curvature.sweep import Statistics
from pruneviz.datasets import DATASETS, load
from pruneviz.datasets.base import Splits
from pruneviz.dense import Dense, DenseCache, State, state_of
from pruneviz.errors import PrunevizError, Unreachable
from pruneviz.events import Arrays, Done, Event, Failed, Metric, Progress, Weights
from pruneviz.initialisation import initialise_
from pruneviz.loss import LOSSES
from pruneviz.masks import Mask, Scores, broken_at
from pruneviz.methods import method_class
from pruneviz.methods.base import Method, Start, Survivors, Unit
from pruneviz.models import MODELS, build
from pruneviz.pruning import controlled, threshold, write_
from pruneviz.removal import smaller
from pruneviz.repair import repaired
from pruneviz.rotation import Directions, plain
from pruneviz.statistic import Kronecker
from pruneviz.task import Task, generator_for
from pruneviz.training import Epoch, evaluate, fit

# Floating-point operations a training step below which one CPU thread is faster than two that sleep while they wait
ONE_THREAD = 600_000_000


@dataclass(frozen=True)
class Resume:
    """What an earlier attempt finished: stage names, and how to read the network at the end of one."""

    stages: frozenset[str]
    load: Callable[[str], dict[str, np.ndarray]]


def default_device() -> torch.device:
    """CUDA, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def execute(
    configs: Sequence[RunConfig],
    *,
    resume: Callable[[str], Resume | None] | None = None,
    cache: DenseCache | None = None,
    device: torch.device | str | None = None,
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[Event]:
    """Run the configurations one after another, sharing dense networks and statistics; yields their events.

    ``resume(id)``: what an earlier attempt finished. ``wanted(id)`` is asked as a run begins; False leaves it out.
    An error ends its own run (a :class:`Failed` event), not the others.
    """
    shared = _Shared(cache or DenseCache(), torch.device(device) if device else default_device(), tuple(configs))
    threads = torch.get_num_threads()
    for config in configs:
        if wanted is not None and not wanted(config.id):
            continue
        try:
            yield from _Run(config, shared, resume(config.id) if resume else None).events()
        except PrunevizError as error:
            yield Failed(config.id, str(error))
        except torch.OutOfMemoryError:
            yield Failed(
                config.id,
                f"The device {shared.device} ran out of memory. Choose a smaller batch size "
                f"(now {config.train.batch_size}), a smaller network, or the CPU.",
            )
        except Exception as error:  # a bug: its traceback goes with the run, other runs go on
            yield Failed(config.id, f"{type(error).__name__}: {error}", traceback.format_exc())
        finally:
            torch.set_num_threads(threads)


@dataclass
class _Shared:
    """What the runs of one ``execute`` have in common."""

    cache: DenseCache
    device: torch.device
    configs: tuple[RunConfig, ...]
    statistics: Statistics = field(default_factory=lambda: Statistics(keep=True))
    _data: dict[tuple[str, bool], Splits] = field(default_factory=dict)
    _network: str = ""

    def data(self, dataset: str, normalise: bool) -> Splits:
        key = (dataset, normalise)
        if key not in self._data:
            found = load(dataset).normalised() if normalise else load(dataset)
            self._data = {key: found.to(self.device)}
        return self._data[key]

    def enter(self, config: RunConfig) -> None:
        """Forget the statistics of the last network where this run is on another."""
        if self._network != config.dense_key:
            self.statistics.clear()
            self._network = config.dense_key


def _purpose(config: RunConfig, stage: Stage) -> str:
    """What the samples of a scoring are drawn for: one shot scores once, rounds score again and again."""
    return "score" if config.one_shot else f"score {stage.name}"


class _Run:
    """One configuration on its way through the loop."""

    def __init__(self, config: RunConfig, shared: _Shared, resume: Resume | None):
        self.config, self.shared, self.id = config, shared, config.id
        self.resume = resume or Resume(frozenset(), lambda _: {})
        self.method: Method = method_class(config.method).from_params(config.params)
        self.loss = LOSSES[MODELS[config.model].loss]
        stages = len(config.stages)
        self.total = max(1, config.train.epochs + stages * config.after_pruning.epochs)
        self.spent = 0.0
        self.paid: dict[float, Cost] = {}

    def events(self) -> Iterator[Event]:
        config = self.config
        if self.step_flops() < ONE_THREAD:
            torch.set_num_threads(1)
        yield self.say("dense", "reading data")
        self.data = self.shared.data(config.dataset, config.normalise)
        self.shared.enter(config)
        dense = yield from self.dense()
        base = dense.trained if config.start is Start.TRAINED else dense.initial
        model = self.model(dense.trained)
        yield from self.measure(model, 0.0, "dense")
        yield from self.cost_of(model, None, 0.0, "dense")
        yield self.metric(0.0, "dense", "", "epochs", config.train.epochs)

        model = self.model(base)
        task = self.task(dense, "score")
        model = self.method.prepare(model, task)
        base = state_of(model)
        yield from self.probe(model, "start")
        mask = self.method.full(model, task)
        self.dense_network = self.model(dense.trained)
        if mask.layout is not None:
            yield from self.structure(model, mask, task)
        if "change" in config.probes:
            yield self.say("dense", "measuring what single removals really cost")
            generator = generator_for(config.seed, "change")
            yield self.arrays("change-start", *probes.change(self.method, model, task, mask, generator))
        full, scores = mask, None
        for stage in config.stages:
            if stage.name in self.resume.stages:
                self.spent += config.after_pruning.epochs
                stored = self.resume.load(stage.name) if not config.one_shot else {}
                if stored:
                    mask = restore_(model, stored, mask)
                continue
            if config.one_shot:
                model.load_state_dict(base)
                mask = full
            else:
                task, scores = self.task(dense, f"score {stage.name}"), None
                if stage != config.stages[0]:
                    model = self.method.frame(model, task)
            if scores is None:
                told = self.method.foretell(model)
                yield self.say(stage.name, f"scoring: {told}" if told else "scoring")
                yield from self.gather(model, task, stage)
                scores = self.scores(model, task, mask)
            if "masks" in config.probes and stage == config.stages[0]:
                yield self.arrays("masks-start", *probes.ranked(model, scores, mask, self.data.train[0][:1]))
            try:
                before, mask = mask, (yield from self.prune(model, task, scores, mask, stage))
            except Unreachable as beyond:
                yield replace(self.say(stage.name, str(beyond)), warning=True)
                if stage.requested:
                    yield self.metric(stage.target, "pruned", "", "most", beyond.most)
                continue
            yield from self.pruned(model, stage, scores, before, mask)
            yield from self.trained_again(model, stage, dense, mask)
        yield Done(self.id)

    # stages

    def dense(self) -> Generator[Event, None, Dense]:
        """The dense network: from the cache, or trained while its epochs go by."""
        epochs = self.shared.cache.get(self.config, self.data, self.shared.device)
        told = False
        while True:
            try:
                step = next(epochs)
            except StopIteration as end:
                if not told:  # another run trained it: its history is this run's too
                    for row in end.value.history:
                        values = {name: row[name] for name in ("train_loss", "val_loss", "val_accuracy")}
                        yield self.epoch(
                            Epoch(row["epoch"], self.config.train.epochs, values), "dense", "dense network"
                        )
                self.spent = float(self.config.train.epochs)
                return end.value
            told = told or not isinstance(step, str)
            yield self.say("dense", step) if isinstance(step, str) else self.epoch(step, "dense", "training dense")

    def gather(self, model: nn.Module, task: Task, stage: Stage) -> Iterator[Progress]:
        """One sweep for all that scoring reads; at first also for runs to come that score this network on these samples."""
        wanted, batches = list(self.method.needs()), list(task.batches())
        if stage == self.config.stages[0]:
            for method in self.beside():
                generator = generator_for(self.config.seed, _purpose(self.config, stage))
                drawn = list(method.draw(self.data.train, generator))
                pairs = zip(
                    [t for batch in drawn for t in batch], [t for batch in batches for t in batch], strict=False
                )
                if len(drawn) == len(batches) and all(torch.equal(a, b) for a, b in pairs):
                    wanted += method.needs()
        total = sum(len(x) for x, _ in batches)
        for seen in self.shared.statistics.gather(model, task, wanted):
            if seen < total:
                yield self.say(stage.name, f"scoring: {seen:,} of {total:,} samples")

    def beside(self) -> list[Method]:
        """Methods of other runs that score the same network at the same point, where no method changes it before."""
        mine = self.config
        at = (mine.dense_key, mine.start, _purpose(mine, mine.stages[0]))
        same = [
            c for c in self.shared.configs if (c.dense_key, c.start, _purpose(c, c.stages[0])) == at and c.id != mine.id
        ]
        found = [self.method, *(method_class(c.method).from_params(c.params) for c in same)]
        plain = [m for m in found if type(m).prepare is Method.prepare and type(m).frame is Method.frame]
        return plain[1:] if self.method in plain[:1] else []

    def scores(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        found = self.method.score(model, task, mask)
        return controlled(found, mask, self.config.control, task.generator)

    def prune(
        self, model: nn.Module, task: Task, scores: Scores, mask: Mask, stage: Stage
    ) -> Generator[Event, None, Mask]:
        """Choose, zero, and move the survivors where the method or the run repairs them; in place."""
        chosen = self.method.choose(model, task, scores, mask, stage.target)
        moved = self.method.repaired(model, task, scores, chosen)  # reads the values of those that leave
        chosen.apply_(model)
        again = self.config.repair if self.config.survivors is Survivors.RETAIN else "none"
        if (moved or again != "none") and stage.requested:
            yield from self.measure(model, stage.target, "zeroed")
            yield from self.probe(model, f"zeroed-{stage.target:g}", spectra=False)
        write_(model, moved)
        chosen.apply_(model)
        write_(model, repaired(again, model, chosen))
        return chosen

    def pruned(self, model: nn.Module, stage: Stage, scores: Scores, before: Mask, mask: Mask) -> Iterator[Event]:
        """What is measured right after pruning, before any training."""
        yield self.say(stage.name, f"pruned to {mask.sparsity:.4g}")
        yield from self.collapse(model, stage, mask)
        if not stage.requested:
            return
        s = stage.target
        yield from self.measure(model, s, "pruned")
        yield from self.cost_of(model, mask, s, "pruned")
        yield self.metric(s, "pruned", "", "reached", mask.sparsity)
        yield self.metric(s, "pruned", "", "threshold", threshold(scores, before, mask))
        if "saliency" in self.config.probes:
            found, layers = probes.saliency(scores, before, mask)
            found["threshold"] = np.array([threshold(scores, before, mask)])
            yield self.arrays(f"saliency-{s:g}", found, layers)
        if mask.layout is not None and self.method.card.unit is Unit.EIGENBASIS and "spectra" in self.config.probes:
            yield self.arrays(f"directions-pruned-{s:g}", *probes.cut(model, mask))
        yield from self.probe(model, f"pruned-{s:g}", spectra=False)

    def trained_again(self, model: nn.Module, stage: Stage, dense: Dense, mask: Mask) -> Iterator[Event]:
        """Set the survivors, train them, measure, and hand out the weights: the end of a stage."""
        budget = self.config.after_pruning
        self.survivors_(model, stage, dense, mask)
        before = self.spent
        yield from self.train(model, stage, budget, mask)
        self.spent = before + budget.epochs
        s = stage.target
        if stage.requested:
            yield from self.measure(model, s, "tuned")
            yield from self.cost_of(model, mask, s, "tuned")
            yield self.metric(s, "tuned", "", "reached", mask.sparsity)
            yield self.metric(s, "tuned", "", "epochs", self.config.epochs_spent(stage))
            yield from self.probe(model, f"tuned-{s:g}")
            if "masks" in self.config.probes:
                yield self.arrays(f"masks-{s:g}", *probes.masked(model, mask, self.data.train[0][:1]))
        yield Weights(self.id, stage.name, packed(model, mask), transient=not stage.requested)

    def train(self, model: nn.Module, stage: Stage, budget: Training, mask: Mask) -> Iterator[Event]:
        generator = generator_for(self.config.seed, stage.name)
        word = "fine-tuning" if budget is self.config.tune else "training"
        for epoch in fit(model, self.data, budget, generator=generator, mask=mask, loss=self.loss):
            yield self.epoch(epoch, stage.name, f"{word} at sparsity {stage.target:.4g}")

    def survivors_(self, model: nn.Module, stage: Stage, dense: Dense, mask: Mask) -> None:
        """Retain, rewind, reinitialise, or reinitialise keeping signs; normalisation statistics go along."""
        match self.config.survivors:
            case Survivors.REWIND:
                model.load_state_dict(dense.rewound)
            case Survivors.REINIT | Survivors.REINIT_SIGN:
                initialise_(model, generator_for(self.config.seed, f"reinitialise {stage.name}"))
                if self.config.survivors is Survivors.REINIT_SIGN:
                    with torch.no_grad():
                        for name, parameter in model.named_parameters():
                            if name in mask:
                                sign = dense.initial[name].to(parameter.device)
                                parameter.copy_(parameter.abs() * sign.sign())
        mask.apply_(model)
        if self.config.survivors is not Survivors.RETAIN:
            write_(model, repaired(self.config.repair, model, mask))

    # measurements

    def measure(self, model: nn.Module, sparsity: float, stage: str) -> Iterator[Metric]:
        for split in ("val", "test"):
            for name, value in evaluate(model, *getattr(self.data, split), loss=self.loss).items():
                yield self.metric(sparsity, stage, split, name, value)

    def structure(self, model: nn.Module, mask: Mask, task: Task) -> Iterator[Event]:
        """What is measured once where whole units leave: the dense network's latency, directions, sensitivity of layers."""
        for batch, seconds in cost(self.dense_network, self.data.train[0][:1]).latency.items():
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
        elif stage == "tuned" and sparsity in self.paid:  # training removes nothing
            spent = self.paid[sparsity]
        else:
            small, whole = smaller(model, sample)
            spent = self.paid[sparsity] = cost(small, sample)
            for batch in BATCHES:
                dense, now = latencies([self.dense_network, small], sample, batch)
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
                device=self.shared.device,
            )
            task.statistics = self.shared.statistics
            factors = task.statistic(model, Kronecker())
            yield self.arrays(f"spectra-{when}", *probes.spectra(factors))
            if self.method.card.unit is not Unit.WEIGHT:
                yield self.arrays(f"directions-{when}", *probes.directions(model, factors, x[:1]))
        if "jacobians" in self.config.probes:
            yield self.arrays(f"jacobians-{when}", *probes.jacobians(model, x))

    # pieces

    def step_flops(self) -> int:
        """Floating-point operations of one training step, forward and backward."""
        data = DATASETS[self.config.dataset]
        network = build(self.config.model, shape=data.shape, classes=len(data.classes), width=self.config.width)
        return 3 * self.config.train.batch_size * cost(network, torch.zeros(1, *data.shape)).flops

    def model(self, state: State) -> nn.Module:
        model = build(self.config.model, self.data, seed=self.config.seed, width=self.config.width)
        model.load_state_dict(state)
        return model.to(self.shared.device)

    def task(self, dense: Dense, purpose: str) -> Task:
        generator = generator_for(self.config.seed, purpose)
        batches = list(self.method.draw(self.data.train, generator))
        return Task(
            lambda: batches,
            generator,
            loss=self.loss,
            initial=dense.initial,
            device=self.shared.device,
            scope=self.config.scope,
            statistics=self.shared.statistics,
        )

    def say(self, stage: str, message: str) -> Progress:
        return Progress(self.id, min(1.0, self.spent / self.total), stage, message)

    def epoch(self, epoch: Epoch, stage: str, message: str) -> Progress:
        start = 0.0 if stage == "dense" else self.spent
        done = min(1.0, (start + epoch.done) / self.total)
        text = f"{message}, epoch {int(np.ceil(epoch.done))} of {epoch.of}"
        number = int(epoch.done) if epoch.complete else None
        return Progress(self.id, done, stage, text, number, epoch.values)

    def metric(self, sparsity: float, stage: str, split: str, name: str, value: float) -> Metric:
        return Metric(self.id, sparsity, stage, split, name, float(value))

    def arrays(self, name: str, found: probes.Probe, layers: list[str]) -> Arrays:
        return Arrays(self.id, name, found, {"layers": "\n".join(layers)})


def packed(model: nn.Module, mask: Mask) -> dict[str, np.ndarray]:
    """Weights and bit-packed mask as plain arrays: ``weight/<name>``, ``mask/<name>``; units larger than a weight ``unit/<group>``."""

    def bits(keep: Tensor) -> np.ndarray:
        return np.packbits(keep.cpu().flatten().numpy())

    found = {f"weight/{name}": tensor.numpy() for name, tensor in state_of(model).items()}
    found |= {f"mask/{name}": bits(keep) for name, keep in mask.items()}
    units = mask.units if mask.layout is not None else {}
    return found | {f"unit/{group.name}": bits(keep) for group, keep in units.items()}


def restore_(model: nn.Module, stored: dict[str, np.ndarray], mask: Mask) -> Mask:
    """The inverse of :func:`packed`: loads the weights in place and returns the mask."""

    def read(key: str, keep: Tensor) -> Tensor:
        flat = np.unpackbits(stored[key], count=keep.numel()).astype(bool)
        return torch.from_numpy(flat).view(keep.shape).to(keep.device)

    weights = {k.removeprefix("weight/"): torch.from_numpy(v) for k, v in stored.items() if k.startswith("weight/")}
    model.load_state_dict(deepcopy(weights))
    if mask.layout is not None:
        return mask.keeping({group: read(f"unit/{group.name}", keep) for group, keep in mask.units.items()})
    return Mask({name: read(f"mask/{name}", keep) for name, keep in mask.items()})
