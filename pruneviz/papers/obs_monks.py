"""Optimal Brain Surgeon on XOR and the MONK's problems, Hassibi & Stork 1993.

The rule is the same for every problem: tanh hidden units, one sigmoid output, squared error with L2 decay, L-BFGS from each of
a grid of decays and seeds. From each network that learned the problem one weight or bias at a time leaves, with H computed
anew after each, until one is left; nothing is trained again. The paper shows one network for each problem, so what is tested
is existence: some network of the grid has at most the paper's weights with at least its training and test accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from pruneviz.methods import METHODS
from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruneviz.methods.base import Method

DECAYS = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = (20, 100)  # quick, full
STEPS = 50  # of L-BFGS, each with a line search
ALPHA = 1e-4
COMMAND = "python -m pruneviz papers obs-monks"


@dataclass(frozen=True)
class Problem:
    """A data set, its network, and what the paper leaves of it: weights, and samples classified correctly."""

    data: str
    model: str
    weights: int
    train: tuple[int, int]
    test: tuple[int, int]


MONKS = (
    Problem("monks-1", "mlp-17-3-1", 14, (124, 124), (432, 432)),
    Problem("monks-2", "mlp-17-2-1", 15, (169, 169), (432, 432)),
    Problem("monks-3", "mlp-17-2-1", 4, (114, 122), (420, 432)),
)


def _title(problem: Problem) -> str:
    return f"MONK's problem {problem.data[-1]}"


@dataclass(frozen=True)
class Network:
    """One network on its way down: how many weights and biases it has left, samples right, and its training error.

    ``ties``: test samples for which its output is exactly 0.5, where every unit that they reach is gone; they count as class 0.
    """

    decay: float
    seed: int
    size: int
    train: int
    test: int
    ties: int
    error: float
    state: dict[str, Tensor]


# one trained network, whole and after each deletion; only whole where it did not learn the problem
Way = list[Network]


def trained(problem: str, model: str, decay: float, seed: int) -> nn.Module:
    r"""A network in float64 at the bottom of :math:`\frac1n \sum_i (f(x_i) - y_i)^2 + \frac\lambda2 |\theta|^2`, by L-BFGS."""
    import torch

    from pruneviz.datasets import load
    from pruneviz.door.loss import SQUARED
    from pruneviz.models import build

    data = load(problem)
    x, y = data.train[0].double(), data.train[1]
    network = build(model, data, seed=seed).double()
    parameters = list(network.parameters())
    descent = torch.optim.LBFGS(parameters, max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = SQUARED(network(x), y) + decay / 2 * torch.stack([p.square().sum() for p in parameters]).sum()
        loss.backward()
        return loss

    descent.step(closure)
    return network


def deleted(network: nn.Module, method: Method, x: Tensor, y: Tensor) -> Iterator[int]:
    """Deletes one parameter after the other in place, scored anew each time; yields how many are left, down to one.

    The lowest score leaves and the method moves the survivors. The first of OBS's order of deletions is its lowest score, so
    the order to the end, which ``choose`` would compute each time, is not needed.
    """
    import torch

    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.door.loss import SQUARED
    from pruneviz.units.choice import select
    from pruneviz.units.masks import Mask

    task = Task(lambda: [(x, y)], generator_for(0, "score"), loss=SQUARED)
    mask = Mask.full(network, method.prunable(network))
    parameters = dict(network.named_parameters())
    for gone in range(1, mask.size):
        scores = method.score(network, task, mask)
        mask = select(scores, mask, gone / mask.size)
        with torch.no_grad():
            for name, value in method.repaired(network, task, scores, mask).items():
                parameters[name].copy_(value)
        mask.apply_(network)
        yield mask.size - mask.removed


def ways(problem: str, model: str, learned: int, seeds: int, method: str, **switches: Any) -> Iterator[Way]:
    """Each network of the grid on its way down to one parameter, where it has ``learned`` training samples right at first."""
    import torch

    from pruneviz.datasets import load
    from pruneviz.door.loss import SQUARED, right
    from pruneviz.methods import method_class

    data = load(problem)
    (x, y), (x_test, y_test) = ((x.double(), y) for x, y in (data.train, data.test))
    made = method_class(method).from_params({"include_bias": True, **switches})
    for decay in DECAYS:
        for seed in range(seeds):
            network = trained(problem, model, decay, seed)

            @torch.no_grad()
            def now(size: int, decay: float = decay, seed: int = seed, network: nn.Module = network) -> Network:
                outputs, unseen = network(x), network(x_test)
                hits, hits_test = int(right(outputs, y).sum()), int(right(unseen, y_test).sum())
                state = {name: value.clone() for name, value in network.state_dict().items()}
                ties, error = int((unseen == 0.5).sum()), float(SQUARED(outputs, y))
                return Network(decay, seed, size, hits, hits_test, ties, error, state)

            way = [now(sum(p.numel() for p in network.parameters()))]
            if way[0].train >= learned:
                way += [now(size) for size in deleted(network, made, x, y)]
            yield way


def smallest(way: Way, train: int) -> Network | None:
    """The smallest network on a way down with this many training samples right; None where there is none."""
    able = [network for network in way if network.train >= train]
    return able[-1] if able else None


def witness(grid: Sequence[Way], problem: Problem) -> Network:
    """The network that speaks for the existence claim: the smallest as good as the paper's on training and test samples.

    Where there is none: the best on test samples among those as good on the training samples and no larger than the
    paper's, else the smallest as good on the training samples, else the best on these.
    """
    every = [network for way in grid for network in way]
    able = [n for n in every if n.train >= problem.train[0]]
    good = [n for n in able if n.test >= problem.test[0]]
    if good:
        return min(good, key=lambda n: (n.size, n.ties, -n.test, -n.train))
    small = [n for n in able if n.size <= problem.weights]
    if small:
        return max(small, key=lambda n: (n.test, -n.size))
    return min(able, key=lambda n: n.size) if able else max(every, key=lambda n: n.train)


def _undecided(network: Network) -> str:
    if not network.ties:
        return ""
    return f" ({network.ties} test samples reach none of them: an output of exactly 0.5 counts as class 0)"


def matches(network: Network, problem: Problem) -> bool:
    """Whether a network is as small and as good as the paper's."""
    return network.size <= problem.weights and network.train >= problem.train[0] and network.test >= problem.test[0]


