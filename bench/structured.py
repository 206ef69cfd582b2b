"""How long removal for real takes, and what it gains: ``python bench/structured.py``. Writes ``bench/results/structured.json``.

L1 filters at 30% of the weights, compacted and checked; latency of the smaller network beside the dense one.
"""

from __future__ import annotations

import warnings
from statistics import median

from measure import record, seconds, steady  # puts the project on the path

steady()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import pruneviz as pv  # noqa: E402
from pruneviz.run.loop import default_device  # noqa: E402

REPEATS = 5
NETWORKS = {"lenet-5-caffe": ((1, 28, 28), 100), "vgg-19": ((3, 32, 32), 64), "resnet-56": ((3, 32, 32), 64)}


@torch.no_grad()
def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """Normalisation statistics of these samples, so that an untrained deep network's outputs do not saturate."""
    for _ in range(50):
        model.train()(x)
    return model.eval()


def bench(name: str, device: torch.device) -> dict:
    shape, batch = NETWORKS[name]
    x = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = torch.randint(0, 10, (batch,), generator=torch.Generator().manual_seed(1)).to(device)
    model = settled(pv.build(name, shape=shape, classes=10).to(device), x)
    found = pv.prune(model, x, y, method="l1-filters", sparsity=0.3)
    removal = median(seconds(lambda: pv.compact(found), device) for _ in range(REPEATS))
    small = pv.compact(found)
    row = {
        "network": name,
        "seconds": round(removal, 3),
        "flops_removed": round(1 - small.after.flops / small.before.flops, 3),
        "faster": {str(size): round(times_, 2) for size, times_ in small.speedup.items()},
    }
    print(row, flush=True)
    return row


def main() -> None:
    """All networks."""
    warnings.simplefilter("ignore")
    device = default_device()
    rows = [bench(name, device) for name in NETWORKS]
    record("structured", device, (), quantity="removal for real, checked, at 30% of the weights", rows=rows)


if __name__ == "__main__":
    main()
