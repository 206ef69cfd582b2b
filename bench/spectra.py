"""Eigenvalues, singular values and memory: ``python bench/spectra.py``. Writes ``bench/results/spectra.json``.

Eigendecompositions of factors kept as rows beside plain ``eigh`` of the dense factor; all spectra of VGG-19 at batch 64; the
layers' Jacobians of LeNet-300-100 beside autograd's, in turns and checked to agree; and the peak memory of VGG-19's factors
above one forward and backward pass, each in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import warnings

from measure import record, seconds, steady, turns  # puts the project on the path

steady()

import peers  # noqa: E402
import torch  # noqa: E402
from curvature import network, plain  # noqa: E402

import pruneviz as pv  # noqa: E402
from pruneviz.curvature.calls import kronecker_factors as kfac  # noqa: E402
from pruneviz.curvature.kronecker import spectral_of_rows  # noqa: E402
from pruneviz.run.loop import default_device  # noqa: E402

ROWS = {
    "as deep as VGG-19's last layers, batch 64": (256, 4608),
    "its layers before": (1024, 4608),
    "LeNet": (150, 784),
}
REPEATS = 5


def small_gram(device: torch.device) -> list[dict]:
    """Rows fewer than a quarter of the columns."""
    torch.set_num_threads(2)
    found = []
    for what, (r, n) in ROWS.items():
        rows = torch.rand(r, n, generator=torch.Generator().manual_seed(0)).to(device) / r**0.5
        dense = rows.T @ rows
        times = turns(
            {
                "rows": lambda rows=rows: spectral_of_rows(rows, complete=False),
                "complete": lambda rows=rows: spectral_of_rows(rows),
                "eigh": lambda dense=dense: torch.linalg.eigh(dense),
                "eigh in float64, as the rows are": lambda dense=dense: torch.linalg.eigh(dense.double()),
            },
            device, 3,
        )  # fmt: skip
        values, vectors = spectral_of_rows(rows, complete=False)
        error = float((vectors * values @ vectors.T - dense).norm() / dense.norm())
        found.append(
            {
                "what": what, "rows": r, "columns": n, "seconds": {k: round(v, 4) for k, v in times.items()},
                "times_faster": round(times["eigh"] / times["rows"], 1),
                "times_faster_same_precision": round(times["eigh in float64, as the rows are"] / times["rows"], 1),
                "times_faster_complete": round(times["eigh"] / times["complete"], 1),
                "difference": float(f"{error:.1e}"),
            }
        )  # fmt: skip
        print(found[-1], flush=True)
    return found


def all_spectra(device: torch.device) -> dict:
    """Every factor of VGG-19 at batch 64, once each way."""
    model, x, y = network("vgg-19", device)
    factors = kfac(model, [(x, y)])
    own = seconds(lambda: [pair.eigh(complete=False) for pair in factors.values()], device)
    complete = seconds(lambda: [pair.eigh() for pair in factors.values()], device)
    values = seconds(lambda: [pair.eigenvalues() for pair in factors.values()], device)
    dense = [m for pair in factors.values() for m in (pair.A, pair.S)]
    theirs = seconds(lambda: [torch.linalg.eigh(m) for m in dense], device)
    row = {
        "seconds": {"eigenvalues": values, "those that can differ from 0, with vectors": own, "all": complete, "eigh": theirs},
        "share_of_eigh": round(own / theirs, 3), "share_of_eigh_all": round(complete / theirs, 3),
        "kept_as_rows": sum(pair.rows is not None for pair in factors.values()), "layers": len(factors),
    }  # fmt: skip
    row["seconds"] = {k: round(v, 2) for k, v in row["seconds"].items()}
    print(row, flush=True)
    return row


def jacobians(device: torch.device) -> dict:
    """LeNet-300-100, 16 samples."""
    model, x, y = network("lenet-300-100", device)
    x = x[:16]
    runs = {"ours": lambda: pv.jacobian_singular_values(model, x), "plain": plain(model, x, y[:16])}
    runs |= {name: peers.autograd_jacobians(model, x, v) for name, v in (("autograd", False), ("vectorized", True))}
    times = turns(runs, device, REPEATS)
    theirs = runs["autograd"]()
    found = list(pv.jacobian_singular_values(model, x).values())
    error = max(float((a - b).abs().max() / b.max()) for a, b in zip(found, theirs.values(), strict=True))
    row = {
        "times_faster": round(times["autograd"] / times["ours"], 1),
        "times_faster_than_vectorized": round(times["vectorized"] / times["ours"], 1),
        "difference": float(f"{error:.1e}"),
        "milliseconds": {name: round(1000 * t, 2) for name, t in times.items()},
    }
    print(row, flush=True)
    return row


def peak(what: str) -> int:
    """Peak memory of one pass in a new process, in bytes."""
    out = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True, check=True).stdout
    return int(out.splitlines()[-1])


def alone(what: str) -> None:
    model, x, y = network("vgg-19", torch.device("cpu"))
    plain(model, x, y)()
    if what == "factors":
        model.zero_grad()
        kept = kfac(model, [(x, y)])
        assert kept
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def main() -> None:
    """Everything."""
    warnings.simplefilter("ignore")
    device = default_device()
    passes, factors = peak("plain"), peak("factors")
    memory = {"forward_and_backward_MB": passes // 10**6, "factors_above_that_MB": (factors - passes) // 10**6}
    memory["dense_factors_alone_MB"] = (
        4
        * sum(
            m.weight[0].numel() ** 2 + len(m.weight) ** 2
            for m in peers.layers_of(network("vgg-19", device)[0]).values()
        )
        // 10**6
    )
    print(memory, flush=True)
    found = {"memory_of_vgg_19": memory, "jacobians": jacobians(device), "rows": small_gram(device)}
    record("spectra", device, (), **found, spectra_of_vgg_19=all_spectra(device), repeats=REPEATS)


if __name__ == "__main__":
    if sys.argv[1:]:
        alone(sys.argv[1])
    else:
        main()
