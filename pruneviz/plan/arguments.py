"""A run's settings as words on a command line, read and written: ``python -m pruneviz run --method snip …``."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from pruneviz.plan.config import PROBES, RunConfig
from pruneviz.plan.recipe import Training

_PLAIN = ("rounds", "start", "survivors", "scope", "rewind_step", "control", "repair", "between")  # written as they are
_BUDGETS = {"train": "training", "tune": "fine-tuning"}
_SHORT = {
    "train": {"epochs": "--epochs", "batch_size": "--batch-size", "lr": "--lr"},
    "tune": {"epochs": "--tune-epochs"},
}  # what has a flag of its own


def declare(parser: argparse.ArgumentParser, *, target: bool = False) -> None:
    """Every setting of a run but its method, as flags. What is left out comes from the cards. ``target``: the network is said first."""
    add = parser.add_argument
    add(
        "--data",
        default="digits",
        help="data set (default digits); or one's own: an .npz with x and y, a folder with one folder of images for each class, "
        "or file:PATH.py:NAME",
    )
    add(
        "--model",
        help=argparse.SUPPRESS
        if target
        else "network (default: the data set's usual one, lenet-300-100 for digits); or one's own: file:PATH.py:NAME, "
        "PACKAGE.MODULE:NAME, transformers:FOLDER, timm:NAME, torchvision:NAME",
    )
    add(
        "--weights",
        help="trained weights, .safetensors or .pt: nothing is trained before pruning unless --epochs is given",
    )
    add("--initial", help="the weights that those were trained from, for methods that go back to them")
    add("--loss", help="cross-entropy or squared (default: the network's)")
    add(
        "--width",
        type=_width,
        help="factor on the channels of all layers, e.g. 2 or 1/8, of networks that have widths (default 1)",
    )
    add("--sparsity", type=numbers(float), help="fractions removed (default 0.5,0.8,0.9,0.95,0.98)")
    add("--seed", type=numbers(int), default=[0], help="seeds; one run each (default 0)")
    add("--rounds", type=int, help="prune-and-train rounds up to the last sparsity; 1 is one shot")
    add("--epochs", type=int, help="training budget in epochs (default: the data set's)")
    add("--tune-epochs", type=int, help="fine-tuning budget in epochs (default: the data set's)")
    add("--batch-size", type=int, help="samples a training step (default: the network's, else 64)")
    add("--lr", type=float, help="learning rate (default: the network's, else 0.0012; fine-tuning takes half)")
    for name, what in _BUDGETS.items():
        known = ", ".join(field for field in Training.model_fields if field != "epochs")
        add(f"--{name}", type=_switch, action="append", metavar="NAME=VALUE", help=f"more of {what}: {known}")
    add("--start", help="init or trained (default: the method's)")
    add("--survivors", help="retain, rewind, reinit or reinit-sign (default: the method's)")
    add("--scope", help="global or layer (default: the method's)")
    add("--rewind-step", type=int, help="rewind to the weights after this many steps (default 0)")
    add("--control", help="a sanity check: shuffle the mask within layers, or invert the score (default none)")
    add("--between", help="train or none: what happens between rounds (default train)")
    add("--skip", type=names, help="layers left alone and not counted, e.g. head,*.norm1")
    add("--recalibrate", action="store_true", help="estimate normalisation statistics again after each pruning")
    add("--normalise", action="store_true", help="subtract the inputs' mean, divide by their deviation")
    add("--repair", help="isometry or rescale: mend each layer after pruning (default none)")
    add(
        "--set",
        type=_switch,
        action="append",
        metavar="NAME=VALUE",
        help="a switch of the method, e.g. batches=4 or per_stage=1=0.5,4=0.5",
    )
    add("--probes", type=names, help=f"what to record beside the numbers: {','.join(PROBES)} (default), or none")


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What :class:`RunConfig` takes, method and seed aside, from parsed flags."""
    budgets = {name: dict(getattr(given, name) or ()) for name in _BUDGETS}
    found = {
        "dataset": given.data,
        "model": getattr(given, "target", None) or given.model,
        "width": given.width,
        "weights": given.weights,
        "initial": given.initial,
        "loss": given.loss,
        "sparsities": given.sparsity,
        "train": {"epochs": given.epochs, "batch_size": given.batch_size, "lr": given.lr, **budgets["train"]},
        "tune": {"epochs": given.tune_epochs, **budgets["tune"]},
        **{name: getattr(given, name) for name in (*_PLAIN, "normalise", "skip", "recalibrate")},
        "params": dict(given.set or ()),
        "probes": () if given.probes == ["none"] else given.probes,
    }
    return {name: value for name, value in found.items() if value is not None}


