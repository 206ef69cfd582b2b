"""``pv.explore``: a network of this process by every method that fits, and numbers that are those of plain calls."""

from __future__ import annotations

import numpy as np
import own
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import pruneviz as pv
from pruneviz.basics.errors import DataUnavailable, InvalidSetting, PrunevizError, Unsuitable

QUICK = {"sparsity": (0.5, 0.8), "tune_epochs": 1, "probes": ("saliency",)}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return own.trained()[1]


@pytest.fixture(scope="module")
def parts():
    x, y = (torch.as_tensor(a) for a in own.samples(240))
    return (x[:180], y[:180]), (x[180:], y[180:])


def test_every_method_that_fits_runs_and_the_others_say_why(net, parts):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = pv.explore(net, *parts, name="mine", epochs=1, **QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert {run.state for run in found} == {"succeeded"}
    assert {row["method"] for row in found.skipped} == {"lottery-ticket", "l1-filters"}
    assert {run.config.method for run in found} == set(pv.METHODS) - {"lottery-ticket", "l1-filters"}
    assert all(run.id.startswith(f"{run.config.method}-mine-mine-") for run in found)
    figure = pv.figures.curves(list(found))
    assert len(figure.data) >= len(found)


def test_the_dense_network_is_the_given_one_and_pruning_is_that_of_prune(net, parts):
    found = pv.explore(net, *parts, methods=["magnitude"], rounds=1, **QUICK)
    table = found.metrics
    (train_x, _), (x, y) = parts

    def at(sparsity: float, stage: str) -> float:
        rows = table[(table["metric"] == "accuracy") & (table["split"] == "test")]
        return float(rows[(rows["sparsity"] == sparsity) & (rows["stage"] == stage)]["value"].iloc[0])

    assert at(0.0, "dense") == pytest.approx(float((net(x).argmax(1) == y).float().mean()))
    for s in (0.5, 0.8):
        alone = pv.prune(net, train_x[:4], method="magnitude", sparsity=s).model
        assert at(s, "pruned") == pytest.approx(float((alone(x).argmax(1) == y).float().mean()))


@pytest.mark.parametrize("form", ["arrays", "datasets", "splits", "one part"])
def test_samples_in_any_form_are_the_same_samples(net, parts, form):
    (ax, ay), (bx, by) = parts
    usual = pv.explore(net, (ax, ay), (bx, by), methods=["magnitude"], rounds=1, **QUICK)
    if form == "arrays":
        given = ((ax.numpy(), ay.numpy()), (bx.numpy(), by.numpy()))
    elif form == "datasets":
        given = (TensorDataset(ax, ay), TensorDataset(bx, by))
    elif form == "splits":
        from pruneviz.run.samples import samples_of, splits

        given = (splits(samples_of("x", ((ax, ay), (bx, by))), False),)
    else:
        given = ((ax, ay),)
    found = pv.explore(net, *given, methods=["magnitude"], rounds=1, **QUICK)
    same = found.ids == usual.ids
    assert same is (form != "one part")
    if form == "one part":
        assert any("split off for the test" in text for text in found.said)


def test_a_class_is_trained_first_and_methods_at_initialisation_get_fresh_weights_by_seed(parts):
    class Small(nn.Sequential):
        def __init__(self, classes: int):
            super().__init__(nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, classes))

    found = pv.explore(Small, *parts, methods=["snip", "magnitude"], epochs=4, rounds=1, seed=(0, 1), **QUICK)
    table = found.metrics
    dense = table[(table["stage"] == "dense") & (table["metric"] == "epochs")]
    assert set(dense["value"]) == {4.0}
    losses = table[(table["stage"] == "pruned") & (table["metric"] == "loss") & (table["split"] == "test")]
    snip = losses[(losses["method"] == "snip") & (losses["sparsity"] == 0.5)]
    assert snip["value"].nunique() == 2  # two seeds, two initialisations


def test_initial_weights_let_the_lottery_ticket_go_back(parts):
    first, net = own.trained()
    found = pv.explore(net, *parts, methods=["lottery-ticket"], initial=first, epochs=1, rounds=1, **QUICK)
    assert [run.state for run in found] == ["succeeded"]
    assert found.skipped == ()


