"""How long second-order quantities take: ``python bench/curvature.py``. Writes ``bench/results/curvature.json``.

Each beside its best-kept peer where there is one (``pip install backpack-for-pytorch curvlinops-for-pytorch``, left out
where they are not installed), on the same network and samples, checked to agree, as a ratio to one plain forward and
backward pass over those samples. Medians over repetitions, peers in turns.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pruneviz.curvature.diagonals import diagonal  # noqa: E402
from pruneviz.curvature.end_to_end import end_to_end_singular_values  # noqa: E402
from pruneviz.curvature.gradients import mean_gradient  # noqa: E402
from pruneviz.curvature.hvp import hessian_vector_product  # noqa: E402
from pruneviz.curvature.woodbury import inverse_hessian  # noqa: E402
from pruneviz.loss import CROSS_ENTROPY  # noqa: E402
from pruneviz.models import build  # noqa: E402
from pruneviz.pipeline import default_device  # noqa: E402

SAMPLES, REPEATS = 500, 5
NETWORKS = {"lenet-300-100, 28 x 28": ("lenet-300-100", (1, 28, 28)), "digits-cnn, 8 x 8": ("digits-cnn", (1, 8, 8))}
Values = dict[str, Tensor]


def backpack(model: nn.Module, x: Tensor, y: Tensor, what: str) -> Callable[[], Values]:
    """BackPACK's diagonal (Dangel et al. 2020)."""
    import backpack
    from backpack import extensions

    twin, loss = backpack.extend(model), backpack.extend(nn.CrossEntropyLoss())
    extension, place = {
        "ggn": (extensions.DiagGGNExact(), "diag_ggn_exact"),
        "exact": (extensions.DiagHessian(), "diag_h"),
    }[what]

    def run() -> Values:
        twin.zero_grad()
        with backpack.backpack(extension):
            loss(twin(x), y).backward()
        return {name: getattr(p, place) for name, p in twin.named_parameters()}

    return run


def curvlinops(model: nn.Module, x: Tensor, y: Tensor, vector: Values) -> Callable[[], Values]:
    """curvlinops' Hessian as a linear operator."""
    from curvlinops import HessianLinearOperator

    params = [p for p in model.parameters() if p.requires_grad]
    operator = HessianLinearOperator(model, nn.CrossEntropyLoss(), params, [(x, y)], check_deterministic=False)
    stacked = [vector[name] for name, _ in model.named_parameters()]
    return lambda: dict(zip(vector, operator @ stacked, strict=True))


def seconds(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def differ(a: Values, b: Values) -> float:
    """The largest difference over the largest value."""
    return max(float((a[n] - b[n]).abs().max() / b[n].abs().max().clamp(min=1e-30)) for n in b)


def bench(name: str, shape: tuple[int, ...], device: torch.device) -> list[dict]:
    """A row for each quantity: our time, the peer's, as ratios to forward and backward."""
    key = NETWORKS[name][0]
    x = torch.rand(SAMPLES, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.randint(0, 10, (SAMPLES,), generator=torch.Generator().manual_seed(1)).to(device)
    model = build(key, shape=shape, classes=10, seed=0).to(device)
    twin = build(key, shape=shape, classes=10, seed=0).to(device)
    batches = [(x, y)]
    vector = mean_gradient(model, batches, CROSS_ENTROPY)
    vector = {n: vector[n] for n, _ in model.named_parameters()}

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    def peer(make: Callable[[], Callable[[], Values]]) -> Callable[[], Values] | None:
        try:
            return make()
        except ImportError:
            return None

    def blocks() -> object:
        return [b.inverse(p) for b in inverse_hessian(model, batches, alpha=1e-4, size=50)[0] for p in b.parts()]

    def drawn() -> object:
        return diagonal(model, batches, kind="fisher", generator=torch.Generator())

    def product() -> Values:
        return hessian_vector_product(model, batches, CROSS_ENTROPY, vector)

    ours: dict[str, tuple[Callable[[], object], Callable[[], Values] | None, str]] = {
        "Gauss-Newton diagonal": (
            lambda: diagonal(model, batches, kind="ggn"), peer(lambda: backpack(twin, x, y, "ggn")), "BackPACK DiagGGNExact",
        ),
        "exact Hessian diagonal": (
            lambda: diagonal(model, batches, kind="exact"), peer(lambda: backpack(twin, x, y, "exact")), "BackPACK DiagHessian",
        ),
        "Fisher diagonal, drawn labels": (drawn, None, ""),
        "Hessian times vector": (product, peer(lambda: curvlinops(model, x, y, vector)), "curvlinops"),
        "inverse Hessian, blocks of 50": (blocks, None, ""),
        "end-to-end Jacobian, 16 samples": (lambda: end_to_end_singular_values(model, x[:16]), None, ""),
    }  # fmt: skip
    rows = []
    for what, (run, other, peer_name) in ours.items():
        times: dict[str, list[float]] = {"plain": [], "ours": [], "peer": []}
        for _ in range(REPEATS + 1):
            times["plain"].append(median(seconds(plain, device) for _ in range(3)))
            times["ours"].append(seconds(run, device))
            if other is not None:
                times["peer"].append(seconds(other, device))
        unit = median(times["plain"][1:])
        row = {"network": name, "quantity": what, "ours": round(median(times["ours"][1:]) / unit, 2)}
        if other is not None:
            found = run()
            assert isinstance(found, dict)
            row |= {
                "peer": peer_name,
                "theirs": round(median(times["peer"][1:]) / unit, 2),
                "difference": float(f"{differ(found, {n: v.detach() for n, v in other().items()}):.1e}"),
            }
        print(row, flush=True)
        rows.append(row | {"forward_and_backward_ms": round(1000 * unit, 3)})
    return rows


def record(name: str, device: torch.device, packages: tuple[str, ...], **found: object) -> None:
    """Write ``bench/results/<name>.json``, with where and with what it was measured."""
    versions = {}
    for package in ("torch", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    about = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type}, {torch.get_num_threads()} threads",
        "python": platform.python_version(), "versions": versions, "repeats": REPEATS,
    }  # fmt: skip
    path = ROOT / "bench" / "results" / f"{name}.json"
    path.write_text(json.dumps(about | found, indent=1) + "\n")
    print(path)


def main() -> None:
    """All networks."""
    warnings.simplefilter("ignore")
    device = default_device()
    rows = [row for name, (_, shape) in NETWORKS.items() for row in bench(name, shape, device)]
    record("curvature", device, ("backpack-for-pytorch", "curvlinops-for-pytorch"), samples=SAMPLES, rows=rows)


if __name__ == "__main__":
    main()