def command(config: RunConfig) -> str:
    """The command that asks for this very run, with every setting that differs from what is filled in anyway."""
    words: list[str] = []
    said: dict[str, Any] = {"method": config.method}
    beside = {name: getattr(config, name) for name in ("content", "facts", "places")}

    def usual() -> RunConfig:
        return RunConfig(**{**beside, **said})

    def say(name: str, flag: str, text: str) -> None:
        words.extend((flag, text) if text else (flag,))
        said[name] = getattr(config, name)

    say("dataset", "--data", typed(config, "dataset"))
    say("model", "--model", typed(config, "model"))
    for name in ("weights", "initial", "loss"):
        if getattr(config, name) and not config.model.startswith("transformers:"):
            say(name, f"--{name}", typed(config, name))
    if config.width != 1:
        say("width", "--width", repr(config.width))
    say("sparsities", "--sparsity", ",".join(map(repr, config.sparsities)))
    say("seed", "--seed", str(config.seed))
    for name in _PLAIN:
        if getattr(config, name) != getattr(usual(), name):
            say(name, f"--{name.replace('_', '-')}", str(getattr(config, name)))
    if config.skip:
        say("skip", "--skip", ",".join(config.skip))
    for name in ("recalibrate", "normalise"):
        if getattr(config, name):
            say(name, f"--{name}", "")
    for name, short in _SHORT.items():
        words += _differing(getattr(config, name), getattr(usual(), name), short, f"--{name}")
        said[name] = getattr(config, name)
    for name, value in config.params.items():
        if usual().params[name] != value:
            words += ["--set", f"{name}={_value(value)}"]
            said["params"] = {**said.get("params", {}), name: value}
    if config.probes != usual().probes:
        words += ["--probes", ",".join(config.probes) or "none"]
    return shlex.join(["python", "-m", "pruneviz", "run", "--method", config.method, *words])


def typed(config: RunConfig, field: str) -> str:
    """A setting as one types it: of a reference with its place on this machine, where that is known."""
    text, place = getattr(config, field), config.places.get(field)
    if place is None:
        return text
    prefix, colon, rest = text.partition(":")
    name = rest.rpartition(":")[2] if prefix == "file" else ""
    return f"{prefix}{colon}{place}{':' + name if name else ''}" if colon else place


def _differing(budget: Training, usual: Training, short: dict[str, str], flag: str) -> list[str]:
    words: list[str] = []
    for name, value in budget.model_dump().items():
        if value != getattr(usual, name):
            words += [short[name], repr(value)] if name in short else [flag, f"{name}={_value(value)}"]
    return words


def _value(value: Any) -> str:
    """Text that :func:`_switch` reads back: JSON, and bare words where they are no JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def numbers(kind: Callable[[str], Any]) -> Callable[[str], list]:
    """Reads numbers separated by commas."""

    def parse(text: str) -> list:
        try:
            return [kind(part) for part in text.split(",") if part.strip()]
        except ValueError:
            raise argparse.ArgumentTypeError(f"numbers separated by commas, e.g. 0.5,0.9; found {text!r}") from None

    return parse


def names(text: str) -> list[str]:
    """Words separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _width(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"a number above 0 and at most 8, e.g. 2, 0.5 or 1/8; found {text!r}"
        ) from None


def _switch(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"a switch is given as name=value, e.g. batches=4; found {text!r}")
    try:
        return name.strip().replace("-", "_"), json.loads(value)
    except ValueError:
        return name.strip().replace("-", "_"), value
