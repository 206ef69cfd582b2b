"""Runs as the command line asks for them, and one's own network looked at: ``view``, ``inspect``, ``--dry-run``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.plan.arguments import declare as declare_settings
from pruneviz.plan.arguments import names, settings
from pruneviz.plan.config import RunConfig
from pruneviz.plan.own import references

if TYPE_CHECKING:
    pass

Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


@dataclass(frozen=True)
class Asked:
    """What a command asks for: runs, and the methods that do not fit, each with the reason."""

    configs: tuple[RunConfig, ...]
    skipped: tuple[dict[str, Any], ...]


def asked(arguments: argparse.Namespace, methods: Sequence[str] | str) -> Asked:
    """The runs of several methods; where something is one's own, it is opened and every method tried on it. Raises PrunevizError."""
    from pruneviz.plan.comparison import plan

    values = settings(arguments)
    if references(_typed(values)):
        from pruneviz.run.given import settled

        values = settled(values, note=lambda text: print(f"pruneviz: {text}", file=sys.stderr))
    found = plan(methods, seeds=arguments.seed, **values)
    if not found.configs or not found.configs[0].content:
        return Asked(found.configs, found.skipped)
    configs, skipped = _fitting(found.configs)
    return Asked(configs, (*found.skipped, *skipped))


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """Settings whose references can be told as such, a folder of images too."""
    data = values.get("dataset")
    folder = (
        isinstance(data, str) and ":" not in data and not data.endswith(".npz") and Path(data).expanduser().is_dir()
    )
    return {**values, "dataset": f"{data.rstrip('/')}/"} if folder and isinstance(data, str) else values


def _fitting(configs: Sequence[RunConfig]) -> tuple[tuple[RunConfig, ...], list[dict[str, Any]]]:
    from pruneviz.run.given import Given, looked_at, misfit

    given = Given()
    model, data = looked_at(configs[0], given)
    reasons = {(c.method, c.start): "" for c in configs}
    for config in configs:
        key = (config.method, config.start)
        if config.seed == configs[0].seed:
            reasons[key] = misfit(config, given, data, model)
    skipped = {method: reason for (method, _), reason in reasons.items() if reason}
    fitting = tuple(c for c in configs if not reasons[c.method, c.start])
    return fitting, [{"method": method, "reason": reason} for method, reason in skipped.items()]


def foretell(found: Asked, arguments: argparse.Namespace) -> int:
    """``--dry-run``: what would happen, and nothing else."""
    from pruneviz.run.foresee import in_words
    from pruneviz.run.given import Given, looked_at

    if not found.configs:
        raise Unsuitable("No method fits: " + "; ".join(f"{row['method']}: {row['reason']}" for row in found.skipped))
    model, data = looked_at(found.configs[0], Given())
    said = in_words(found.configs, model, data)
    if arguments.json:
        rows = [
            {"id": c.id, "method": c.method, "start": c.start, "seed": c.seed, "epochs": c.epochs}
            for c in found.configs
        ]
        print(json.dumps({"runs": rows, "skipped": list(found.skipped), "said": said}, indent=1))
        return 0
    for config in found.configs:
        print(
            f"{config.id}: {config.method}, start {config.start}, {config.epochs} epochs, sparsities {list(config.sparsities)}"
        )
    for row in found.skipped:
        print(f"skipped {row['method']}: {row['reason']}")
    print("\n".join(said))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    """The table of a network on its data."""
    found = _seen(arguments)
    if arguments.json:
        table = found.layers.assign(shared_with=found.layers["shared_with"].map(list))
        document = {
            "layers": table.to_dict("records"), "covered": found.covered, "left_out": found.left_out, "unused": list(found.unused),
            "outputs": list(found.outputs), "flops": found.flops, "problems": list(found.problems),
        }  # fmt: skip
        print(json.dumps(document, indent=1, default=str))
    else:
        print(found)
    return 0


