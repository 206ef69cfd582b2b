"""The samples: real runs, small, whole, and what the pipeline of today would make."""

from __future__ import annotations

from pruneviz.methods import METHODS
from pruneviz.methods.base import Unit
from pruneviz.store import SAMPLES, Store
from pruneviz.store.archive import Samples, read_exports


def test_every_file_is_what_its_manifest_says_and_every_id_what_its_configuration_says():
    runs = read_exports(SAMPLES)
    assert {run.config.method for run in runs} == set(METHODS)
    assert all(run.id == run.config.id for run in runs)


def test_they_fill_the_four_views_within_5_mb():
    found = Samples(SAMPLES)
    for run in found.values():
        for probe in run.config.probes:
            assert run.names(probe)
        assert run.config.probes or run.config.seed > 0
        assert not run.metrics[run.metrics["stage"] == "tuned"].empty
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) <= 5e6


def test_every_method_is_there_where_it_fits_and_every_repair_on_another_network():
    runs = list(Samples(SAMPLES).values())

    def methods(model: str) -> set[str]:
        return {run.config.method for run in runs if (run.config.dataset, run.config.model) == ("digits", model)}

    assert methods("lenet-300-100") == set(METHODS) - {"l1-filters"}
    whole = {key for key, card in METHODS.items() if card.unit is not Unit.WEIGHT}
    assert whole < methods("digits-cnn")  # and methods that remove single weights beside them
    assert {run.config.repair for run in runs if run.config.model == "mlp-7x100"} == {"none", "rescale", "isometry"}


def test_an_empty_store_shows_them(tmp_path):
    store = Store(tmp_path)
    assert set(store.runs()["source"]) == {"samples"}
    store.close()
