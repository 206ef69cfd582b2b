"""How long Kronecker factors, their spectra and removal for real take: ``python bench/structured.py``.

Writes ``bench/results/structured.json``. Factors beside curvlinops' (where it is installed), in turns and checked to agree
where both are exact, as ratios to one plain forward and backward pass over the same samples; the rest in seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from statistics import median

from curvature import record, seconds  # puts the project on the path

import torch  # isort: skip
import torch.nn.functional as F  # isort: skip
from torch import Tensor, nn  # isort: skip

import pruneviz as pv  # isort: skip
from pruneviz.curvature.kronecker import KroneckerFactors, kfac  # isort: skip
from pruneviz.pipeline import default_device  # isort: skip
from pruneviz.task import generator_for  # isort: skip

REPEATS = 5
NETWORKS = {"lenet-5-caffe": ((1, 28, 28), 100), "vgg-19": ((3, 32, 32), 64), "resnet-56": ((3, 32, 32), 64)}


def peer(model: nn.Module, x: Tensor, y: Tensor, fisher: str) -> Callable[[], dict[str, KroneckerFactors]] | None:
    """curvlinops' factors, in our convention (A times, S over the positions of a convolution)."""
    try:
        from curvlinops import KFACLinearOperator
    except ImportError:
        return None
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    positions: dict[str, int] = {}
    hooks = [
        m.register_forward_hook(lambda m, i, o, n=n: positions.__setitem__(n, o[0].numel() // len(m.weight)))
        for n, m in layers.items()
    ]
    with torch.no_grad():
        model(x[:1])
    for hook in hooks:
        hook.remove()
    operator = KFACLinearOperator(
        model, nn.CrossEntropyLoss(), [m.weight for m in layers.values()], [(x, y)], kfac_approx="expand",
        fisher_type={"exact": "type-2", "sampled": "mc"}[fisher], separate_weight_and_bias=True, check_deterministic=False,
    )  # fmt: skip

    def run() -> dict[str, KroneckerFactors]:
        operator._input_covariances, operator._gradient_covariances = {}, {}  # a second call would add to the first
        operator.compute_kronecker_factors()
        A, S = operator._input_covariances, operator._gradient_covariances
        return {n: KroneckerFactors(A[n] * positions[n], S[n] / positions[n]) for n in layers}

    return run


@torch.no_grad()
def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """Normalisation statistics of these samples, so that an untrained deep network's outputs do not saturate."""
    for _ in range(50):
        model.train()(x)
    return model.eval()


def bench(name: str, device: torch.device) -> list[dict]:
    shape, batch = NETWORKS[name]
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.randint(0, 10, (batch,), generator=torch.Generator().manual_seed(1)).to(device)
    model, twin = (settled(pv.build(name, shape=shape, classes=10).to(device), x) for _ in range(2))
    rows: list[dict] = []

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    for fisher in ("sampled", "exact"):
        other = peer(twin, x, y, fisher)

        def ours(fisher=fisher) -> dict[str, KroneckerFactors]:
            return kfac(model, [(x, y)], fisher=fisher, generator=generator_for(0, "kfac"))

        times: dict[str, list[float]] = {"plain": [], "ours": [], "theirs": []}
        for _ in range(REPEATS + 1):
            times["plain"].append(seconds(plain, device))
            times["ours"].append(seconds(ours, device))
            if other is not None:
                times["theirs"].append(seconds(other, device))
        unit = median(times["plain"][1:])
        row = {"network": name, "batch": batch, "quantity": f"Kronecker factors, {fisher} Fisher"}
        row["ours"] = round(median(times["ours"][1:]) / unit, 2)
        if other is not None:
            a, b = ours(), other()
            row |= {"peer": "curvlinops", "theirs": round(median(times["theirs"][1:]) / unit, 2)}
            if fisher == "exact":
                gaps = [
                    float((getattr(a[n], k) - getattr(b[n], k)).norm() / getattr(b[n], k).norm())
                    for n in a
                    for k in "AS"
                ]
                row["difference"] = float(f"{max(gaps):.1e}")
        rows.append(row | {"forward_and_backward_ms": round(1000 * unit, 2)})
        print(rows[-1], flush=True)
    factors = kfac(model, [(x, y)], fisher="sampled", generator=generator_for(0, "kfac"))
    spectra = seconds(lambda: [pair.eigh() for pair in factors.values()], device)
    largest = max(len(m) for pair in factors.values() for m in (pair.A, pair.S))
    rows.append(
        {
            "network": name,
            "quantity": "all eigenvalues and eigenvectors",
            "seconds": round(spectra, 2),
            "largest": largest,
        }
    )
    print(rows[-1], flush=True)
    found = pv.prune(model, x, y, method="l1-filters", sparsity=0.3)
    removal = median(seconds(lambda: pv.compact(found), device) for _ in range(REPEATS))
    small = pv.compact(found)
    rows.append(
        {
            "network": name,
            "quantity": "removal for real, checked, at 30% of the weights",
            "seconds": round(removal, 3),
            "flops_removed": round(1 - small.after.flops / small.before.flops, 3),
            "faster": {str(size): round(times_, 2) for size, times_ in small.speedup.items()},
        }
    )
    print(rows[-1], flush=True)
    return rows


def main() -> None:
    """All networks."""
    warnings.simplefilter("ignore")
    device = default_device()
    rows = [row for name in NETWORKS for row in bench(name, device)]
    record("structured", device, ("curvlinops-for-pytorch",), rows=rows)


if __name__ == "__main__":
    main()
