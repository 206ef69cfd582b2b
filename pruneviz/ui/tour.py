"""The guided tour's five steps: what each says, which sample runs show it, and what is to be seen, counted from those runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from pruneviz.basics.places import SAMPLES
from pruneviz.figures import base
from pruneviz.methods.base import Start
from pruneviz.records.arrays import Change
from pruneviz.records.metrics import ACCURACY, EPOCHS, TEST
from pruneviz.records.stages import MEASURED, Stage
from pruneviz.store.samples import Samples

if TYPE_CHECKING:
    from pruneviz.store import Run

MODEL = "lenet-300-100"
SIZE = 0.5  # of the second input: small enough that the larger weight matters less


@dataclass(frozen=True)
class Step:
    """A heading, at most about sixty words, a figure with a caption of its own, and the page that shows it in full."""

    title: str
    text: str
    figure: str
    caption: str
    page: str


STYLE = """<style>
[data-testid="stLayoutWrapper"]:has(> .st-key-tour-move) {
  position: sticky; bottom: 0; z-index: 5; padding: .6rem 0; background: light-dark(#ffffff, #11151c);
  border-top: 1px solid light-dark(#d5dbe6, #343e50);
}
</style>"""
STEPS = (
    Step(
        "Most weights can go",
        "A neural network is a long list of numbers, its **weights**. This one reads handwritten digits. **Pruning** sets "
        "weights to zero for good. Here the smallest leave, a share in each of five rounds, and those that stay train again. "
        "The share removed is the **sparsity**; the share of unseen digits read rightly is the **accuracy**.",
        "curves",
        "Counted: the share of unseen digits read rightly, on average over networks trained from different first weights; the "
        "band reaches from the worst to the best. Dashed: the whole network.",
        "pages/curves.py",
    ),
    Step(
        "Which weights leave?",
        "A pruning method gives each weight a **score**, a guess of what it is worth. The simplest is its size: the number "
        "without its sign. Line the weights up by their score and choose how many shall leave: all those left of the dashed "
        "line. Removing weights **at random** is the test that every score has to pass.",
        "saliency",
        "Counted: weights of the largest layer by their size. Light: removed; solid: kept; dashed: the line.",
        "pages/saliency.py",
    ),
    Step(
        "Is the score right?",
        "Remove **one** weight, measure how the **loss** changes (how wrong the network is), put it back: a dot. **OBD**, "
        "Optimal Brain Damage, weighs size by **curvature**: how sharply the loss bends when that weight moves. Order the dots "
        "by score and by real change: the **rank correlation** is 1 if both orders agree, 0 if they have nothing in common.",
        "change",
        "Across: the score. Up: how much the loss really rose, or fell, once this one weight was removed. Both axes are "
        "logarithmic on each side of 0. With its size: how well the order fits where a fall counts like a rise.",
        "pages/saliency.py",
    ),
    Step(
        "The survivors can help",
        "One neuron (it weighs its inputs and adds them up) with **two weights**. The shading is its loss; training ended at "
        "the star, in the valley. Removing a weight means going to a dotted line. OBD goes straight there. **OBS**, Optimal "
        "Brain Surgeon, moves the other weight too, to make up for the lost one. Let the two inputs go together, or not.",
        "two-weights",
        "Counted: the loss of one neuron on 400 samples; the more shaded, the higher. Beside it, how far each method climbs, and "
        "how far it had foretold. Magnitude removes the smaller weight, and foretells nothing.",
        "pages/methods.py",
    ),
    Step(
        "So OBS beats OBD here",
        "Back to a real network, 300 and 100 neurons on larger digits. It is pruned **in one shot** and never trains again, so "
        "all we see is the choice. OBD prices each weight as if it left alone, then removes all at once. OBS removes one, "
        "moves the others, prices them anew, removes the next.",
        "curves",
        "Counted right after pruning, before any training; the band reaches from the worst to the best of the networks. Dashed: "
        "the whole network.",
        "pages/curves.py",
    ),
)  # fmt: skip


@cache
def samples() -> Samples:
    """The sample runs, whatever else is in the store."""
    return Samples(SAMPLES)


def runs(known: Mapping[str, Run], step: int) -> list[Run]:
    """Those of the known runs that a step shows (numbered from 1), seed by seed; empty where it needs none, or some are missing."""
    match step:
        case 1:
            return _found(known, "digits", "magnitude")
        case 2:
            size, chance = (_found(known, "mnist", method) for method in ("magnitude", "random"))
            there = [_found(known, "digits", method) for method in ("magnitude", "random")]
            parts = [size, *([size, chance] if chance else there)]
            return [part[0] for part in parts] if all(parts) else []
        case 3:
            parts = [_found(known, "mnist", method) for method in ("magnitude", "obd")]
            return (
                [run for part in parts for run in part if Change.name(stage=Stage.START) in run.files]
                if all(parts)
                else []
            )
        case 5:
            parts = [_found(known, "mnist", method) for method in ("magnitude", "obd", "obs")]
            return [run for part in parts for run in part] if all(parts) else []
    return []


def _found(known: Mapping[str, Run], dataset: str, method: str) -> list[Run]:
    """Runs of the tour's network that start from trained weights, by seed; on MNIST those that never train again."""
    wanted = (MODEL, dataset, method, Start.TRAINED)
    found = [r for r in known.values() if (r.config.model, r.config.dataset, r.config.method, r.config.start) == wanted]
    return sorted(
        (run for run in found if (run.config.tune.epochs == 0) == (dataset == "mnist")), key=lambda run: run.config.seed
    )


def few(found: Sequence[Run]) -> str:
    """The runs of the first seed, as an address names them: the pages add their other seeds by themselves."""
    first = min((run.config.seed for run in found), default=0)
    return ",".join(run.id for run in found if run.config.seed == first)


def stages(asked: str | Sequence[str]) -> list[str]:
    """The stages as the Curves page names them in its address."""
    said: dict[str, str] = dict(
        zip(MEASURED, ("by zeroing only", "after pruning, before training", "after training"), strict=True)
    )
    return [said[stage] for stage in ([asked] if isinstance(asked, str) else asked)]


def at(run: Run, stage: str, sparsity: float, metric: str = ACCURACY, split: str = TEST) -> float:
    """One recorded number of a run."""
    m = run.metrics
    picked = m.loc[
        (m["stage"] == stage) & (m["sparsity"] == sparsity) & (m["metric"] == metric) & (m["split"] == split)
    ]
    return float(picked["value"].iloc[0])


# what to see


def most_can_go(table: pd.DataFrame, weights: int) -> str:
    """Step 1, from the figure's table: the highest sparsity within a point of the whole network, and the last one."""
    dense = table.loc[table["stage"] == Stage.DENSE, "mean"].mean()
    lines = table.loc[table["stage"] != Stage.DENSE].sort_values("sparsity")
    near = lines.loc[lines["mean"] >= dense - 0.01]
    kept, last = near.iloc[-1] if len(near) else lines.iloc[0], lines.iloc[-1]
    return (
        f"The whole network, {weights:,} weights, reads {_share(dense)} of unseen digits rightly. With "
        f"**{base.percent(kept['sparsity'])} of them gone** it reads {_share(kept['mean'])}. Only far to the right does it lose: "
        f"{_share(last['mean'])} at {base.percent(last['sparsity'])}."
    )


def which_leave(table: pd.DataFrame, found: Sequence[Run], sparsity: float) -> str:
    """Step 2: where the line stands in the drawn layer; then the same share removed by size and at random."""
    panel, (drawn, size, chance) = table.iloc[0], found
    gone = int(panel["size"] - panel["alive"])
    by_size, by_chance = (_share(at(run, Stage.TUNED, sparsity)) for run in (size, chance))
    spent = [f"{at(run, Stage.TUNED, sparsity, EPOCHS, ''):.0f}" for run in (size, chance)]
    which = "The" if drawn is size else "On the small digits of step 1, trained again, the"
    fair = (
        f" (By size saw the data {spent[0]} times in all, at random {spent[1]} times.)" if spent[0] != spent[1] else ""
    )
    return (
        f"With {base.percent(sparsity)} to leave, the line stands at {base.number(panel['threshold'])}: {gone:,} of this "
        f"layer's {int(panel['size']):,} weights are below. {which} network pruned by size reads **{by_size}** rightly, pruned "
        f"at random **{by_chance}**.{fair}"
    )


def score_is_right(table: pd.DataFrame) -> str:
    """Step 3, from the figure's table of magnitude and OBD."""
    by_method = dict(list(table.groupby("method", sort=False)))
    size, obd = by_method["magnitude"], by_method["obd"]
    fell = sum(value < 0 for value in obd["measured"]) / len(obd)
    return (
        f"**How much** the loss changes, OBD foretells almost in order: {obd['sizes'].iloc[0]:.2f}, size alone "
        f"{size['sizes'].iloc[0]:.2f}. **Which way**, neither knows: {base.percent(fell)} of these removals lower the loss, "
        "since training stopped a little short of the valley's floor."
    )


def survivors_help(table: pd.DataFrame) -> str:
    """Step 4, from the two-weight figure's table."""
    removals = table.loc[table["kind"] == "removal"]
    ends: dict[str, float] = dict(zip(removals["method"], removals["real"], strict=True))
    saved = 1 - ends["obs"] / ends["obd"]
    climbs = f"OBD climbs by {ends['obd']:.3f}, OBS by {ends['obs']:.3f}"
    if saved < 0.05:
        return f"{climbs}: no gain. These inputs have little to do with each other, so one weight cannot stand in for the other."
    return f"{climbs}, **{base.percent(saved)} less**: the more the inputs go together, the better the other weight stands in."


def surgeon_wins(found: Sequence[Run], metric: str, unmoved: bool) -> str:
    """Step 5: OBS, magnitude and OBD at one sparsity, seed by seed."""

    def values(method: str, stage: str = Stage.PRUNED) -> list[float]:
        return [at(run, stage, base.SPARSITY, metric) for run in found if run.config.method == method]

    def mean(found: Sequence[float]) -> str:
        value = sum(found) / len(found)
        return _share(value) if metric == ACCURACY else base.number(value)

    def better(one: float, other: float) -> bool:
        return one > other if metric == ACCURACY else one < other

    obs, obd, size = map(values, ("obs", "obd", "magnitude"))
    ahead = sum(better(*pair) for pair in zip(obs, obd, strict=True))
    said = (
        f"With {base.percent(base.SPARSITY)} gone: **OBS {mean(obs)}**, OBD {mean(obd)}, size alone {mean(size)}. OBS is ahead "
        f"of OBD in {ahead} of {len(obs)} networks."
    )
    if better(sum(size), sum(obd)):
        said += " OBD even falls behind plain size: many removals, each cheap alone, are dear together."
    if unmoved:
        said += f" The weights that OBS chose, removed without moving the others: {mean(values('obs', Stage.ZEROED))}."
    return said


def _share(value: Any) -> str:
    return f"{100 * value:.1f}%"
