"""What a run stands on, opened: its network, its weights and its data, registered or one's own. Their content is checked first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.basics.errors import DataUnavailable, InvalidSetting, PrunevizError, Unsuitable
from pruneviz.basics.reference import Kind, Reference, portable
from pruneviz.basics.seeds import number_for
from pruneviz.datasets import load
from pruneviz.datasets._given import Found
from pruneviz.datasets._own import facts_of, read_own
from pruneviz.datasets.base import Splits
from pruneviz.models import build
from pruneviz.models._torch.initialisation import initialise_, seeded
from pruneviz.models._torch.libraries import from_library, from_transformers
from pruneviz.models._weights import load as load_weights
from pruneviz.plan.config import RunConfig
from pruneviz.plan.own import own
from pruneviz.run.code import Code, a, brought
from pruneviz.run.samples import samples_of, splits

_KEYWORDS = ("shape", "classes")


class Given:
    """Opens what configurations name. ``objects``: of this process, by field, where a run's reference is ``python:NAME``."""

    def __init__(self, objects: Mapping[str, Any] | None = None):
        self._objects = dict(objects or {})
        self._data: dict[str, Splits] = {}

    def data(self, config: RunConfig) -> Splits:
        """The samples. Whole numbers stay such where the network looks them up (an embedding), else they become float32.

        Raises DataUnavailable where they are missing or not what the run was asked for with.
        """
        if not own("dataset", config.dataset):
            return load(config.dataset)
        tokens = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in self.build(config, 0).modules())
        key = f"{config.content.get('dataset')} {tokens}"
        if key not in self._data:
            self._data = {key: splits(self._found(config), tokens)}
        found = self._data[key]
        if list(found.classes) != list(config.data.classes) or tuple(found.shape) != config.data.shape:
            raise DataUnavailable(_changed("dataset", config.dataset))
        return found

    def _found(self, config: RunConfig) -> Found:
        at = self._at(config, "dataset")
        if at.kind is Kind.OBJECT:
            return self._objects["dataset"]
        if at.kind in (Kind.ARRAYS, Kind.IMAGES):
            assert at.place is not None
            return read_own(at.place)
        return samples_of(at.text, brought(at).call({}))

    def build(self, config: RunConfig, seed: int) -> nn.Module:
        """The network with fresh weights. Same seed, same weights. Raises Unsuitable where its code does not give one."""
        shape, classes = config.data.shape, len(config.data.classes)
        if not own("model", config.model):
            return build(config.model, shape=shape, classes=classes, seed=seed, width=config.width)
        at = self._at(config, "model")
        with drawn_from(number_for(seed, "construction")):
            if at.kind is Kind.OBJECT:
                made = fresh(self._objects["model"], at.text, seed, shape=shape, classes=classes)
            elif at.kind is Kind.TRANSFORMERS:
                made = from_transformers(at.text, at.place, trained=False)
            elif at.kind is Kind.LIBRARY:
                made = from_library(at.text, shape, classes)
            else:
                made = network_from(brought(at).call(dict(zip(_KEYWORDS, (shape, classes), strict=True))), at.text)
        return made

    def again(self, config: RunConfig, model: nn.Module, generator: torch.Generator) -> nn.Module:
        """New initial weights, in place: by this package's rule for its own networks, else by building once more."""
        if not own("model", config.model):
            return initialise_(model, generator)
        model.load_state_dict(self.build(config, generator.initial_seed() % 2**31).state_dict())
        return model

    def trained_(self, config: RunConfig, model: nn.Module, field: str = "weights") -> nn.Module:
        """Load the weights (or the initial ones) that a run was given, in place. Raises DataUnavailable, Unsuitable."""
        at = self._at(config, field)
        if at.kind is Kind.OBJECT:
            model.load_state_dict(self._objects[field])
        elif at.kind is Kind.TRANSFORMERS:
            model.load_state_dict(from_transformers(at.text, at.place, trained=True).state_dict())
        else:
            assert at.place is not None
            load_weights(at.place, model)
        return model

    def _at(self, config: RunConfig, field: str) -> Reference:
        """A reference with its place, whose content is what the run was asked for with. Raises DataUnavailable."""
        text = getattr(config, field)
        at = portable(text)
        if at.kind is Kind.OBJECT:
            if field not in self._objects:
                raise DataUnavailable(
                    f"This run stands on {text}, an object of the Python process that made it, which has ended or is another. Ask for it "
                    "again through pv.explore."
                )
            return at
        place = config.places.get(field)
        if at.kind not in (Kind.MODULE, Kind.LIBRARY):
            if place is None:
                raise DataUnavailable(
                    f"This run stands on {text}, and where that lies on this machine is not known. {_mend(field)}"
                )
            if not Path(place).exists():
                raise DataUnavailable(f"This run stands on {place}, and nothing is there any more. {_mend(field)}")
        at = Reference(at.text, at.kind, at.target, at.name, Path(place) if place else None)
        if at.digest() != config.content.get(field):
            raise DataUnavailable(_changed(field, place or text))
        return at


