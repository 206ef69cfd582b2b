"""What the switches of SNIP and GraSP change: each quirk of the authors' code against the paper's form, by kept weights.

For each setting the same initial networks are scored twice, as written in the papers and with the switch, and pruned to 90%.
Agreement is the overlap of the two sets of kept weights (Jaccard: common over all kept by either). Beside it stands what
chance gives two unrelated masks that keep as many weights of each layer at each of its inputs, and what another draw of the
samples gives: a switch that changes less than that hides in the noise of the draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table, Verdict

if TYPE_CHECKING:
    from torch import nn

    from pruneviz.datasets.base import Splits
    from pruneviz.units.masks import Mask, Scores

SPARSITY = 0.9
SEEDS = (5, 20)  # quick, full
ENOUGH = 5  # seeds below which a claim stays open
COMMAND = "python -m pruneviz papers switches"
LENET, CONV = "lenet-300-100", "conv-bn"

Rule = Literal["same", "near", "another", "chance", "less than a draw", "more than a draw"]
SAYS: Mapping[Rule, str] = {
    "same": "the same mask (agreement at least 0.999)",
    "near": "nearly the same order (rank correlation at least 0.99, agreement at least 0.9)",
    "another": "another mask (agreement below 0.999 in every seed)",
    "chance": "agreement at most 0.05 above chance",
    "less than a draw": "changes less than another draw of the samples, seed by seed",
    "more than a draw": "changes more than another draw of the samples, seed by seed",
}


@dataclass(frozen=True)
class Setting:
    """A switch at a value, compared with ``against``; ``rules``: network -> what is expected, where anything is."""

    method: str
    switch: str
    value: Any
    rules: Mapping[str, Rule] = field(default_factory=dict)
    against: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""

    @property
    def params(self) -> dict[str, Any]:
        return {**self.against, **({} if self.switch == "samples" else {self.switch: self.value})}


def _both(rule: Rule) -> dict[str, Rule]:
    return {LENET: rule, CONV: rule}


ONLY_NORMALISED: dict[str, Rule] = {LENET: "same", CONV: "more than a draw"}
SPLIT: dict[str, Rule] = {LENET: "same", CONV: "another"}
SETTINGS = (
    Setting("snip", "samples", "another draw", because="the noise of the draw, which the others are measured by"),
    Setting("snip", "batches", 2, because="more samples, the default's among them"),
    Setting("snip", "batches", 10, because="more samples, the default's among them"),
    Setting("snip", "score_init", "fresh", _both("chance"), because="a mask of other weights says nothing of these"),
    Setting("snip", "include_bias", True, _both("less than a draw"), because="biases begin at zero, and score zero"),
    Setting("snip", "bn_mode", "eval", ONLY_NORMALISED, because="only normalisation knows the mode"),
    Setting("grasp", "samples", "another draw", because="the noise of the draw, which the others are measured by"),
    Setting("grasp", "temperature", 20.0, _both("near"), because="a flat softmax: the temperature is a common factor"),
    Setting("grasp", "temperature", 2000.0, _both("near"), because="a flat softmax: the temperature is a common factor"),
    Setting("grasp", "temperature", 1.0, _both("another"), because="the softmax is no longer flat"),
    Setting("grasp", "per_class", 5, because="half of the default's samples"),
    Setting("grasp", "per_class", 50, because="more samples, the default's among them"),
    Setting("grasp", "split", "by-class", _both("same"), because="without batch statistics all scores grow fourfold"),
    Setting("grasp", "split", "by-class", SPLIT, {"bn_mode": "train"}, because="each half has its own batch statistics"),
    Setting("grasp", "reinit_classifier", True, _both("more than a draw"), because="all gradients come through the last layer"),
    Setting("grasp", "bn_mode", "train", ONLY_NORMALISED, because="only normalisation knows the mode"),
)  # fmt: skip


def network(name: str, data: Splits, seed: int) -> nn.Module:
    """LeNet-300-100, or two convolutions of 16 and 32 filters with batch normalisation, ReLU and max-pool, and a dense layer."""
    from torch import nn

    from pruneviz.curvature.task import generator_for
    from pruneviz.models import build
    from pruneviz.models._torch.initialisation import initialise_

    if name == LENET:
        return build(LENET, data, seed=seed)
    channels, rows, columns = data.shape
    model = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (rows // 4) * (columns // 4), len(data.classes)),
    )  # fmt: skip
    return initialise_(model, generator_for(seed, "initial weights"))


def scored(
    model: nn.Module, data: Splits, method: str, params: Mapping[str, Any], seed: int, draw: str
) -> tuple[Scores, Mask]:
    """Scores and mask as a run of this seed has them; ``draw`` is what its samples' generator is for ("score" in a run)."""
    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.methods import method_class
    from pruneviz.units.choice import select
    from pruneviz.units.masks import Mask

    made = method_class(method).from_params(dict(params))
    generator = generator_for(seed, draw)
    batches = list(made.draw(data.train, generator))
    mask = Mask.full(model, made.prunable(model))
    scores = made.score(model, Task(lambda: batches, generator), mask)
    return scores, select(scores, mask, SPARSITY)