@dataclass(frozen=True)
class Findings:
    """Three claims about one network, that network, and a row of each table beside them."""

    claims: tuple[Claim, ...]
    best: Network
    found: tuple[Any, ...]
    alone: tuple[Any, ...]


def monks(problem: Problem, grid: Sequence[Way]) -> Findings:
    """What the grid says about one of the three problems."""
    best = witness(grid, problem)
    chosen = [n for way in grid if (n := smallest(way, problem.train[0]))]
    found = sum(any(matches(n, problem) for n in way) for way in grid)
    title = _title(problem)
    (train, of_train), (test, of_test) = problem.train, problem.test
    sizes, tests = [n.size for n in chosen], [n.test / of_test for n in chosen]
    trains = [n.train / of_train for n in chosen]

    def claim(what: str, text: str, paper: float, ours: float, spread: list, holds: bool) -> Claim:
        low, high = (min(spread), max(spread)) if spread else (None, None)
        verdict = "holds" if holds else "does not hold"
        seeds = len({n.seed for way in grid for n in way})
        return Claim(f"{problem.data}-{what}", text, ours, paper, low, high, seeds, verdict, COMMAND)

    claims = (
        claim(
            "weights", f"{title}: a network is left with at most {problem.weights} weights and biases{_undecided(best)}",
            problem.weights, best.size, sizes, best.size <= problem.weights,
        ),
        claim(
            "train", f"{title}: that same network classifies at least {train} of {of_train} training samples correctly",
            train / of_train, best.train / of_train, trains, best.train >= train,
        ),
        claim(
            "test", f"{title}: that same network classifies at least {test} of {of_test} test samples correctly",
            test / of_test, best.test / of_test, tests, best.test >= test,
        ),
    )  # fmt: skip
    learned = sum(way[0].train >= train for way in grid)
    alone = min(chosen, key=lambda n: (n.size, n.error), default=None)
    ties = [n.test / of_test for n in chosen if alone and n.size == alone.size]
    clear = [n.size for way in grid for n in way if n.train >= train and n.test >= test and not n.ties]
    found_row = (title, grid[0][0].size, problem.weights, len(grid), learned, found, min(clear, default=None))
    alone_row = (
        title, alone and alone.size, alone and alone.test / of_test, len(ties), min(ties, default=None), max(ties, default=None),
    )  # fmt: skip
    return Findings(claims, best, found_row, alone_row)


