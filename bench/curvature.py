"""How long second-order quantities take: ``python bench/curvature.py [network ...]``. Writes ``bench/results/curvature.json``.

Ours and every peer that has the quantity (bench/peers.py), on the same network and samples, in turns, as ratios to one plain
forward and backward pass over those samples in the same process; medians. Both must give the same numbers: the largest
difference, relative to the norm, is recorded. Where labels are drawn, numbers are compared for the labels given instead.
Then all that nine methods ask for, in one sweep and one by one.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable

from measure import REPEATS, record, steady, turns  # puts the project on the path

steady()

import peers  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import pruneviz as pv  # noqa: E402
from pruneviz.curvature.calls import diagonal  # noqa: E402
from pruneviz.curvature.calls import kronecker_factors as kfac  # noqa: E402
from pruneviz.curvature.hvp import hessian_gradient  # noqa: E402
from pruneviz.curvature.statistic import Diagonal, Gradient, HessianGradient, Jacobians, Kronecker, Rows  # noqa: E402
from pruneviz.curvature.sweep import sweep  # noqa: E402
from pruneviz.door.loss import CROSS_ENTROPY  # noqa: E402
from pruneviz.run.loop import default_device  # noqa: E402

GRAY, COLOUR = (1, 28, 28), (3, 32, 32)
# network -> shape, samples, threads on a CPU
NETWORKS = {
    "lenet-300-100": (GRAY, 512, 1),
    "lenet-5-caffe": (GRAY, 256, 1),
    "vgg-19": (COLOUR, 64, 2),
    "resnet-32": (COLOUR, 64, 2),
}
NO_EXACT = ("vgg-19",)  # nine backward passes of it, and the peers' memory, are more than a bench should ask for
AIMS = {
    "K-FAC, sampled": {"lenet-300-100": 1.8, "lenet-5-caffe": 1.9, "vgg-19": 2.8, "resnet-32": 2.9},
    "K-FAC, exact": {"lenet-300-100": 4.3, "lenet-5-caffe": 4.7, "resnet-32": 8.5},
    "diagonal, sampled": {"lenet-300-100": 1.2, "lenet-5-caffe": 1.5, "vgg-19": 1.9, "resnet-32": 3.0},
    "diagonal, empirical": {"lenet-300-100": 1.2, "lenet-5-caffe": 1.5, "vgg-19": 1.9, "resnet-32": 2.2},
    "diagonal, Gauss-Newton": {"lenet-300-100": 2.0, "lenet-5-caffe": 6.0, "resnet-32": 9.5},
}
Run = Callable[[], peers.Values]


def ours(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Run]:
    """Our quantities by the names of :data:`AIMS`, flat."""

    def factors(fisher: str) -> peers.Values:
        found = kfac(model, [(x, y)], fisher=fisher)  # pyright: ignore[reportArgumentType]
        return Lazy(found)

    def squares(kind: str) -> peers.Values:
        return diagonal(model, [(x, y)], kind=kind)  # pyright: ignore[reportArgumentType]

    return {
        "K-FAC, sampled": lambda: factors("sampled"),
        "K-FAC, exact": lambda: factors("exact"),
        "diagonal, sampled": lambda: squares("fisher"),
        "diagonal, empirical": lambda: squares("empirical"),
        "diagonal, Gauss-Newton": lambda: squares("ggn"),
        "Hessian times gradient": lambda: hessian_gradient(model, [(x, y)], CROSS_ENTROPY),
        "K-FAC, empirical": lambda: factors("empirical"),
    }


class Lazy(dict):
    """Factors under the peers' names, A built when it is read."""

    def __init__(self, factors):
        super().__init__({f"{kind}:{name}": (pair, kind) for name, pair in factors.items() for kind in "AS"})

    def __getitem__(self, key: str) -> Tensor:
        pair, kind = super().__getitem__(key)
        return getattr(pair, kind)


PEERS: dict[str, dict[str, tuple[Callable, str]]] = {
    "K-FAC, sampled": {"curvlinops": (peers.curvlinops_kfac, "sampled")},
    "K-FAC, exact": {"curvlinops": (peers.curvlinops_kfac, "exact")},
    "diagonal, sampled": {
        "BackPACK": (peers.backpack_diagonal, "sampled"),
        "asdfghjkl": (peers.asdl_diagonal, "sampled"),
    },
    "diagonal, empirical": {
        "BackPACK": (peers.backpack_diagonal, "empirical"),
        "asdfghjkl": (peers.asdl_diagonal, "empirical"),
        "torch.func.vmap": (peers.vmap_diagonal, "empirical"),
    },
    "diagonal, Gauss-Newton": {
        "BackPACK": (peers.backpack_diagonal, "ggn"),
        "asdfghjkl": (peers.asdl_diagonal, "ggn"),
    },
    "Hessian times gradient": {
        "two plain backward passes": (peers.plain_product, ""),
        "curvlinops": (peers.curvlinops_product, ""),
    },
}
SAME_PATH = {"K-FAC, sampled": "K-FAC, empirical", "diagonal, sampled": "diagonal, empirical"}  # where labels are drawn