def agreement(a: Mask, b: Mask) -> float:
    """Weights that both keep over weights that either keeps, in the parameters that both prune."""
    names = [name for name in a if name in b]
    both = sum(int((a[name] & b[name]).sum()) for name in names)
    return both / sum(int((a[name] | b[name]).sum()) for name in names)


def chance(a: Mask, b: Mask) -> float:
    """The agreement to be expected of unrelated masks that keep as many weights of each layer at each of its inputs."""
    names = [name for name in a if name in b]
    both = kept = 0.0
    for name in names:
        p, q = (m[name].double().mean(0) for m in (a, b))  # [in, ...]: the share of outputs that keep each input
        both += len(a[name]) * float((p * q).sum())
        kept += float(a[name].sum() + b[name].sum())
    return both / (kept - both)


def rank_correlation(a: Scores, b: Scores) -> float:
    """Spearman's, over the weights that both score; ties have their mean rank."""
    import numpy as np
    import pandas as pd

    def ranks(of: Scores, other: Scores) -> Any:
        values = [v.cpu().double().numpy() for group, v in of.values.items() if group in other.values]
        return pd.Series(np.concatenate(values)).rank().to_numpy()

    return float(np.corrcoef(ranks(a, b), ranks(b, a))[0, 1])


def measure(progress: Say, seeds: int = SEEDS[0]) -> list[dict[str, Any]]:
    """Every setting on both networks, digits, 90% removed.

    A row: network, method, switch, value, against, seeds; medians over seeds of agreement (with low and high), chance, rank
    (correlation of the scores) and biases (share of them removed, None where they stay); ``above`` (the agreement's excess
    over chance, highest); ``expected`` in words, and whether it ``holds`` (None where nothing is expected).
    """
    import torch

    from pruneviz.datasets import load

    data, rows = load("digits"), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in (LENET, CONV):
            models = [network(name, data, seed) for seed in range(seeds)]
            plain: dict[tuple[str, str, int], tuple[Scores, Mask]] = {}  # what several settings are compared with
            draws: dict[str, list[float]] = {}  # method -> agreement of another draw, seed by seed
            for setting in SETTINGS:
                progress(f"{name}: {setting.method} {setting.switch}={setting.value}")
                row, agreements = _row(setting, name, data, models, draws.get(setting.method, []), plain)
                if setting.switch == "samples":
                    draws[setting.method] = agreements
                rows.append(row)
    finally:
        torch.set_num_threads(threads)
    return rows


def _row(
    setting: Setting,
    name: str,
    data: Splits,
    models: list[nn.Module],
    draws: list[float],
    plain: dict[tuple[str, str, int], tuple[Scores, Mask]],
) -> tuple[dict[str, Any], list[float]]:
    agreements, chances, ranks, biases = [], [], [], []
    draw = "another draw" if setting.switch == "samples" else "score"
    for seed, model in enumerate(models):
        key = (setting.method, str(setting.against), seed)
        if key not in plain:
            plain[key] = scored(model, data, setting.method, setting.against, seed, "score")
        s, m = plain[key]
        s_switched, m_switched = scored(model, data, setting.method, setting.params, seed, draw)
        agreements.append(agreement(m, m_switched))
        chances.append(chance(m, m_switched))
        ranks.append(rank_correlation(s, s_switched))
        gone = {n: int((~k).sum()) for n, k in m_switched.items() if n.endswith("bias")}
        if gone:
            biases.append(sum(gone.values()) / sum(m_switched[n].numel() for n in gone))
    rule = setting.rules.get(name)
    row = {
        "network": name,
        "method": setting.method,
        "switch": setting.switch,
        "value": setting.value,
        "against": ", ".join(f"{k}={v}" for k, v in setting.against.items()) or "defaults",
        "seeds": len(models),
        "agreement": median(agreements),
        "low": min(agreements),
        "high": max(agreements),
        "chance": median(chances),
        "above": max(a - c for a, c in zip(agreements, chances, strict=True)),
        "rank": median(ranks),
        "biases": median(biases) if biases else None,
        "expected": f"{SAYS[rule]}: {setting.because}" if rule else f"no figure: {setting.because}",
        "holds": _holds(rule, agreements, chances, ranks, draws) if rule else None,
    }
    return row, agreements


def _holds(rule: Rule, agreements: list[float], chances: list[float], ranks: list[float], draws: list[float]) -> bool:
    match rule:
        case "same":
            return min(agreements) >= 0.999
        case "near":
            return min(ranks) >= 0.99 and min(agreements) >= 0.9
        case "another":
            return max(agreements) < 0.999
        case "chance":
            return max(a - c for a, c in zip(agreements, chances, strict=True)) <= 0.05
        case "less than a draw":
            return all(a > d for a, d in zip(agreements, draws, strict=True))
        case "more than a draw":
            return all(a < d for a, d in zip(agreements, draws, strict=True))


def claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """What the rows say of each switch: it holds where every row of it meets its expectation.

    ``ours``, ``low`` and ``high`` are agreements (of the conv net alone where only normalisation matters), for biases shares.
    """

    def of(method: str, switch: str, *networks: str, against: str = "defaults") -> list[dict[str, Any]]:
        wanted = (method, switch, against)
        return [
            r
            for r in rows
            if (r["method"], r["switch"], r["against"]) == wanted and r["network"] in (networks or (LENET, CONV))
        ]

    def claim(key: str, text: str, judged: list[dict[str, Any]], shown: list[dict[str, Any]]) -> Claim:
        seeds = judged[0]["seeds"]
        ours, low, high = (
            median(r["agreement"] for r in shown),
            min(r["low"] for r in shown),
            max(r["high"] for r in shown),
        )
        verdict = _verdict(all(r["holds"] for r in judged), seeds)
        return Claim(key, text, ours, None, low, high, seeds, verdict, COMMAND)

    fresh, biased, classifier = of("snip", "score_init"), of("snip", "include_bias"), of("grasp", "reinit_classifier")
    temperature = {value: [r for r in of("grasp", "temperature") if r["value"] == value] for value in (1, 20, 2000)}
    split, split_train = of("grasp", "split"), of("grasp", "split", against="bn_mode=train")
    removed = [r["biases"] for r in biased]
    seeds, by_chance = biased[0]["seeds"], median(r["chance"] for r in fresh)
    normalised = "matters only with normalisation, and there more than another draw of the samples (agreement there)"
    return (
        claim(
            "snip-fresh",
            f"SNIP score_init=fresh: the mask agrees with the trained network's own no more than by chance ({by_chance:.2f})",
            fresh, fresh,
        ),
        Claim(
            "snip-biases",
            "SNIP include_bias=true: biases begin at zero, score zero and are the first to go (share of them removed)",
            median(removed), None, min(removed), max(removed), seeds, _verdict(min(removed) == 1, seeds), COMMAND,
        ),
        claim(
            "snip-bias-mask",
            "SNIP include_bias=true: the choice among weights changes less than by another draw of the samples",
            biased, biased,
        ),
        claim("snip-bn-mode", f"SNIP bn_mode {normalised}", of("snip", "bn_mode"), of("snip", "bn_mode", CONV)),
        claim(
            "grasp-temperature",
            "GraSP temperature: at 2000 the order of the scores is nearly that at 200, at 1 it is another (agreement of 2000)",
            temperature[2000] + temperature[1], temperature[2000],
        ),
        claim(
            "grasp-temperature-20",
            "GraSP temperature: at 20 the order of the scores is still nearly that at 200",
            temperature[20], temperature[20],
        ),
        claim(
            "grasp-split",
            "GraSP split=by-class changes nothing without batch statistics (agreement there), and the mask with them",
            split + split_train, split,
        ),
        claim("grasp-bn-mode", f"GraSP bn_mode {normalised}", of("grasp", "bn_mode"), of("grasp", "bn_mode", CONV)),
        claim(
            "grasp-classifier",
            "GraSP reinit_classifier=true changes the mask more than another draw of the samples",
            classifier, classifier,
        ),
    )  # fmt: skip


def _verdict(holds: bool, seeds: int) -> Verdict:
    if seeds < ENOUGH:
        return "open"
    return "holds" if holds else "does not hold"


def table(rows: list[dict[str, Any]]) -> Table:
    """All rows."""
    names = ("network", "method", "switch", "value", "against", "agreement", "low", "high", "chance", "rank", "biases")

    def cell(value: Any) -> Any:
        return round(value, 3) if isinstance(value, float) and not isinstance(value, bool) else value

    def holds(row: dict[str, Any]) -> str:
        return {True: "yes", False: "no", None: "–"}[row["holds"]]

    return Table(
        "switches",
        "Each switch against the defaults: overlap of the weights kept at 90%",
        (*names, "expected", "holds"),
        tuple((*(cell(str(r[n]) if n == "value" else r[n]) for n in names), r["expected"], holds(r)) for r in rows),
        "Agreement: kept by both over kept by either, median, lowest and highest over seeds. Chance: of unrelated masks that keep as "
        "many weights of each layer at each of its inputs. Rank: Spearman's correlation of the scores. Biases: share removed.",
    )  # fmt: skip


def run(full: bool, say: Say) -> Result:
    """Both networks, all settings, on the CPU."""
    rows = measure(say, SEEDS[full])
    return Result(claims(rows), (table(rows),))


PAPER = Reproduction(
    key="switches",
    title="The switches of SNIP and GraSP",
    question="The authors' code of SNIP and GraSP departs from their papers. Which of the departures change what is pruned?",
    paper=None,
    data=("digits",),
    minutes=(1, 4),
    run=run,
)
