"""``pv.explore``: every method on a network that is here in Python, by runs like any other."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.basics.reference import slug
from pruneviz.datasets._given import Found
from pruneviz.datasets._own import facts_of
from pruneviz.datasets.base import Splits
from pruneviz.jobs.recording import record
from pruneviz.plan.comparison import plan
from pruneviz.plan.own import own
from pruneviz.run.given import Given, looked_at, misfit
from pruneviz.run.samples import samples_of
from pruneviz.store import Run, Store


class Explored(Sequence[Run]):
    """The runs that :func:`explore` made, in the order of their methods; figures and ``pv.show`` take it as it is.

    ``store`` holds them; ``skipped``: method and reason of those that do not fit; ``said``: what was done to the data.
    """

    def __init__(self, store: Store, ids: Sequence[str], skipped: Sequence[Mapping[str, Any]], said: Sequence[str]):
        self.store, self.ids, self.skipped, self.said = store, tuple(ids), tuple(skipped), tuple(said)

    def __getitem__(self, at: Any) -> Any:
        return [self.store.run(id_) for id_ in self.ids[at]] if isinstance(at, slice) else self.store.run(self.ids[at])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def metrics(self) -> Any:
        """run, method, seed, sparsity, stage, split, metric, value: a DataFrame."""
        return self.store.metrics(list(self.ids))

    def __repr__(self) -> str:
        left = "".join(f"\nskipped {row['method']}: {row['reason']}" for row in self.skipped)
        return "\n".join(f"{run.id}: {run.state}" for run in self) + left


def explore(
    model: Any,
    train: Any = None,
    test: Any = None,
    val: Any = None,
    *,
    name: str = "",
    methods: Iterable[str] | str = "all",
    sparsity: float | Sequence[float] = (0.5, 0.8, 0.9, 0.95, 0.98),
    loss: str = "",
    seed: int | Sequence[int] = 0,
    store: Store | None = None,
    initial: Mapping[str, Tensor] | None = None,
    device: str | None = None,
    epochs: int | None = None,
    tune_epochs: int | None = None,
    **settings: Any,
) -> Explored:
    """Prune a network by several methods at several sparsities, train again, and keep what the dashboard and the figures show.

    ``model``: a network, which is taken as trained (``epochs`` trains it further first); or a class or function that makes one,
    which is trained first. Methods that begin at initialisation get fresh weights: made again, or each layer reset by its own
    rule. ``train``, ``test``, ``val``: (x [n, …], y [n]), tensors or arrays, or Datasets of pairs; what is missing is split off
    ``train``. ``train`` may be :class:`~pruneviz.Splits` alone, or the key of a registered data set. ``store``: a Store to keep
    the runs in; None keeps them until this process ends. ``initial``: the weights that training began with, for methods that
    go back to them. ``settings``: as :class:`~pruneviz.RunConfig` takes them (``rounds``, ``normalise``, ``probes``, …).

    Made in this process, so that no other can resume them. Raises PrunevizError: Unsuitable where no method fits, or the
    network and the samples do not fit each other.
    """
    objects, values = _standing(model, train, test, val, name, initial)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    values |= {"sparsities": sparsity, "loss": loss, **settings}
    values["train"] = {"epochs": epochs, **(settings.get("train") or {})}
    values["tune"] = {"epochs": tune_epochs, **(settings.get("tune") or {})}
    found = plan(methods, seeds=seeds, **values)
    given = Given(objects)
    skipped = list(found.skipped)
    configs = list(found.configs)
    if configs:
        network, data = looked_at(configs[0], given)
        reasons = {(c.method, c.start): misfit(c, given, data, network) for c in configs if c.seed == seeds[0]}
        skipped += [{"method": method, "reason": why} for (method, _), why in reasons.items() if why]
        configs = [c for c in configs if not reasons.get((c.method, c.start))]
    if not configs:
        raise Unsuitable(
            "No method fits this network: " + " ".join(f"{row['method']}: {row['reason']}" for row in skipped)
        )
    kept = store if store is not None else _passing()
    kept.allow(configs)
    ids = kept.queue(
        configs, device=f"process {os.getpid()}", objects=True
    )  # no worker's: this very process takes them
    record(kept, ids, device=device, given=given)
    failed = [kept.status(id_) for id_ in ids if kept.status(id_)["state"] == "failed"]
    if failed and len(failed) == len(ids):
        raise Unsuitable(failed[0]["error"])
    said = (values.get("facts") or {}).get("dataset", {}).get("said", ())
    return Explored(kept, ids, skipped, said)


def _passing() -> Store:
    """A store in a folder of its own, which goes when nobody holds it any more."""
    folder = tempfile.TemporaryDirectory(prefix="pruneviz-")
    store = Store(folder.name, samples=None)
    weakref.finalize(store, folder.cleanup)
    return store


def _standing(
    model: Any, train: Any, test: Any, val: Any, name: str, initial: Mapping[str, Tensor] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The objects that the runs stand on, and settings that refer to them with digests of what they hold."""
    objects: dict[str, Any] = {}
    content: dict[str, str] = {}
    facts: dict[str, Any] = {}
    values: dict[str, Any] = {}
    if isinstance(model, str):
        values["model"] = model
    elif isinstance(model, nn.Module) or callable(model):
        called = slug(name) if name else slug(type(model).__name__ if isinstance(model, nn.Module) else model.__name__)
        objects["model"], values["model"] = model, f"python:{called}"
        content["model"] = _digest_of_network(model)
    else:
        raise InvalidSetting(
            f"model is a network, a class or function that makes one, or a key; found a {type(model).__name__}."
        )
    if isinstance(model, nn.Module):
        objects["model"] = deepcopy(model).cpu()
        objects["weights"] = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        values["weights"], content["weights"] = values["model"], _digest_of_state(objects["weights"])
    if initial is not None:
        objects["initial"] = {k: torch.as_tensor(v).detach().cpu().clone() for k, v in initial.items()}
        values["initial"], content["initial"] = values["model"], _digest_of_state(objects["initial"])
    if isinstance(train, str):
        values["dataset"] = train
        if test is not None or val is not None:
            raise InvalidSetting(f"The data set {train!r} has its own test samples: leave test and val out.")
    else:
        data = _samples(train, test, val)
        objects["dataset"], content["dataset"] = data, _digest_of_samples(data)
        values["dataset"] = f"python:{slug(name) if name else 'samples'}"
        facts["dataset"] = facts_of(data)
    values |= {"content": content, "facts": facts}
    if own("model", values["model"]) or content:
        return objects, values
    return objects, {k: v for k, v in values.items() if v}


