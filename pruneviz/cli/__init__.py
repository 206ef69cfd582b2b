"""The command line: ``pruneviz``, or ``python -m pruneviz``. Without a command it serves the dashboard.

Exit status: 0 done, 1 a run failed, 2 bad arguments. ``--json`` prints one document on standard output and nothing else;
progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruneviz.basics.errors import InvalidSetting, NoSuchRun, PrunevizError, UnknownName, Unsuitable
from pruneviz.basics.places import APP
from pruneviz.basics.version import __version__
from pruneviz.cli import diff, own, terminal
from pruneviz.plan.arguments import declare, names

if TYPE_CHECKING:
    from pruneviz.papers.base import Reproduction
    from pruneviz.plan.config import RunConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report errors as one sentence; returns the exit status."""
    parser, commands = _parser()
    words = list(sys.argv[1:] if argv is None else argv) or ["serve"]
    try:
        if not words[0].startswith("-") and words[0] not in commands:
            raise UnknownName("command", words[0], commands)
        arguments = parser.parse_args(words)
        return arguments.command(arguments)
    except (InvalidSetting, Unsuitable, NoSuchRun, KeyError) as error:
        if not isinstance(error, PrunevizError):
            raise
        print(f"pruneviz: {error}", file=sys.stderr)
        return 2
    except PrunevizError as error:
        print(f"pruneviz: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pruneviz: interrupted. The same command goes on from the last finished stage.", file=sys.stderr)
        return 130


# lists


def _methods(arguments: argparse.Namespace) -> int:
    from pruneviz.methods import METHODS, method_class

    def about(key: str, card: Any) -> dict[str, Any]:
        switches = {
            name: {"default": f.default, "help": f.description} for name, f in method_class(key).model_fields.items()
        }
        return {
            "key": key, "title": card.title, "idea": card.idea, "start": card.starts, "criterion": card.criterion,
            "unit": card.unit, "survivors": card.survivors, "schedule": card.schedule, "scope": card.scope,
            "paper": card.paper.citation if card.paper else None, "switches": switches, "departures": card.departures,
        }  # fmt: skip

    return _list(
        [about(k, c) for k, c in METHODS.items()], ("key", "start", "unit", "survivors", "schedule", "idea"), arguments
    )


def _models(arguments: argparse.Namespace) -> int:
    from pruneviz.models import MODELS

    rows = [
        {
            "key": k, "title": c.title, "layers": c.layers, "widths": c.widths, "idea": c.idea,
            "paper": c.paper.citation if c.paper else None,
        }
        for k, c in MODELS.items()
    ]  # fmt: skip
    return _list(rows, ("key", "layers", "idea"), arguments)


def _datasets(arguments: argparse.Namespace) -> int:
    from pruneviz.datasets import DATASETS

    rows = [
        {
            "key": k, "title": c.title, "shape": c.shape, "classes": len(c.classes), "sizes": c.sizes, "present": c.present,
            "megabytes": c.megabytes, "folder": str(c.home), "licence": c.licence, "source": c.source, "idea": c.idea,
            "model": c.model, "paper": c.paper.citation if c.paper else None,
        }
        for k, c in DATASETS.items()
    ]  # fmt: skip
    return _list(rows, ("key", "shape", "classes", "sizes", "present", "idea"), arguments)


def _list(rows: list[dict[str, Any]], columns: Sequence[str], arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps(rows, indent=1, default=str))
        return 0
    terminal.table(columns, [[row[c] for c in columns] for row in rows])
    return 0


# runs


def _run(arguments: argparse.Namespace) -> int:
    found = own.only(own.asked(arguments, [arguments.method]))
    return own.foretell(found, arguments) if arguments.dry_run else carry_out(found.configs, (), arguments)


def _compare(arguments: argparse.Namespace) -> int:
    found = own.asked(arguments, "all" if arguments.methods == "all" else names(arguments.methods))
    if arguments.dry_run:
        return own.foretell(found, arguments)
    return carry_out(found.configs, found.skipped, arguments)


