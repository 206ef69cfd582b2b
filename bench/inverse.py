"""How long the inverse Fisher takes beside a rank-1 recursion: ``python bench/inverse.py``. Writes ``bench/results/inverse.json``.

Per-sample gradients of trained networks (the empirical Fisher, 1,000 samples, alpha 1e-4), float64, one thread, ours and the
peer in turns. The peer is one ``addr_`` per sample in place; over blocks one ``baddbmm_`` per sample, many blocks at once.
Where its 1,000 equal steps would take minutes, ``steps`` of them are timed and scaled. Both start from the same recorded
gradients; forming the rows and I / alpha is left out of the peer's time, everything up to the inverse is in ours. At the
end whole runs of OBS to 95%, on two threads. Needs MNIST (``PRUNEVIZ_DATA``).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from measure import record, seconds, steady  # puts the project on the path

steady()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.func import functional_call, grad, vmap  # noqa: E402

import pruneviz as pv  # noqa: E402
from pruneviz.curvature.calls import inverse_hessian  # noqa: E402
from pruneviz.curvature.woodbury import Blocks, inverse  # noqa: E402
from pruneviz.door.loss import CROSS_ENTROPY  # noqa: E402

REPEATS = 5
SAMPLES, ALPHA, WIDTH = 1000, 1e-4, 500  # WIDTH: how many blocks the peer works on at once
CPU = torch.device("cpu")
HIDDEN = {13: 1000, 40: 1000, 133: 50}  # hidden units of 64-h-10 -> how many of the peer's steps are timed
SIZES = {50: 200, 100: 200, 500: 50}  # the same for weights in a block
Times = list[tuple[float, float]]


def network(*widths: int) -> nn.Module:
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """One row per sample, over root n: [n, parameters] in float64."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    each = grad(lambda p, xi, yi: CROSS_ENTROPY(functional_call(model, p, (xi[None],)), yi[None]))
    found = vmap(each, (None, 0, 0))(params, x, y)
    return torch.cat([g.flatten(1) for g in found.values()], 1).double() / len(x) ** 0.5


def start(*shape: int) -> Tensor:
    return (torch.eye(shape[-1], dtype=torch.float64) / ALPHA).expand(*shape, shape[-1]).clone()


def rank_one(H: Tensor, rows: Tensor) -> Tensor:
    """Sherman and Morrison's step for each row, in place: H [b, b], rows [r, b]."""
    for x in rows:
        h = H @ x
        H.addr_(h, h, alpha=-1 / float(1 + x @ h))
    return H


def rank_one_blocks(H: Tensor, rows: Tensor) -> Tensor:
    """The same for many blocks at once: H [blocks, b, b], rows [r, blocks, b, 1]."""
    for x in rows:
        h = H @ x
        H.baddbmm_(h, (h / -(1 + x.mT @ h)).mT)
    return H


def differ(a: Tensor, b: Tensor) -> float:
    """The norm of the difference over the norm."""
    return float((a - b).norm() / b.norm())


def row(times: Times, steps: int, **about: object) -> dict:
    ours = median(t for t, _ in times)
    theirs = median(t for _, t in times) * SAMPLES / steps
    found = about | {"ours_s": round(ours, 4), "theirs_s": round(theirs, 3), "times_faster": round(theirs / ours, 1)}
    print(found, flush=True)
    return found | {"steps": steps, "each": [round(t * SAMPLES / steps / o, 1) for o, t in times]}