def test_runs_stay_in_a_store_and_no_other_process_resumes_them(net, parts, store):
    found = pv.explore(net, *parts, methods=["magnitude"], store=store, rounds=1, **QUICK)
    assert list(store.runs()["state"]) == ["succeeded"]
    again = pv.explore(net, *parts, methods=["magnitude"], store=store, rounds=1, **QUICK)
    assert again.ids == found.ids
    with pytest.raises(PrunevizError, match=r"through pv\.explore"):
        store.queue([found[0].config], again=True)
    with pytest.raises(PrunevizError, match=r"through pv\.explore"):
        store.resume(found.ids[0])


def test_another_network_or_other_weights_are_other_runs(net, parts):
    ids = {pv.explore(net, *parts, methods=["magnitude"], rounds=1, **QUICK).ids}
    ids.add(pv.explore(own.network(9), *parts, methods=["magnitude"], rounds=1, **QUICK).ids)
    x, y = parts[0]
    ids.add(pv.explore(net, (x * 2, y), parts[1], methods=["magnitude"], rounds=1, **QUICK).ids)
    assert len(ids) == 3


def test_token_networks_are_explored(store):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.table(x).mean(1))

    torch.manual_seed(0)
    x = torch.randint(0, 20, (90, 6))
    found = pv.explore(Words(), (x, (x[:, 0] > 9).long()), methods=["magnitude", "snip"], epochs=1, rounds=1, **QUICK)
    assert {run.state for run in found} == {"succeeded"}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, InvalidSetting, "found a int"),
        ({"train": None}, InvalidSetting, "needs training samples"),
        ({"train": (np.full((30, 1, 4, 4), np.nan), np.arange(30) % 3)}, DataUnavailable, "NaN or infinite"),
        ({"train": (np.ones((30, 1, 4, 4)), np.zeros(30))}, DataUnavailable, "the same class"),
        ({"train": "digits", "test": None}, Unsuitable, "does not run on these samples"),
        ({"train": (np.ones((60, 1, 4, 4)), np.arange(60) % 5), "test": None}, Unsuitable, "have 5 classes"),
        ({"methods": ["snipp"]}, PrunevizError, "Did you mean 'snip'"),
        ({"methods": ["l1-filters"]}, Unsuitable, "No method fits this network"),
        ({"sparsity": 95}, InvalidSetting, "Did you mean 0.95"),
        ({"loss": "hinge"}, InvalidSetting, "hinge"),
        ({"model": lambda width: None}, Unsuitable, "wants the argument 'width'"),
        ({"model": lambda: None}, Unsuitable, "not a network"),
        ({"model": nn.Flatten()}, Unsuitable, "parameter"),
    ],
)
def test_wrong_input_is_one_sentence(net, parts, change, error, words):
    given = {"model": net, "train": parts[0], "test": parts[1], "methods": ["magnitude"], **QUICK, **change}
    with pytest.raises(error) as caught:
        pv.explore(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class _Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.inner(x)[0][:, -1])


class _Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.inner, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.inner(self.table(x)).mean(1))


class _ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix, self.head = nn.Parameter(torch.randn(6, 8) / 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(nn.functional.softplus(x @ self.matrix))


NO_PRODUCTS = {"kron-obd", "kron-obs", "eigendamage", "l1-filters"}
KINDS = {
    "a recurrent network": (_Recurrent, lambda: torch.randn(90, 5, 6), NO_PRODUCTS),
    "attention over tokens": (_Attentive, lambda: torch.randint(0, 30, (90, 6)), {"l1-filters"}),
    "a matrix of its own": (_ByHand, lambda: torch.randn(90, 6), NO_PRODUCTS),
    "one layer": (lambda: nn.Linear(6, 3), lambda: torch.randn(90, 6), NO_PRODUCTS),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)),
        lambda: torch.randn(90, 1, 4, 4, 4),
        NO_PRODUCTS,
    ),
    "sequences": (
        lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.Mish(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3)),
        lambda: torch.randn(90, 4, 12),
        set(),
    ),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_networks_of_every_kind_run_with_every_probe_by_all_that_fits(kind):
    torch.manual_seed(0)
    build, samples, unfit = KINDS[kind]
    found = pv.explore(build(), (samples(), torch.arange(90) % 3), sparsity=0.3, tune_epochs=1, epochs=1)
    assert {run.config.method: run.state for run in found} == dict.fromkeys(
        set(pv.METHODS) - unfit - {"lottery-ticket"}, "succeeded"
    )
    assert {row["method"] for row in found.skipped} == unfit | {"lottery-ticket"}
    for run in found:
        assert run.metrics.query("metric == 'reached' and stage == 'tuned'")["value"].iloc[0] > 0.1 or run.config.method in (
            "l1-filters", "kron-obd", "kron-obs", "eigendamage"
        )  # fmt: skip