def survivors(title: str, network: Network) -> Iterator[tuple[Any, ...]]:
    """Rows of a table: what each surviving weight joins, and its value. ``a5=4``: the fifth attribute has its fourth value."""
    from pruneviz.datasets.monks import ATTRIBUTES

    inputs = [f"a{a}={value}" for a, size in enumerate(ATTRIBUTES, 1) for value in range(1, size + 1)]
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in network.state))
    layers = [network.state[f"{name}.weight"] for name in names]
    hidden = [f"hidden {i + 1}" for i in range(len(layers[0]))]
    for name, (sources, targets) in zip(names, pairwise((inputs, hidden, ["output"])), strict=True):
        weight, bias = network.state[f"{name}.weight"], network.state[f"{name}.bias"]
        for o, target in enumerate(targets):
            for i, source in enumerate(sources):
                if weight[o, i] != 0:
                    yield title, source, target, float(weight[o, i])
            if bias[o] != 0:
                yield title, "bias", target, float(bias[o])


def xor(seeds: int, say: Say) -> tuple[tuple[Claim, ...], Table]:
    """What is left of each XOR network that was learned, by OBS, and beside it by criteria that move nothing."""
    criteria = (
        ("OBS", "obs", {"loss": "squared", "alpha": ALPHA}),
        ("OBD", "obd", {}),
        ("magnitude", "magnitude", {"scale": "none"}),
    )
    rows, whole = [], 9
    for title, method, switches in criteria:
        say(f"XOR, {title}: {len(DECAYS)} decays x {seeds} seeds")
        grid = list(ways("xor", "mlp-2-2-1", 4, seeds, method, **switches))
        sizes = [n.size for way in grid if (n := smallest(way, 4))]
        spread = (min(sizes), median(sizes), max(sizes)) if sizes else (None, None, None)
        share = sum(size < whole for size in sizes) / len(sizes) if sizes else None
        rows.append((title, len(grid), len(sizes), share, *spread))
    (_, _, learned, share, low, middle, high), *others = rows
    if not learned:
        verdicts = ("open", "open")
    else:
        better = all(share > other[3] for other in others)
        verdicts = ("holds" if middle < whole else "does not hold", "holds" if better else "does not hold")
    claims = (
        Claim(
            "xor-weights",
            f"XOR: of {whole} weights and biases OBS leaves a smaller network that has all four points right, without training again "
            f"(median and range over {learned} networks that learned XOR)",
            middle, None, low, high, seeds, verdicts[0], COMMAND,
        ),
        Claim(
            "xor-networks",
            "XOR: OBS deletes a weight that can be spared where magnitude and OBD delete one that cannot (share of the networks "
            "that lose at least one weight and keep all four points right; theirs are in the table)",
            share, None, None, None, seeds, verdicts[1], COMMAND,
        ),
    )  # fmt: skip
    table = Table(
        "xor",
        "XOR: the smallest network on the way down that still has all four points right",
        ("criterion", "networks", "learned", "share smaller than 9", "smallest", "median", "largest"),
        tuple(rows),
        "Of 9 weights and biases one leaves at a time, scored anew after each, and nothing is trained again; only OBS moves the survivors.",
    )
    return claims, table


