"""A run on a command line, and back."""

from __future__ import annotations

import argparse
import shlex

import pytest

from pruneviz.methods import METHODS
from pruneviz.plan.arguments import command, declare, settings
from pruneviz.plan.config import RunConfig
from pruneviz.store import SAMPLES
from pruneviz.store.samples import Samples


def read(line: str) -> list[RunConfig]:
    """What ``python -m pruneviz run`` would carry out."""
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "pruneviz", "run"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", required=True)
    declare(parser)
    given = parser.parse_args(words[4:])
    return [RunConfig(method=given.method, seed=seed, **settings(given)) for seed in given.seed]


@pytest.mark.parametrize("run", Samples(SAMPLES).values(), ids=lambda run: run.id)
def test_the_command_of_every_sample_asks_for_that_sample(run):
    assert [config.id for config in read(command(run.config))] == [run.id]


@pytest.mark.parametrize("method", METHODS)
def test_the_command_of_a_method_as_its_paper_has_it_is_short(method: str):
    model = "digits-cnn" if method == "l1-filters" else "lenet-300-100"
    config = RunConfig(method=method, model=model)
    assert [found.id for found in read(command(config))] == [config.id]
    assert "--set" not in command(config)
    assert "--epochs" not in command(config)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "snip", "control": "shuffle", "probes": ()},
        {"method": "magnitude", "rounds": 1, "survivors": "rewind", "rewind_step": 12, "probes": ("saliency",)},
        {"method": "random", "start": "trained", "sparsities": (1 / 3, 0.999), "seed": 2**31 - 1},
        {"method": "obd", "scope": "layer", "repair": "isometry", "normalise": True, "note": "a note"},
        {"method": "isometry", "params": {"repair": False}},
        {"method": "isometry", "repair": "rescale"},
        {"method": "obs", "train": {"epochs": 3, "optimizer": "sgd", "momentum": 0.5, "weight_decay": 1e-4, "lr": 0.1}},
        {"method": "snip", "train": {"keep": "best", "batch_size": 7}, "tune": {"lr": 1e-5, "batch_size": 9, "epochs": 0}},
        {"method": "kron-obd", "model": "conv-2", "width": 1 / 8, "scope": "layer"},
        {
            "method": "l1-filters", "model": "digits-cnn",
            "params": {"per_stage": {"1": 0.5, "2": 0.25}, "skip": ["2"], "mode": "greedy"},
        },
        {"method": "snip", "rounds": 5, "between": "none", "recalibrate": True, "skip": ["*.norm1", "head"]},
        {"method": "l1-filters", "model": "digits-cnn", "skip": "1"},
    ],
    ids=lambda settings: f"{settings['method']}-{len(settings)}",
)  # fmt: skip
def test_every_setting_finds_its_way_back(settings: dict):
    config = RunConfig(**settings)
    assert [found.id for found in read(command(config))] == [config.id]
