"""EigenDamage, Kron-OBS, Kron-OBD and L1 filters at equal weights removed, before any training: in which order do they stand?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from pruneviz.methods import METHODS
from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table

COMMAND = "python -m pruneviz papers eigendamage --full"
SPARSITIES = (0.25, 0.5, 0.75)
SAMPLES = 2000  # training images for the factors, exact Fisher
SEEDS = (0, 1, 2)
BATCH = 128
L1, OBD, OBS = "L1 per layer", "Kron-OBD", "Kron-OBS"
CORE, CHANNELS = "EigenDamage, cores counted, patches", "EigenDamage, cores counted, channels"
WHOLE, WHOLE_CHANNELS = "EigenDamage, all counted, patches", "EigenDamage, all counted, channels"
EXACT = {"fisher": "exact"}
METHODS_RUN: Mapping[str, tuple[str, dict[str, Any]]] = {
    L1: ("l1-filters", {}),
    OBD: ("kron-obd", EXACT),
    OBS: ("kron-obs", EXACT),
    CORE: ("eigendamage", {**EXACT, "count": "core", "basis": "patches"}),
    CHANNELS: ("eigendamage", {**EXACT, "count": "core"}),
    WHOLE: ("eigendamage", {**EXACT, "basis": "patches"}),
    WHOLE_CHANNELS: ("eigendamage", EXACT),
}
# network, width, epochs: each trains here in minutes
NETWORKS = (("lenet-5-caffe", 1.0, 2), ("conv-4", 0.25, 1), ("vgg-16", 0.125, 2), ("resnet-20", 0.5, 1))
FIRST = ("mnist", *NETWORKS[0])


def measure(cases: Sequence[tuple[str, str, float, int]], seeds: tuple[int, ...], say: Say) -> list[dict[str, Any]]:
    """A row for each data set, network, seed, method and sparsity: test loss and accuracy right after pruning (None where the
    sparsity cannot be reached, with the most that can), the sparsity reached, and the smaller network's parameters."""
    import pruneviz as pv
    from pruneviz.models import MODELS
    from pruneviz.plan.recipe import Training
    from pruneviz.run.loop import default_device
    from pruneviz.run.training import evaluate

    device, rows = default_device(), []
    for dataset, network, width, epochs in cases:
        data = pv.load(dataset).to(device)
        budget = Training(epochs=epochs, **{**MODELS[network].budget, "batch_size": BATCH})
        for seed in seeds:
            say(f"{network} on {dataset}, seed {seed}: training for {epochs} epochs")
            model = pv.build(network, data, seed=seed, width=width).to(device)
            pv.train(model, data, seed=seed, **budget.model_dump())
            dense = evaluate(model, *data.test)
            about = {"data": dataset, "network": network, "width": width, "seed": seed}
            about |= {"dense_loss": dense["loss"], "dense_accuracy": dense["accuracy"]}
            for name, found in _pruned(model, data, seed, say).items():
                rows += [{**about, "method": name, "sparsity": s, **after} for s, after in found.items()]
    return rows


def _pruned(model: Any, data: Any, seed: int, say: Say) -> dict[str, dict[float, dict[str, Any]]]:
    """Method -> sparsity -> what is left on the test set. The factors are computed once for all methods."""
    from copy import deepcopy

    from pruneviz.basics.errors import Unreachable
    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.methods import method_class
    from pruneviz.methods.base import drawn
    from pruneviz.run.statistics import Statistics
    from pruneviz.run.step import remove, spending
    from pruneviz.run.training import evaluate

    batches = drawn(data.train, SAMPLES, generator_for(seed, "factors"))
    statistics, found = Statistics(), {}
    for name, (key, params) in METHODS_RUN.items():
        say(f"  {name}")
        method = method_class(key).from_params(params)
        task = Task(
            lambda: batches, generator_for(seed, "score"), scope=method.card.scope, statistics=statistics,
            device=data.train[0].device,
        )  # fmt: skip
        base = method.frame(deepcopy(model), task)
        full = method.full(base, task)
        scores = method.score(base, task, full)
        found[name] = {}
        for s in SPARSITIES:
            network = deepcopy(base)
            try:
                mask = remove(method, network, task, scores, full, s)
            except Unreachable as beyond:
                found[name][s] = {"loss": None, "accuracy": None, "reached": None, "most": beyond.most}
                continue
            spent = spending(network, data.train[0][:1], mask)
            after = evaluate(network, *data.test)
            found[name][s] = {**after, "reached": mask.sparsity, "parameters": spent.parameters}
    return found


def claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """The paper's order on LeNet-5 and MNIST, by the median test loss, stated before the runs were looked at."""
    dataset, network = FIRST[:2]
    first = [r for r in rows if (r["data"], r["network"]) == (dataset, network)]
    loss = {(r["method"], r["sparsity"], r["seed"]): r["loss"] for r in first}
    seeds = sorted({r["seed"] for r in first})
    found = []

    def claim(s: float, key: str, text: str, worse: str, better: str, *, strictly: bool) -> None:
        gaps = [loss[worse, s, seed] - loss[better, s, seed] for seed in seeds]
        gap = median(loss[worse, s, seed] for seed in seeds) - median(loss[better, s, seed] for seed in seeds)
        holds = gap > 0 if strictly else gap >= 0
        where = f"LeNet-5 on MNIST, {100 * s:.0f}% of the weights removed, nothing trained after: "
        found.append(Claim.over(f"{key}-{100 * s:.0f}", where + text, gaps, holds=holds, command=COMMAND))

    for s in (0.5, 0.75):
        claim(s, "eigen-obs", "EigenDamage (cores counted, patches) has a test loss no higher than Kron-OBS (the gap, nats)",
              OBS, CORE, strictly=False)  # fmt: skip
        claim(s, "obs-obd", "Kron-OBS has a lower test loss than Kron-OBD (the gap, nats)", OBD, OBS, strictly=True)
        claim(s, "obd-l1", "Kron-OBD has a lower test loss than L1 filters, one ratio for all layers (the gap, nats)",
              L1, OBD, strictly=True)  # fmt: skip
        claim(s, "counted-above-obs", "With its rotations counted, EigenDamage (patches) has a higher test loss than Kron-OBS "
              "(the gap, nats)", WHOLE, OBS, strictly=True)  # fmt: skip
        claim(s, "counted-below-obd", "With its rotations counted, EigenDamage (patches) has a lower test loss than Kron-OBD "
              "(the gap, nats)", OBD, WHOLE, strictly=True)  # fmt: skip
    return tuple(found)


def tables(rows: list[dict[str, Any]]) -> tuple[Table, ...]:
    """Median test loss and accuracy by data set and network, a row for each sparsity."""
    cases = list(dict.fromkeys((r["data"], r["network"], r["width"]) for r in rows))

    def table(key: str, title: str, what: str, note: str) -> Table:
        lines = []
        for dataset, network, width in cases:
            here = [r for r in rows if (r["data"], r["network"], r["width"]) == (dataset, network, width)]
            dense = round(median(r[f"dense_{what}"] for r in here), 4)
            name = network if width == 1 else f"{network}, width {width:g}"
            for s in SPARSITIES:
                cells = []
                for method in METHODS_RUN:
                    values = [r[what] for r in here if r["method"] == method and r["sparsity"] == s]
                    cells.append(None if None in values else round(median(values), 4))
                lines.append((dataset, name, 100 * s, dense, *cells))
        return Table(key, title, ("data", "network", "removed (%)", "dense", *METHODS_RUN), tuple(lines), note)

    most = [
        (d, n, method, round(100 * max(r["most"] for r in out), 1))
        for d, n, _ in cases
        for method in METHODS_RUN
        if (out := [r for r in rows if (r["data"], r["network"], r["method"]) == (d, n, method) and r.get("most")])
    ]
    return (
        table(
            "loss",
            "Test loss (nats) right after pruning, median over seeds",
            "loss",
            f"Equal weights removed, no training afterwards; factors from {SAMPLES:,} training images, exact Fisher. Empty: cannot "
            "be reached by removing whole units. Cores counted: EigenDamage's rotations are left out of the count, as in the "
            "paper; all counted: what the smaller network really has. Where Kron-OBD stands above L1 filters (conv-4): ranked over "
            "all layers it empties the first convolutions, whose filters are cheap one by one and not together; ranked layer by "
            "layer (scope=layer, one seed tried) it is below again.",
        ),
        table(
            "accuracy",
            "Test accuracy right after pruning, median over seeds",
            "accuracy",
            "A fraction of the test set.",
        ),
        Table(
            "most",
            "The most that can be removed, where a sparsity could not be reached",
            ("data", "network", "method", "removed at most (%)"),
            tuple(most),
            "Residual sums keep their channels, at most 95% of a layer's units leave, and rotations take weights of their own.",
        ),
    )


def run(full: bool, say: Say) -> Result:
    """Quick: LeNet-5 on MNIST, three seeds. Full: four networks on MNIST and Fashion-MNIST."""
    from pruneviz.run.loop import default_device

    cases = [(dataset, *network) for dataset in ("mnist", "fashion-mnist") for network in NETWORKS] if full else [FIRST]
    rows = measure(cases, SEEDS, say)
    return Result(claims(rows), tables(rows), str(default_device()))


PAPER = Reproduction(
    "eigendamage",
    "Directions, filters that move, filters",
    "At equal weights removed and before any training, does cutting directions cost less than removing filters, and what do the "
    "rotations cost?",
    METHODS["eigendamage"].paper,
    ("mnist", "fashion-mnist"),
    (5, 70),
    run,
)