def by_decay(problem: Problem, grid: Sequence[Way]) -> Iterator[tuple[Any, ...]]:
    """Rows of a table: networks, those pruned, those as small and good as the paper's, and the median of the smallest."""
    for decay in DECAYS:
        some = [way for way in grid if way[0].decay == decay]
        sizes = [n.size for way in some if (n := smallest(way, problem.train[0]))]
        found = sum(any(matches(n, problem) for n in way) for way in some)
        yield _title(problem), decay, len(some), len(sizes), found, median(sizes) if sizes else None


def run(full: bool, say: Say) -> Result:
    """All problems over the grid, on one CPU thread: the networks are too small for two."""
    import torch

    threads, seeds = torch.get_num_threads(), SEEDS[full]
    findings: list[Findings] = []
    decays, left = [], []
    torch.set_num_threads(1)
    try:
        for problem in MONKS:
            say(f"{problem.data}: {len(DECAYS)} decays x {seeds} seeds")
            grid = list(ways(problem.data, problem.model, problem.train[0], seeds, "obs", loss="squared", alpha=ALPHA))
            new = monks(problem, grid)
            findings.append(new)
            decays += by_decay(problem, grid)
            left += survivors(_title(problem), new.best)
            best = new.best
            say(
                f"{problem.data}: {best.size} left, {best.train} and {best.test} right; decay {best.decay:g}, seed {best.seed}"
            )
        of_xor, beside = xor(seeds // 2, say)
    finally:
        torch.set_num_threads(threads)
    tables = (
        Table(
            "found",
            "MONK's problems: how many networks of the grid are as small and as good as the paper's",
            ("problem", "parameters", "the paper's", "networks", "learned", "found", "fewest, none at 0.5"),
            tuple(f.found for f in findings),
            f"The grid: {len(DECAYS)} weight decays ({', '.join(f'{d:g}' for d in DECAYS)}; decay / 2 times the squared norm is added "
            f"to the squared error) x {seeds} seeds, {STEPS} steps of L-BFGS in float64 on the whole training file, alpha {ALPHA:g}. "
            "Parameters: weights and biases; the paper's: what it leaves of them. Learned: as good as the paper's network on "
            "training samples before any deletion; only these are pruned. Found: somewhere on the way down no larger than the "
            "paper's, and as good on training and test samples. Fewest, none at 0.5: the smallest network as good as "
            "the paper's that decides every test sample by itself; an output of exactly 0.5, where all that a sample reaches "
            "is gone, counts as class 0. The range of a claim spans the pruned networks, each at its smallest with the "
            "paper's training accuracy.",
        ),
        Table(
            "alone",
            "MONK's problems: the network that training samples alone would choose",
            ("problem", "left", "test accuracy", "networks as small", "their lowest", "their highest"),
            tuple(f.alone for f in findings),
            "The smallest network with the paper's training accuracy; of several as small, the one of least training error.",
        ),
        Table(
            "decays",
            "MONK's problems by weight decay",
            ("problem", "decay", "networks", "learned", "found", "median of their smallest"),
            tuple(decays),
        ),
        Table(
            "survivors",
            "What is left of the networks that speak for the claims",
            ("problem", "from", "to", "value"),
            tuple(left),
            "a5=4 is the input that is 1 where the fifth attribute has its fourth value. Attributes: 1 head, 2 body, 3 smiling, "
            "4 holding, 5 jacket, 6 tie, numbered as in the data files.",
        ),
        beside,
    )
    return Result((*(claim for f in findings for claim in f.claims), *of_xor), tables)


PAPER = Reproduction(
    "obs-monks",
    "Optimal Brain Surgeon on the MONK's problems and XOR",
    "Can most weights of a small network be deleted without training again, if the others move to make up for each?",
    METHODS["obs"].paper,
    ("monks-1", "monks-2", "monks-3", "xor"),
    (1.5, 5),
    run,
)
