"""The samples: real runs, small, whole, and what the pipeline of today would make."""

from __future__ import annotations

import numpy as np
import pytest

import pruneviz as pv
from pruneviz.methods import METHODS
from pruneviz.methods.base import Unit
from pruneviz.records.arrays import Network
from pruneviz.records.stages import Stage
from pruneviz.store import SAMPLES, Store
from pruneviz.store.exports import read_exports
from pruneviz.store.samples import Samples


def test_every_file_is_what_its_manifest_says_and_every_id_what_its_configuration_says():
    runs = read_exports(SAMPLES)
    assert {run.config.method for run in runs} == set(METHODS)
    assert all(run.id == run.config.id for run in runs)


def test_they_fill_the_four_views_within_6_mb():
    found = Samples(SAMPLES)
    for run in found.values():
        for probe in run.config.probes:
            assert run.names(probe)
        assert run.config.probes or run.config.seed > 0
        assert not run.metrics[run.metrics["stage"] == "tuned"].empty
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) <= 6e6


def test_every_method_is_there_where_it_fits_and_every_repair_on_another_network():
    runs = list(Samples(SAMPLES).values())

    def methods(model: str) -> set[str]:
        return {run.config.method for run in runs if (run.config.dataset, run.config.model) == ("digits", model)}

    assert methods("lenet-300-100") == set(METHODS) - {"l1-filters"}
    whole = {key for key, card in METHODS.items() if card.unit is not Unit.WEIGHT}
    assert whole < methods("digits-cnn")  # and methods that remove single weights beside them
    assert {run.config.repair for run in runs if run.config.model == "mlp-7x100"} == {"none", "rescale", "isometry"}


def test_home_s_runs_bring_their_networks_and_these_are_as_accurate_as_the_runs_say():
    """Four networks can be sent to a browser: what is kept, in float16, run here by NumPy on the test set."""
    x, y = (part.numpy() for part in pv.load("digits").test)
    found = [run for run in Samples(SAMPLES).values() if run.at(Network)]
    assert {run.config.method for run in found} == set(METHODS) - {"l1-filters", "kron-obd", "kron-obs", "eigendamage"}
    dense = [network for run in found if (network := run.read(Network, stage=Stage.DENSE))]
    assert len(dense) == 1
    for run in found:
        for s in (0.8, 0.9, 0.95, 0.98):
            network = run.read(Network, s)
            assert network is not None
            kept = sum(len(w) for w in network.weights if w is not None)
            assert kept == pytest.approx((1 - s) * sum(int(n.prod()) for n in network.shape if n is not None), abs=1)
            at = run.metrics.query("sparsity == @s and stage == 'tuned' and split == 'test' and metric == 'accuracy'")
            assert (_forward(network, x).argmax(1) == y).mean() == pytest.approx(at["value"].item(), abs=0.006)


def _forward(network: Network, x: np.ndarray) -> np.ndarray:
    signal = x.reshape(len(x), -1).astype(np.float64)
    for i, (w, bits, shape, bias) in enumerate(
        zip(network.weights, network.kept, network.shape, network.bias, strict=True)
    ):
        flat = np.zeros(int(shape.prod()))
        flat[np.unpackbits(bits, count=flat.size).astype(bool)] = w
        signal = signal @ flat.reshape(shape).T + bias
        signal = signal.clip(0) if i < len(network.weights) - 1 else signal
    return signal


def test_an_empty_store_shows_them(tmp_path):
    store = Store(tmp_path)
    assert set(store.runs()["source"]) == {"samples"}
    store.close()