def carry_out(configs: Sequence[RunConfig], skipped: Sequence[dict], arguments: argparse.Namespace) -> int:
    """Queue runs, see them through, and print what came out of them."""
    from pruneviz.jobs import backend
    from pruneviz.store import Store
    from pruneviz.store.outcome import report

    store = Store(arguments.store)
    store.allow(configs)
    ids = store.queue(configs, again=arguments.fresh)
    with terminal.Bars(configs) as on_event:
        backend(store).carry_out(ids, device=arguments.device, on_event=on_event)
    found = report(store, ids, skipped)
    store.close()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        terminal.runs(found)
    for reason in dict.fromkeys(row["reason"] or row["state"] for row in found["failed"]):
        print(f"pruneviz: {reason}", file=sys.stderr)
    return 1 if found["failed"] else 0


# reproductions of papers


def _papers(arguments: argparse.Namespace) -> int:
    """Run one reproduction or all, or print what was recorded; several share one document."""
    from pruneviz.papers import PAPERS, recorded

    wanted = [PAPERS[arguments.name]] if arguments.name else list(PAPERS.values())
    carry_out = bool(arguments.name or arguments.quick or arguments.full)
    if arguments.record and not carry_out:
        raise InvalidSetting("--record keeps what a run finds: name a reproduction, or add --quick or --full.")
    found: dict[str, list[dict]] = {"claims": [], "tables": [], "budgets": []}
    failed = False
    for reproduction in wanted:
        if carry_out:
            try:
                document = _reproduce(reproduction, full=arguments.full, keep=arguments.record)
            except PrunevizError as error:
                print(f"pruneviz: {reproduction.key}: {error}", file=sys.stderr)
                failed = True
                continue
        elif (document := recorded(reproduction.key)) is None:
            continue
        for part in ("claims", "tables"):
            found[part] += [{"reproduction": reproduction.key, **row} for row in document[part]]
        found["budgets"].append({k: v for k, v in document.items() if k not in ("claims", "tables")})
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        terminal.papers(found)
    return 1 if failed else 0


def _reproduce(reproduction: Reproduction, *, full: bool, keep: bool) -> dict[str, Any]:
    import time

    from pruneviz.papers import document, record

    key, minutes = reproduction.key, reproduction.minutes[full]
    budget = "full" if full else "quick"
    print(f"{key}: {budget} budget, about {minutes:g} min on two CPU cores", file=sys.stderr)
    began = time.perf_counter()
    result = reproduction.run(full, lambda line: print(f"{key}: {line}", file=sys.stderr, flush=True))
    seconds = time.perf_counter() - began
    if keep:
        print(f"{key}: recorded in {record(key, result, full=full, seconds=seconds)}", file=sys.stderr)
    return document(key, result, full=full, seconds=seconds)


# serving


def _serve(arguments: argparse.Namespace) -> int:
    """Streamlit finds theme and settings by itself, in .streamlit/config.toml beside the app."""
    from pruneviz.ui.server import hosts

    options = {"server.address": arguments.host} | ({"server.port": arguments.port} if arguments.port else {})
    environment = os.environ | ({"PRUNEVIZ_SHARED": "1"} if arguments.shared else {})
    if arguments.allow_host:
        environment[hosts.ALLOWED] = ",".join(hosts.checked(arguments.allow_host))
    if arguments.store:
        environment["PRUNEVIZ_STORE"] = str(Path(arguments.store).resolve())
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    os.execve(sys.executable, [sys.executable, "-P", "-m", "streamlit", "run", str(APP), *flags], environment)


def _work(arguments: argparse.Namespace) -> int:
    from pruneviz.jobs import backend
    from pruneviz.store import Store

    return backend(Store(arguments.store, samples=None)).work(arguments.device)


# what leaves the store


def _report(arguments: argparse.Namespace) -> int:
    from pruneviz.figures import report
    from pruneviz.store import Store

    store = Store(arguments.store)
    try:
        page = report([store.run(id_) for id_ in arguments.runs], sparsity=arguments.sparsity, layer=arguments.layer)
    finally:
        store.close()
    try:
        Path(arguments.to).write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidSetting(
            f"The report cannot be written to {arguments.to} ({error.strerror}). Name a file in a folder that is there."
        ) from None
    print(arguments.to)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from pruneviz.store import Store

    for folder in Store(arguments.store).export(arguments.runs, arguments.to):
        print(folder)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from pruneviz.store import Store

    taken, kept = Store(arguments.store).take_in(arguments.folder, replace=arguments.replace)
    for id_ in taken:
        print(id_)
    for id_ in kept:
        print(f"pruneviz: {id_} is there already and was kept; --replace takes the imported one.", file=sys.stderr)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    import platform

    import torch

    from pruneviz.datasets import DATASETS
    from pruneviz.store import Store

    store = Store(arguments.store)
    devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    found = {
        "pruneviz": __version__, "python": platform.python_version(), "torch": torch.__version__, "devices": devices,
        "threads": torch.get_num_threads(), "data": {k: c.present for k, c in DATASETS.items()}, "store": str(store.path),
        "runs": store.runs()["state"].value_counts().to_dict(), "store_health": store.health(),
        "workers": [w["device"] for w in store.workers()],
    }  # fmt: skip
    store.close()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        terminal.table(("what", "found"), list(found.items()))
    return 0 if found["store_health"] == "ok" else 1


