"""Networks that are not ours, in time and memory: ``python bench/networks.py``. Writes ``bench/results/networks.json``.

Each measurement is a process of its own (peak memory above what loading takes). Times are ratios to one plain forward and
backward pass over the same samples in the same process. ResNet-50 and ViT-S (``transformers``, random weights, 64 x 64 pixels,
ten classes), every method on 16 samples: scored, or refused in a sentence, and how long that took. Kronecker methods on one
layer of 25,088 inputs. SNIP, GraSP and isometry on 2,000 samples and on 200. ``pv.inspect``. Our factors beside curvlinops'.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings

from measure import record, steady  # puts the project on the path

steady()

LIMIT = 1800  # seconds of one measurement


def built(name: str):
    """A network, samples and labels."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if name == "wide":
        return (
            nn.Sequential(nn.Linear(25088, 64), nn.ReLU(), nn.Linear(64, 4)),
            torch.randn(64, 25088),
            torch.arange(64) % 4,
        )
    if name.startswith("images"):
        n = int(name.partition(" ")[2])
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(1352, 3)
        )  # fmt: skip
        return net, torch.randn(n, 1, 28, 28), torch.arange(n) % 3
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # one that does not fit this torch does not import
    import transformers as t

    if name == "ResNet-50":
        net = t.ResNetForImageClassification(t.ResNetConfig(num_labels=10))
    else:
        net = t.ViTForImageClassification(
            t.ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536,
                        image_size=64, patch_size=8, num_labels=10)
        )  # fmt: skip
    return net.eval(), torch.randn(16, 3, 64, 64), torch.arange(16) % 10


def measure(name: str, what: str) -> dict:
    """In this process: seconds, ratio to forward and backward, megabytes above the start, or the refusal."""
    import torch

    import pruneviz as pv
    from pruneviz.basics.errors import PrunevizError
    from pruneviz.door.samples import forward

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, x, y = built(name)

    def plain() -> float:
        started = time.perf_counter()
        torch.nn.functional.cross_entropy(forward(model, x), y).backward()
        return time.perf_counter() - started

    small = name in ("wide",) or name.startswith("images")
    unit = 0.0 if small else min(plain(), plain())
    model.zero_grad(set_to_none=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found: dict = {}
    try:
        match what:
            case "nothing":
                forward(model, x[:2])
            case "inspect":
                pv.inspect(model, x, y)
            case "kfac":
                pv.kfac(model, x, y)
            case "curvlinops":
                from curvlinops import KFACLinearOperator

                class Logits(torch.nn.Module):
                    def __init__(self):
                        super().__init__()
                        self.inner = model

                    def forward(self, x):
                        return forward(self.inner, x)

                whole = Logits()
                weights = [m.weight for m in whole.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
                options = {"fisher_type": "mc", "kfac_approx": "expand", "separate_weight_and_bias": True}
                KFACLinearOperator(
                    whole, torch.nn.CrossEntropyLoss(), weights, [(x, y)], check_deterministic=False, **options
                ).compute_kronecker_factors()
            case _:
                pv.score(model, x, y, method=what)
    except PrunevizError as error:
        found["refused"] = str(error)
    except Exception as error:  # a peer's
        found["failed"] = f"{type(error).__name__}: {str(error)[:160]}"
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found |= {"seconds": round(seconds, 2), "above_MB": round((peak - before) / 1024), "peak_MB": round(peak / 1024)}
    return found | ({"ratio": round(seconds / unit, 1)} if unit else {})


def apart(name: str, what: str) -> dict:
    """The same in a process of its own."""
    try:
        done = subprocess.run([sys.executable, __file__, name, what], capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failed": f"not within {LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:200]}
    print(name, what, done.stdout.strip().splitlines()[-1], flush=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    import torch

    import pruneviz as pv

    found = {"wide": {what: apart("wide", what) for what in ("nothing", "kron-obd", "kron-obs", "eigendamage")}}
    for n in (200, 2000):
        found[f"images {n}"] = {what: apart(f"images {n}", what) for what in ("nothing", "snip", "grasp", "isometry")}
    for name in ("ResNet-50", "ViT-S"):
        found[name] = {what: apart(name, what) for what in ("inspect", "kfac", "curvlinops", *pv.METHODS)}
    record("networks", torch.device("cpu"), ("transformers", "curvlinops-for-pytorch"), threads=1, networks=found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:3])))
    else:
        main()
