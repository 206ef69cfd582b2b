"""The one loop: every run is dense training, then prune and train for each sparsity or round.

It knows no store, no process and no browser. Each stage seeds its own generators from (seed, stage), so a run that was
cut off and resumed equals one that was not.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from pruneviz.basics.errors import PrunevizError, Unreachable
from pruneviz.basics.events import Done, Event, Failed, Progress, Weights
from pruneviz.curvature.task import Task, generator_for
from pruneviz.datasets.base import Splits
from pruneviz.door.loss import LOSSES
from pruneviz.door.network import network_of
from pruneviz.door.samples import tensors
from pruneviz.methods import method_class
from pruneviz.methods.base import Method, Start, Survivors
from pruneviz.models._torch.initialisation import free
from pruneviz.plan.config import RunConfig, Step
from pruneviz.plan.recipe import Training
from pruneviz.records import metrics
from pruneviz.records.stages import Stage
from pruneviz.run import probes
from pruneviz.run.checkpoint import packed, restore_
from pruneviz.run.dense import Dense, DenseCache, State, state_of
from pruneviz.run.given import Given, fits
from pruneviz.run.measure import Measurements
from pruneviz.run.statistics import Statistics
from pruneviz.run.step import controlled, write_
from pruneviz.run.training import Epoch, fit
from pruneviz.units.cost import cost
from pruneviz.units.isometry import repaired
from pruneviz.units.masks import Mask, Scores
from pruneviz.units.recalibrate import recalibrate_
from pruneviz.units.weights import known_patterns

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
    given: Given | None = None,
) -> Iterator[Event]:
    """Run the configurations one after another, sharing dense networks and statistics; yields their events.

    ``resume(id)``: what an earlier attempt finished. ``wanted(id)`` is asked as a run begins; False leaves it out.
    ``given`` opens what runs stand on. An error ends its own run (a :class:`Failed` event), not the others.
    """
    where = torch.device(device) if device else default_device()
    shared = _Shared(cache or DenseCache(), where, tuple(configs), given or Given())
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
    given: Given
    statistics: Statistics = field(default_factory=Statistics)
    _data: dict[tuple[str, bool, str], Splits] = field(default_factory=dict)
    _network: str = ""

    def data(self, config: RunConfig) -> Splits:
        key = (config.dataset, config.normalise, config.dense_key if config.content else "")
        if key not in self._data:
            found = self.given.data(config)
            self._data = {key: (found.normalised() if config.normalise else found).to(self.device)}
        return self._data[key]

    def enter(self, config: RunConfig) -> None:
        """Forget the statistics of the last network where this run is on another."""
        if self._network != config.dense_key:
            self.statistics.clear()
            self._network = config.dense_key


def _purpose(config: RunConfig, step: Step) -> str:
    """What the samples of a scoring are drawn for: one shot scores once, rounds score again and again."""
    return "score" if config.one_shot else f"score {step.name}"


class _Run:
    """One configuration on its way through the loop."""

    def __init__(self, config: RunConfig, shared: _Shared, resume: Resume | None):
        self.config, self.shared, self.id = config, shared, config.id
        self.resume = resume or Resume(frozenset(), lambda _: {})
        self.method: Method = method_class(config.method).from_params(config.params)
        self.given = shared.given
        self.loss = LOSSES[config.loss_name]
        self.total = max(1, config.epochs)
        self.spent = 0.0

    def events(self) -> Iterator[Event]:
        config = self.config
        if not config.content:  # said with the first event
            self.few_threads(torch.zeros(1, *config.data.shape))
        yield self.say(Stage.DENSE, "reading data")
        self.data = self.shared.data(config)
        if config.content:
            fits(self.built(), self.data)
            self.few_threads(self.data.train[0][:1].cpu())
        self.shared.enter(config)
        if config.skip:
            known_patterns(network_of(self.built(), self.data.train[0][:2]), self.skip)
        dense = yield from self.dense()
        base = dense.trained if config.start is Start.TRAINED else dense.initial
        model = self.model(dense.trained)
        self.measured = measured = Measurements(
            config, self.method, self.data, self.loss, self.shared.device, self.shared.statistics, model, self.say
        )
        yield from measured.measure(model, 0.0, Stage.DENSE)
        yield from measured.cost_of(model, None, 0.0, Stage.DENSE)
        yield measured.metric(0.0, Stage.DENSE, "", metrics.EPOCHS, config.dense_epochs)

        model = self.model(base)
        task = self.task(dense, "score")
        network = task.network(model)
        model = self.method.prepare(model, task)
        base = state_of(model)
        yield from measured.probe(model, Stage.START)
        mask = self.method.full(model, task)
        yield from measured.covered(network, mask)
        if mask.layout is not None:
            yield from measured.structure(model, mask, task)
        if "change" in config.probes:
            yield self.say(Stage.DENSE, "measuring what single removals really cost")
            generator = generator_for(config.seed, "change")
            given = (self.method, model, task, mask, generator)
            yield from measured.tried("single removals", lambda: [probes.change(*given)])
        full, scores = mask, None
        for step in config.steps:
            finished = step.name in self.resume.stages
            if finished and (step.requested or config.between == "train"):
                self.spent += config.after_pruning.epochs
            if finished and config.between == "train":
                stored = self.resume.load(step.name) if not config.one_shot else {}
                if stored:
                    mask = restore_(model, stored, mask)
                continue
            if config.one_shot:
                model.load_state_dict(base)
                mask = full
            else:
                task, scores = self.task(dense, f"score {step.name}"), None
                if step != config.steps[0]:
                    model = self.method.frame(model, task)
            if scores is None:
                told = self.method.foretell(model)
                yield self.say(step.name, f"scoring: {told}" if told else "scoring")
                yield from self.gather(model, task, step)
                scores = self.scores(model, task, mask)
            if "masks" in config.probes and step == config.steps[0]:
                yield measured.recorded(probes.ranked(model, scores, mask, self.data.train[0][:1]))
            try:
                before, mask = mask, (yield from self.prune(model, task, scores, mask, step))
            except Unreachable as beyond:
                yield replace(self.say(step.name, str(beyond)), warning=True)
                if step.requested:
                    yield measured.metric(step.target, Stage.PRUNED, "", metrics.MOST, beyond.most)
                continue
            if config.between == "none" and (finished or not step.requested):  # the next round goes on from here
                continue
            yield self.say(step.name, f"pruned to {mask.sparsity:.4g}")
            yield from measured.collapse(model, step, mask)
            if step.requested:
                yield from measured.pruned(model, step.target, scores, before, mask)
            untrained = state_of(model) if config.between == "none" else None
            yield from self.trained_again(model, step, dense, mask)
            if untrained is not None:
                model.load_state_dict(untrained)
        yield Done(self.id)

    # stages

    def dense(self) -> Generator[Event, None, Dense]:
        """The dense network: from the cache, or trained while its epochs go by."""
        epochs = self.shared.cache.get(self.config, self.data, self.shared.device, self.given)
        told = False
        while True:
            try:
                step = next(epochs)
            except StopIteration as end:
                if not told:  # another run trained it: its history is this run's too
                    for row in end.value.history:
                        values = {name: row[name] for name in ("train_loss", "val_loss", "val_accuracy")}
                        yield self.epoch(
                            Epoch(row["epoch"], self.config.dense_epochs, values), Stage.DENSE, "dense network"
                        )
                self.spent = float(self.config.dense_epochs)
                return end.value
            told = told or not isinstance(step, str)
            yield (
                self.say(Stage.DENSE, step)
                if isinstance(step, str)
                else self.epoch(step, Stage.DENSE, "training dense")
            )

    def gather(self, model: nn.Module, task: Task, step: Step) -> Iterator[Progress]:
        """One sweep for all that scoring reads; at first also for runs to come that score this network on these samples."""
        if self.skip:  # a method's statistics leave these layers out: they are made where it asks for them
            return
        wanted, batches = list(self.method.needs()), list(task.batches())
        if step == self.config.steps[0]:
            for method in self.beside():
                generator = generator_for(self.config.seed, _purpose(self.config, step))
                drawn = list(method.draw(self.data.train, generator))
                pairs = zip(
                    [t for x, y in drawn for t in (*tensors(x), y)],
                    [t for x, y in batches for t in (*tensors(x), y)],
                    strict=False,
                )
                if len(drawn) == len(batches) and all(torch.equal(a, b) for a, b in pairs):
                    wanted += method.needs()
        total = sum(len(x) for x, _ in batches)
        for seen in self.shared.statistics.gather(model, task, wanted):
            if seen < total:
                yield self.say(step.name, f"scoring: {seen:,} of {total:,} samples")

    def beside(self) -> list[Method]:
        """Methods of other runs that score the same network at the same point, where no method changes it before."""
        mine = self.config
        at = (mine.dense_key, mine.start, _purpose(mine, mine.steps[0]))
        same = [
            c
            for c in self.shared.configs
            if (c.dense_key, c.start, _purpose(c, c.steps[0])) == at and c.id != mine.id and not c.skip
        ]
        found = [self.method, *(method_class(c.method).from_params(c.params) for c in same)]
        plain = [m for m in found if type(m).prepare is Method.prepare and type(m).frame is Method.frame]
        return plain[1:] if self.method in plain[:1] else []

    def scores(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        found = self.method.score(model, task, mask)
        return controlled(found, mask, self.config.control, task.generator)

    def prune(
        self, model: nn.Module, task: Task, scores: Scores, mask: Mask, step: Step
    ) -> Generator[Event, None, Mask]:
        """Choose, zero, and move the survivors where the method or the run repairs them; in place."""
        chosen = self.method.choose(model, task, scores, mask, step.target)
        moved = self.method.repaired(model, task, scores, chosen)  # reads the values of those that leave
        chosen.apply_(model)
        again = self.config.repair if self.config.survivors is Survivors.RETAIN else "none"
        if (moved or again != "none") and step.requested:
            yield from self.measured.measure(model, step.target, Stage.ZEROED)
            yield from self.measured.probe(model, Stage.ZEROED, step.target, spectra=False)
        write_(model, moved)
        chosen.apply_(model)
        write_(model, repaired(again, model, chosen))
        if self.config.recalibrate:
            recalibrate_(model, task.batches())
        return chosen

    def trained_again(self, model: nn.Module, step: Step, dense: Dense, mask: Mask) -> Iterator[Event]:
        """Set the survivors, train them, measure, and hand out the weights: the end of a stage."""
        budget = self.config.after_pruning
        self.survivors_(model, step, dense, mask)
        before = self.spent
        yield from self.train(model, step, budget, mask)
        self.spent = before + budget.epochs
        if step.requested:
            yield from self.measured.tuned(model, step, mask)
        yield Weights(self.id, step.name, packed(model, mask), transient=not step.requested)

    def train(self, model: nn.Module, step: Step, budget: Training, mask: Mask) -> Iterator[Event]:
        generator = generator_for(self.config.seed, step.name)
        word = "fine-tuning" if budget is self.config.tune else "training"
        for epoch in fit(model, self.data, budget, generator=generator, mask=mask, loss=self.loss):
            yield self.epoch(epoch, step.name, f"{word} at sparsity {step.target:.4g}")

    def survivors_(self, model: nn.Module, step: Step, dense: Dense, mask: Mask) -> None:
        """Retain, rewind, reinitialise, or reinitialise keeping signs; normalisation statistics go along."""
        match self.config.survivors:
            case Survivors.REWIND:
                model.load_state_dict(dense.rewound)
            case Survivors.REINIT | Survivors.REINIT_SIGN:
                self.given.again(self.config, model, generator_for(self.config.seed, f"reinitialise {step.name}"))
                write_(model, {name: dense.initial[name] for name in free(model)})
                if self.config.survivors is Survivors.REINIT_SIGN:
                    with torch.no_grad():
                        for name, parameter in model.named_parameters():
                            if name in mask:
                                sign = dense.initial[name].to(parameter.device)
                                parameter.copy_(parameter.abs() * sign.sign())
        mask.apply_(model)
        if self.config.survivors is not Survivors.RETAIN:
            write_(model, repaired(self.config.repair, model, mask))

    # pieces

    def few_threads(self, sample: torch.Tensor) -> None:
        """One thread where a training step, forward and backward, has too few operations for two."""
        if 3 * self.config.train.batch_size * cost(self.built(), sample).operations < ONE_THREAD:
            torch.set_num_threads(1)

    def model(self, state: State) -> nn.Module:
        model = self.built()
        model.load_state_dict(state)
        return model.to(self.shared.device)

    def built(self) -> nn.Module:
        return self.given.build(self.config, self.config.seed)

    @property
    def skip(self) -> tuple[str, ...]:
        """Patterns of layers left alone."""
        return self.method.patterns(self.config.skip)

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
            skip=self.skip,
            statistics=self.shared.statistics,
        )

    def say(self, stage: str, message: str) -> Progress:
        return Progress(self.id, min(1.0, self.spent / self.total), stage, message)

    def epoch(self, epoch: Epoch, stage: str, message: str) -> Progress:
        start = 0.0 if stage == Stage.DENSE else self.spent
        done = min(1.0, (start + epoch.done) / self.total)
        text = f"{message}, epoch {int(np.ceil(epoch.done))} of {epoch.of}"
        number = int(epoch.done) if epoch.complete else None
        return Progress(self.id, done, stage, text, number, epoch.values)