# arguments


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """The parser, and the names of its commands."""
    parser = argparse.ArgumentParser(prog="pruneviz", description="See what pruning methods do, side by side.")
    parser.add_argument("--version", action="version", version=f"pruneviz {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=does)
        return sub

    lists = {
        "methods": (_methods, "pruning methods"),
        "models": (_models, "networks"),
        "datasets": (_datasets, "data sets"),
    }
    for name, (does, what) in lists.items():
        command(name, does, f"list the {what}").add_argument("--json", action="store_true", help="print JSON")

    for name, does, text in (("run", _run, "one method"), ("compare", _compare, "several methods on one network")):
        sub = command(name, does, f"prune with {text}, train again and report the test accuracy")
        if name == "run":
            sub.add_argument("--method", required=True, help="pruning method")
        else:
            sub.add_argument("--methods", default="all", help="methods separated by commas, or all (default)")
        declare(sub)
        own.add_running(sub)
    own.declare(command)
    diff.declare(command)

    sub = command("papers", _papers, "reproduce what a paper claims; without a name, print what was recorded")
    sub.add_argument(
        "name", nargs="?", metavar="NAME", help="reproduction to run (default: all, with --quick or --full)"
    )
    budget = sub.add_mutually_exclusive_group()
    budget.add_argument("--quick", action="store_true", help="the small budget (default with a NAME)")
    budget.add_argument("--full", action="store_true", help="the budget of the paper, or the nearest that is sensible")
    sub.add_argument("--record", action="store_true", help="keep what is found as the recorded result")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = command("serve", _serve, "the dashboard; what pruneviz does without a command")
    sub.add_argument("--host", default="localhost", help="address to listen on (default localhost)")
    sub.add_argument("--port", type=int, help="port (default 8501, or the next that is free)")
    sub.add_argument("--shared", action="store_true", help="for a class: nobody deletes runs in the browser")
    sub.add_argument(
        "--allow-host", action="append", metavar="NAME",
        help="answer to this name too, e.g. pruning.example.org (may be repeated; addresses and this machine's own name pass)",
    )  # fmt: skip
    sub.add_argument("--store", help="store folder")
    sub = command("work", _work, "a worker without a browser")
    sub.add_argument("--device", help="cpu, cuda:0, mps (default: one worker for each device)")
    sub.add_argument("--store", help="store folder")
    sub = command("report", _report, "runs beside each other in one HTML file that opens anywhere")
    sub.add_argument("runs", nargs="+", metavar="RUN", help="one to six run ids")
    sub.add_argument("--to", required=True, metavar="FILE", help="file to write, e.g. report.html")
    sub.add_argument("--sparsity", type=float, help="what the figures show first (default 0.9)")
    sub.add_argument("--layer", help="what the figures show first (default: the layer with most weights)")
    sub.add_argument("--store", help="store folder")
    sub = command("export", _export, "copy finished runs as checksummed folders")
    sub.add_argument("runs", nargs="+", metavar="RUN", help="run ids")
    sub.add_argument("--to", required=True, metavar="DIR", help="folder to write to")
    sub.add_argument("--store", help="store folder")
    sub = command("import", _import, "take in exported runs")
    sub.add_argument("folder", metavar="DIR", help="folder that export made")
    sub.add_argument("--replace", action="store_true", help="take runs that the store has already, too")
    sub.add_argument("--store", help="store folder")
    sub = command("doctor", _doctor, "devices, versions, data found, store health")
    sub.add_argument("--store", help="store folder")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser, commands.choices