def _seen(arguments: argparse.Namespace) -> Any:
    from pruneviz.run.given import Given, looked_at, settled
    from pruneviz.units.inspection import inspect

    values = settled(settings(arguments), note=lambda text: print(f"pruneviz: {text}", file=sys.stderr))
    config = RunConfig(**{**values, "method": "random"})
    model, data = looked_at(config, Given())
    return inspect(model.eval(), data.train[0][:2], data.train[1][:2])


def _view(arguments: argparse.Namespace) -> int:
    """Inspect, run, and look at Compare."""
    from pruneviz.cli import carry_out

    if not arguments.json:
        print(_seen(arguments))
    found = asked(arguments, "all" if arguments.methods == "all" else names(arguments.methods))
    if arguments.dry_run:
        return foretell(found, arguments)
    status = carry_out(found.configs, found.skipped, arguments)
    if status or arguments.no_browser or arguments.json:
        return status
    return _look(arguments.store, [c.id for c in found.configs if c.seed == arguments.seed[0]])


def _look(store: str | None, ids: Sequence[str]) -> int:
    """Serve the dashboard, open the browser on Compare, and stay until interrupted."""
    import os
    import socket
    import subprocess
    import time
    import webbrowser
    from urllib.error import URLError
    from urllib.request import urlopen

    from pruneviz.basics.places import APP

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://localhost:{port}/compare?runs={','.join(ids)}"
    environment = os.environ | ({"PRUNEVIZ_STORE": str(Path(store).resolve())} if store else {})
    flags = ["--server.address=localhost", f"--server.port={port}", "--server.headless=true"]
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "streamlit", "run", str(APP), *flags], env=environment, stdout=sys.stderr
    )
    try:
        for _ in range(600):
            try:
                urlopen(f"http://localhost:{port}/_stcore/health", timeout=1).close()
                break
            except (URLError, OSError):
                if server.poll() is not None:
                    return 1
                time.sleep(0.1)
        print(f"Compare: {address} (Ctrl-C ends it)", flush=True)
        webbrowser.open(address)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def declare(command: Command) -> None:
    """The commands ``view`` and ``inspect``."""
    sub = command(
        "view", _view, "look at one's own network: inspect it, prune it by every method that fits, and open Compare"
    )
    sub.add_argument(
        "target", metavar="TARGET", help="network: a key, file:PATH.py:NAME, PACKAGE.MODULE:NAME, transformers:FOLDER …"
    )
    sub.add_argument("--methods", default="all", help="methods separated by commas, or all that fit (default)")
    sub.add_argument("--no-browser", action="store_true", help="print what was found, and serve nothing")
    declare_settings(sub, target=True)
    add_running(sub)
    sub = command("inspect", _inspect, "the weights of a network, who can score them, and what is left out")
    sub.add_argument(
        "target", metavar="TARGET", help="network: a key, file:PATH.py:NAME, PACKAGE.MODULE:NAME, transformers:FOLDER …"
    )
    declare_settings(sub, target=True)
    sub.add_argument("--json", action="store_true", help="print JSON")


def add_running(sub: argparse.ArgumentParser) -> None:
    """What every command that carries runs out takes."""
    sub.add_argument("--device", help="cpu, cuda:0, mps (default: the best there is)")
    sub.add_argument("--fresh", action="store_true", help="run again what the store has finished already")
    sub.add_argument(
        "--dry-run",
        action="store_true",
        help="say what will happen, how long it takes and how much memory; run nothing",
    )
    sub.add_argument("--store", help="store folder (default: $PRUNEVIZ_STORE or the user's data folder)")
    sub.add_argument("--json", action="store_true", help="print JSON")


def only(found: Asked) -> Asked:
    """Of a command about one method: its runs. Raises Unsuitable where it does not fit."""
    if not found.configs:
        raise Unsuitable(found.skipped[0]["reason"]) if found.skipped else InvalidSetting("No run was asked for.")
    return found
