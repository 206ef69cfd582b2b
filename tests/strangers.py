"""Stores and samples with runs that this program cannot know, and with some that nobody can read."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from handmade import HandMade, run
from handmasks import with_masks

from pruneviz.basics.events import Arrays, Done, Metric
from pruneviz.plan.config import RunConfig
from pruneviz.store import Store

LINKS = '<a href="http://evil.example">a</a> [b](http://evil.example) http://evil.example **c** $d$'
PAPER = {
    "key": "x", "authors": "", "title": LINKS, "year": 2031, "venue": LINKS, "url": "javascript:alert(1)", "section": LINKS,
}  # fmt: skip
WORDS: dict[str, Any] = {
    "method": LINKS, "idea": LINKS, "unit": "galaxy", "removes": LINKS, "colour": "red;}", "mark": "no-such-mark", "place": 3,
    "usual": "init", "predicts": True, "paper": PAPER, "departures": ["power 9 instead of 8"], "changes": [f"power 9: {LINKS}"],
    "network": LINKS, "layers": LINKS, "loss": "surprise", "data": LINKS, "sizes": [3, 2, 1], "shape": [2], "classes": [LINKS],
}  # fmt: skip


def kept(store: Store, made: HandMade) -> str:
    """Record a hand-made run as a worker does; returns its id."""
    (id_,) = store.queue([made.config])
    attempt = store.claim(id_, device="cpu", worker=1, code="pruneviz")
    assert attempt is not None
    for row in made.metrics.itertuples(index=False):
        store.record(Metric(id_, row.sparsity, row.stage, row.split, row.metric, row.value), attempt)
    for name, (arrays, layers) in made.probes.items():
        store.record(Arrays(id_, name, arrays, {"layers": "\n".join(layers)}), attempt)
    store.record(Done(id_), attempt)
    return id_


def estranged(folder: Path, method: str) -> Path:
    """An exported run made one of a method, a network and data that nobody here knows, with words that would be links."""
    content = json.loads((folder / "run.json").read_text())
    keys = {"method": method, "model": "own-net", "dataset": "own-data", "seed": content["config"]["seed"]}
    identity = {"given": keys, "data": "0" * 64, "schemas": [1, 2, 3]}
    text = json.dumps(keys, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256("\n".join([text, identity["data"], str((1, 2, 3))]).encode()).hexdigest()[:12]
    content |= {"id": f"{method}-own-net-own-data-{digest}", "about": WORDS, "identity": identity}
    content["config"] |= keys | {"frobnicate": [1, 2], "params": {"power": 9}}
    content["row"]["warnings"] = json.dumps([LINKS])
    target = folder.with_name(content["id"])
    folder.rename(target)
    (target / "run.json").write_text(json.dumps(content))
    return target


def strange(**settings: Any) -> HandMade:
    """A run with every array, whose first layer has the name of a link."""
    made = with_masks(run("obd", **settings))
    for name, (arrays, layers) in made.probes.items():
        made.probes[name] = arrays, [f'<a href="http://evil.example">{layers[0]}', *layers[1:]]
    return made


def cut(path: Path) -> None:
    """Half a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    """As long as it was, and no array left in it."""
    path.write_bytes(b"x" * path.stat().st_size)


def furnish(place: Path) -> tuple[Path, Path]:
    """A store and samples under a folder, each with known runs and a stranger; returns where they are."""
    scratch = Store(place / "scratch", samples=None)
    known = [kept(scratch, with_masks(run(method))) for method in ("random", "snip", "magnitude")]
    strangers = [kept(scratch, strange(seed=seed)) for seed in (7, 8)]
    folders = scratch.export([*known, *strangers], place / "out")
    scratch.close()
    samples = place / "samples"
    for folder in [*folders[:2], estranged(folders[3], "sparse-magic")]:
        shutil.move(folder, samples / folder.name)
    store = Store(place / "store", samples=samples)
    store.take_in(estranged(folders[4], "dense-magic"))
    store.take_in(folders[2])
    store.close()
    return place / "store", samples


def waiting(store: Store) -> str:
    """A run that is queued under a sample's id."""
    (id_,) = store.queue([RunConfig(method="snip", sparsities=run().config.sparsities)])
    return id_