@torch.no_grad()
def network(name: str, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """An untrained network whose normalisation statistics are these samples', so that its outputs do not saturate."""
    shape, n, threads = NETWORKS[name]
    torch.set_num_threads(threads)
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.randint(0, 10, (n,), generator=torch.Generator().manual_seed(1)).to(device)
    model = pv.build(name, shape=shape, classes=10, seed=0).to(device).train()
    for _ in range(50):
        model(x)
    return model.eval(), x, y


def apart(a: peers.Values, b: peers.Values) -> float:
    """The largest distance of two tensors of the same name, relative to the second."""
    shared = [n for n in b if n in a]
    assert shared
    return max(float((a[n].detach() - b[n].detach()).norm() / b[n].detach().norm().clamp(min=1e-30)) for n in shared)


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    return run


def beside_peers(name: str, device: torch.device) -> list[dict]:
    """A row for each quantity: ours and every peer's ratio, and how far apart their numbers are."""
    model, x, y = network(name, device)
    own, rows = ours(model, x, y), []
    for what, others in PEERS.items():
        if name in NO_EXACT and AIMS.get(what, {name: 0}).get(name) is None:
            continue
        runs: dict[str, Callable[[], object]] = {"plain": plain(model, x, y), "ours": own[what]}
        row: dict = {"network": name, "samples": len(x), "quantity": what, "aim": AIMS.get(what, {}).get(name)}
        differences, refused = {}, {}
        for peer, (make, kind) in others.items():
            try:
                twin = network(name, device)[0]
                run = make(twin, x, y, kind)
                if what in SAME_PATH:
                    run()
                    checked = make(network(name, device)[0], x, y, "empirical")
                    differences[peer] = apart(own[SAME_PATH[what]](), checked())
                else:
                    differences[peer] = apart(own[what](), run())
                runs[peer] = run
            except Exception as error:  # a peer that is not there, or that does not take this network
                refused[peer] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
            gc.collect()
        found = turns(runs, device)
        unit = found.pop("plain")
        row |= {"ours": round(found.pop("ours") / unit, 2), "peers": {p: round(t / unit, 2) for p, t in found.items()}}
        row |= {"differences": {p: float(f"{d:.1e}") for p, d in differences.items()}}
        if refused:
            row["refused"] = refused
        rows.append(row | {"forward_and_backward_ms": round(1000 * unit, 2)})
        print(rows[-1], flush=True)
        gc.collect()
    return rows


def in_one_sweep(name: str, device: torch.device) -> dict:
    """What nine methods ask of one network and the same samples, together and one by one."""
    model, x, y = network(name, device)
    wanted = {
        "SNIP, isometry: gradient": Gradient(),
        "OBD: Gauss-Newton diagonal": Diagonal("ggn"),
        "Kron-OBD, Kron-OBS, EigenDamage: factors": Kronecker(),
        "GraSP: Hessian times gradient": HessianGradient(),
        "isometry: Jacobians of 16 samples": Jacobians(16),
    }
    if name.startswith("lenet"):
        wanted["OBS: rows of the Gauss-Newton matrix"] = Rows()
    runs: dict[str, Callable[[], object]] = {"plain": plain(model, x, y)}
    runs["one sweep"] = lambda: sweep(model, [(x, y)], list(wanted.values()))
    for label, statistic in wanted.items():
        runs[label] = lambda statistic=statistic: sweep(model, [(x, y)], (statistic,))
    found = turns(runs, device)
    unit, together = found.pop("plain"), found.pop("one sweep")
    # the same quantity is asked for by several: SNIP and isometry the gradient, three methods the factors
    gradient, factors = (found[label] for label in list(wanted)[:3:2])
    methods = sum(found.values()) + gradient + 2 * factors
    row = {
        "network": name,
        "one_sweep": round(together / unit, 2),
        "each_alone": {label: round(t / unit, 2) for label, t in found.items()},
        "share_of_the_sum": round(together / sum(found.values()), 3),
        "share_of_the_sum_method_by_method": round(together / methods, 3),
    }
    print(row, flush=True)
    return row


def main() -> None:
    """All networks, or those named."""
    warnings.simplefilter("ignore")
    device = default_device()
    names = sys.argv[1:] or list(NETWORKS)
    rows = [row for name in names for row in beside_peers(name, device)]
    sweeps = [in_one_sweep(name, device) for name in names]
    packages = ("backpack-for-pytorch", "curvlinops-for-pytorch", "asdfghjkl")
    threads = {name: NETWORKS[name][2] for name in names}
    record("curvature", device, packages, threads=threads, repeats=REPEATS, rows=rows, sweeps=sweeps)


if __name__ == "__main__":
    main()