def whole(hidden: int, steps: int) -> dict:
    """One inverse over all parameters of 64-h-10 on digits."""
    data = pv.load("digits")
    model = network(64, hidden, 10)
    pv.train(model, data, epochs=5, seed=0)
    x, y = (part[:SAMPLES] for part in data.train)
    rows = gradients(model, x, y)
    times: Times = []
    for _ in range(REPEATS + 1):
        ours = seconds(lambda: inverse(rows, ALPHA), CPU)
        H = start(rows.shape[1])
        times.append((ours, seconds(lambda H=H: rank_one(H, rows[:steps]), CPU)))
    found = inverse(rows, ALPHA)
    about: dict[str, object] = {"what": "whole", "weights": rows.shape[1]}
    if steps == SAMPLES:
        about["difference"] = float(f"{differ(found, H):.1e}")
    v = torch.randn(rows.shape[1], 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    again = found @ (ALPHA * v + rows.T @ (rows @ v))
    return row(times[1:], steps, **about, residual=float(f"{differ(again, v):.1e}"))


def portions(layers: list[Blocks]) -> Iterator[tuple[Blocks, slice]]:
    """What the peer works on at once."""
    for layer in layers:
        count = len(layer.index)
        yield from ((layer, slice(i, min(i + WIDTH, count))) for i in range(0, count, WIDTH))


def blocks(model: nn.Module, x: Tensor, y: Tensor, size: int, steps: int) -> dict:
    """All blocks of one network."""

    def layers() -> list[Blocks]:
        return inverse_hessian(model, [(x, y)], alpha=ALPHA, size=size, fisher="empirical")[0]

    def rows(layer: Blocks, part: slice) -> Tensor:
        assert layer.rows is not None
        return layer.rows(part).transpose(0, 1).contiguous()[..., None]

    def ours(layers: list[Blocks]) -> None:
        for layer in layers:
            for part in layer.parts():
                layer.inverse(part)

    def theirs(layers: list[Blocks]) -> float:
        total = 0.0
        for layer, part in portions(layers):
            R, H = rows(layer, part)[:steps], start(part.stop - part.start, layer.index.shape[1])
            total += seconds(lambda R=R, H=H: rank_one_blocks(H, R), CPU)
        return total

    times: Times = []
    for _ in range(REPEATS + 1):
        made = layers()
        times.append((seconds(lambda made=made: ours(made), CPU), theirs(made)))
        gc.collect()
    gaps = []
    for layer in layers():
        part = layer.parts()[-1]  # where the bias is, and what fills up a block
        part = slice(part.start, min(part.stop, part.start + 50))
        H = rank_one_blocks(start(part.stop - part.start, layer.index.shape[1]), rows(layer, part))
        gaps.append(differ(layer.inverse(layer.parts()[-1])[: len(H)], H))
    return row(times[1:], steps, what=f"blocks of {size}", weights=266_610, difference=float(f"{max(gaps):.1e}"))


def pruning(model: nn.Module, x: Tensor, y: Tensor, size: int) -> dict:
    """OBS to 95%: scores, inverses, order of deletions and the survivors' move."""
    torch.set_num_threads(2)
    times = [
        seconds(lambda: pv.prune(model, x, y, method="obs", sparsity=0.95, blocks=size), CPU)
        for _ in range(REPEATS + 1)
    ]
    torch.set_num_threads(1)
    found = {
        "what": "OBS to 95%",
        "blocks": size,
        "weights": 266_610,
        "threads": 2,
        "seconds": round(median(times[1:]), 2),
    }
    print(found, flush=True)
    return found


def main() -> None:
    """All sizes."""
    torch.set_num_threads(1)
    rows = [whole(hidden, steps) for hidden, steps in HIDDEN.items()]
    data = pv.load("mnist")
    model = pv.build("lenet-300-100", shape=data.shape, classes=10, seed=0)
    pv.train(model, data, epochs=2, seed=0)
    x, y = (part[:SAMPLES] for part in data.train)
    rows += [blocks(model, x, y, size, steps) for size, steps in SIZES.items()]
    rows += [pruning(model, x, y, size) for size in SIZES]
    record(
        "inverse",
        CPU,
        (),
        samples=SAMPLES,
        alpha=ALPHA,
        peer="rank-1 steps in place: addr_, over blocks baddbmm_",
        rows=rows,
    )


if __name__ == "__main__":
    main()
