"""The dense network, trained once for all runs that start from it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruneviz.basics.errors import InvalidSetting
from pruneviz.curvature.task import generator_for
from pruneviz.datasets.base import Splits
from pruneviz.door.loss import LOSSES
from pruneviz.plan.config import RunConfig
from pruneviz.run.given import Given
from pruneviz.run.training import Epoch, fit

State = dict[str, Tensor]


@dataclass(frozen=True)
class Dense:
    """State dicts on the CPU: at initialisation, after ``rewind_step`` steps, and trained."""

    initial: State
    rewound: State
    trained: State
    history: list[dict[str, float]]


class DenseCache:
    """Trained dense networks by content hash, in memory, or under a folder that processes share (a lock makes one train)."""

    def __init__(self, folder: Path | str | None = None):
        self._folder = Path(folder) if folder is not None else None
        self._kept: dict[tuple[str, int], Dense] = {}

    def get(
        self, config: RunConfig, data: Splits, device: torch.device, given: Given | None = None
    ) -> Generator[Epoch | str, None, Dense]:
        """Yields the epochs of training (or what it waits for), returns the network. ``given`` opens what the run stands on."""
        given = given or Given()
        key = (config.dense_key, config.rewind_step)
        if key in self._kept:
            return self._kept[key]
        if self._folder is None:
            found = yield from _train(config, data, device, given)
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder / f"{config.dense_key}.lock")
            while True:
                try:
                    lock.acquire(timeout=0.5)
                    break
                except Timeout:
                    yield "waiting for another run that trains the same dense network"
            try:
                found = self._read(config)
                if found is None:
                    found = yield from _train(config, data, device, given)
                    self._write(config, found)
            finally:
                lock.release()
        self._kept[key] = found
        return found

    def _path(self, config: RunConfig, what: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{config.dense_key}-{what}.safetensors"

    def _read(self, config: RunConfig) -> Dense | None:
        """What is on disk, or None where a part is missing or damaged (it is then trained again)."""
        parts = {"initial": "step-0", "rewound": f"step-{config.rewind_step}", "trained": "trained"}
        try:
            states = {name: load_file(self._path(config, what)) for name, what in parts.items()}
            history = json.loads(self._path(config, "trained").with_suffix(".json").read_text())
        except (OSError, ValueError, SafetensorError):
            return None
        return Dense(**states, history=history)

    def _write(self, config: RunConfig, dense: Dense) -> None:
        for state, what in (
            (dense.initial, "step-0"),
            (dense.rewound, f"step-{config.rewind_step}"),
            (dense.trained, "trained"),
        ):
            path = self._path(config, what)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            save_file(state, temporary)
            os.replace(temporary, path)
        path = self._path(config, "trained").with_suffix(".json")
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(dense.history))
        os.replace(temporary, path)


def state_of(model: torch.nn.Module) -> State:
    """A copy of the weights on the CPU that later training does not touch."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _train(config: RunConfig, data: Splits, device: torch.device, given: Given) -> Generator[Epoch, None, Dense]:
    """From fresh weights, or on from given ones, for as long as the run asks."""
    model = given.build(config, config.seed)
    if config.initial:
        given.trained_(config, model, "initial")
    initial = state_of(model)
    if config.weights:
        given.trained_(config, model)
    model.to(device)
    budget = config.train.model_copy(update={"epochs": config.dense_epochs})
    rewound: dict[int, State] = {0: initial}
    started = time.monotonic()

    def at_step(step: int) -> None:
        if step == config.rewind_step and step:
            rewound[step] = state_of(model)

    history = []
    generator = generator_for(config.seed, "dense")
    for epoch in fit(model, data, budget, generator=generator, loss=LOSSES[config.loss_name], at_step=at_step):
        if epoch.complete:
            history.append({"epoch": epoch.done, "seconds": time.monotonic() - started, **epoch.values})
        yield epoch
    if config.rewind_step not in rewound:
        steps = config.train.epochs * -(-len(data.train[0]) // config.train.batch_size)
        raise InvalidSetting(
            f"rewind_step {config.rewind_step} lies beyond the {steps} steps of training. Choose a smaller one."
        )
    return Dense(initial, rewound[config.rewind_step], state_of(model), history)