def _changed(field: str, where: str) -> str:
    return f"{where} has changed since this run was asked for, so that it would be another run. {_mend(field)}"


def _mend(field: str) -> str:
    flag = {"dataset": "data"}.get(field, field)
    return f"Put back what was there, or ask for a run again with --{flag}."


@contextmanager
def drawn_from(number: int) -> Iterator[None]:
    """Draws from the global generators of torch, numpy and random begin at this number; afterwards they are as before."""
    kept, legacy = random.getstate(), np.random.get_state()
    random.seed(number)
    np.random.seed(number % 2**32)
    try:
        with seeded(number):
            yield
    finally:
        random.setstate(kept)
        np.random.set_state(legacy)


def network_from(made: Any, text: str) -> nn.Module:
    """What somebody's code gave, if it is a network. Raises Unsuitable."""
    if not isinstance(made, nn.Module):
        raise Unsuitable(f"{text} gave {a(made)}, not a network. Return a torch.nn.Module from it.")
    return deepcopy(made)


def fresh(model: Any, text: str, seed: int, **known: Any) -> nn.Module:
    """A network of this process with fresh weights: built again, or copied with every layer reset by its own rule."""
    if not isinstance(model, nn.Module):
        return network_from(Code(text, model).call(known), text)
    copy = deepcopy(model)
    for place, module in enumerate(copy.modules()):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            with seeded(number_for(seed, f"reset {place}")):
                reset()
    return copy


# what is looked at before anything is queued


def settled(values: Mapping[str, Any], note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Settings with everything found that they name: as :func:`pruneviz.plan.own.resolved`, and data that code makes as well.

    Whoever calls it lets that code run. ``note`` is told what was done to the data. Raises PrunevizError.
    """
    from pruneviz.basics.reference import found as find
    from pruneviz.plan.own import resolved

    values = dict(values)
    facts = {name: dict(said) for name, said in dict(values.get("facts") or {}).items()}
    if own("dataset", values.get("dataset")) and "dataset" not in facts:
        at = find(values["dataset"])
        if at.kind in (Kind.FILE, Kind.MODULE):
            facts["dataset"] = facts_of(samples_of(at.text, brought(at).call({})))
    values = resolved({**values, "facts": facts})
    for sentence in (values.get("facts") or {}).get("dataset", {}).get("said", ()):
        note(sentence)
    return values


def looked_at(config: RunConfig, given: Given) -> tuple[nn.Module, Splits]:
    """The network (with the weights it was given) and the samples, after seeing that they fit. Raises Unsuitable, DataUnavailable."""
    data = given.data(config)
    model = given.build(config, config.seed)
    if config.weights:
        given.trained_(config, model)
    if config.initial:
        given.trained_(config, deepcopy(model), "initial")
    fits(model, data)
    return model, data


def fits(model: nn.Module, data: Splits) -> None:
    """Whether the network runs on the samples and gives a number for each class. Raises Unsuitable."""
    from pruneviz.door.arrival import enter

    x, y = data.train[0][:2], data.train[1][:2]
    enter(model, x, targets=False)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            result = model(x)
    finally:
        model.train(training)
    if not isinstance(result, Tensor):
        raise Unsuitable(
            f"The network gives {a(result)}, and runs need one tensor [samples, classes]. Wrap it in a module that returns the logits."
        )
    classes = len(data.classes)
    answers = {classes, 1} if classes == 2 else {classes}
    if result.dim() != 2 or len(result) != len(y) or result.shape[1] not in answers:
        raise Unsuitable(
            f"The network gives outputs of shape {list(result.shape[1:])} for a sample, and the data have {classes} classes. Give a "
            f"network with {classes} outputs, or data of as many classes as it has."
        )


def misfit(config: RunConfig, given: Given, data: Splits, model: nn.Module) -> str:
    """Why this run's method cannot prune this network, as it would say itself when it begins; "" where it can."""
    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.door.arrival import enter
    from pruneviz.door.loss import LOSSES
    from pruneviz.methods import method_class

    method = method_class(config.method).from_params(config.params)
    batches = [(data.train[0][:2], data.train[1][:2])]
    task = Task(
        lambda: batches,
        generator_for(config.seed, "look"),
        loss=LOSSES[config.loss_name],
        initial={name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        device=torch.device("cpu"),
        scope=config.scope,
        skip=method.patterns(config.skip),
    )
    try:
        seen = deepcopy(model)
        network = enter(seen, *batches[0]).network
        drawn = sum(len(x) for x, _ in method.draw(data.train, generator_for(config.seed, "look")))
        if said := method.beyond(network, drawn, network.outputs.numel()):
            return said
        mask = method.full(method.prepare(seen, task), task)
        if method.card.unit.turned and mask.layout is None:
            return (
                f"{method.card.title} turns layers whose curvature is a Kronecker product, all but the last, and this network has none. "
                "Try Optimal Brain Damage."
            )
    except InvalidSetting:
        raise
    except PrunevizError as error:
        return str(error)
    return ""