def _samples(train: Any, test: Any, val: Any) -> Found:
    if train is None:
        raise InvalidSetting(
            "explore needs training samples: train=(x, y), a Dataset, pv.Splits, or the key of a data set."
        )
    if isinstance(train, Splits | Found):
        return samples_of("train", train)
    if test is None:
        return (
            samples_of("the samples", (train, val, None))
            if val is not None
            else samples_of("the samples", (train, None))
        )
    return samples_of("the samples", (train, val, test))


def _digest_of_network(model: Any) -> str:
    """Of what a network is made of, its weights aside: its layers, the shapes of its state and the source of its class."""
    kind = type(model) if isinstance(model, nn.Module) else model
    parts = [f"{kind.__module__}.{kind.__qualname__}"]
    if isinstance(model, nn.Module):
        parts += [repr(model), *(f"{k} {tuple(v.shape)} {v.dtype}" for k, v in model.state_dict().items())]
        kinds = {type(m) for m in model.modules() if not type(m).__module__.startswith("torch.")}
    else:
        kinds = {kind}
    for one in sorted(kinds, key=lambda k: k.__qualname__):
        try:
            parts.append(inspect.getsource(one))
        except (OSError, TypeError):  # typed in, or compiled: its name and layers must do
            parts.append(one.__qualname__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest_of_state(state: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()


def _digest_of_samples(data: Found) -> str:
    found = hashlib.sha256(repr((data.classes, data.shape)).encode())
    for x, y in (data.train, data.val, data.test):
        for array in (x, y):
            found.update(f"{array.dtype} {array.shape}\n".encode())
            found.update(array.tobytes())
    return found.hexdigest()
