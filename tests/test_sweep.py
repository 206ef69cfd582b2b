"""One sweep: what it gives together is what each statistic is alone, however the samples pass through."""

import pytest
import torch
from problems import samples
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import UnsupportedLayer
from pruneviz.curvature.calls import kronecker_factors as kfac
from pruneviz.curvature.gradients import mean_gradient
from pruneviz.curvature.kronecker import KroneckerFactors, spectral_of_rows
from pruneviz.curvature.statistic import Diagonal, Gradient, HessianGradient, InputNorms, Jacobians, Kronecker, Rows
from pruneviz.curvature.sweep import passing, sweep
from pruneviz.curvature.task import Task, generator_for
from pruneviz.door.loss import CROSS_ENTROPY, SQUARED, tempered
from pruneviz.door.network import network_of
from pruneviz.run.statistics import Statistics

EVERY = (
    Gradient("eval"), Gradient("train"), Kronecker("sampled"), Kronecker("sampled", 3), Kronecker("exact"),
    Kronecker("empirical"), Diagonal("ggn"), Diagonal("exact"), Diagonal("fisher"), Diagonal("empirical"), Rows(),
    InputNorms(), HessianGradient(), HessianGradient(200.0, checked=True), Jacobians(3),
)  # fmt: skip


def flat(value) -> list[Tensor]:
    """All numbers of a statistic, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, KroneckerFactors):
        return [value.A, value.S]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in flat(part)]


def agree(one, two, tolerance: float = 1e-11) -> bool:
    pairs = list(zip(flat(one), flat(two), strict=True))
    assert pairs
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max())) for a, b in pairs)


@pytest.fixture(params=["mlp", "cnn"])
def network(request) -> nn.Module:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, SQUARED])
def test_statistics_together_are_those_alone(network, loss):
    x, y = samples(network)
    together = sweep(network, [(x, y)], EVERY, loss=loss, generator=generator_for(3, "score"))
    assert set(together) == set(EVERY)
    for statistic in EVERY:
        alone = sweep(network, [(x, y)], (statistic,), loss=loss, generator=generator_for(3, "score"))[statistic]
        assert agree(together[statistic], alone), statistic


def test_neither_batches_nor_portions_change_a_statistic(network):
    x, y = samples(network, 80)
    statistics = [s for s in EVERY if not isinstance(s, Rows)]  # kept portion by portion
    whole = sweep(network, [(x, y)], statistics, generator=generator_for(0, "score"))
    batches = list(zip(x.split(31), y.split(31), strict=True))
    for limit in (2**30, 20_000, 1):
        parts = sweep(network, batches, statistics, generator=generator_for(0, "score"), limit=limit)
        for statistic in statistics:
            assert agree(parts[statistic], whole[statistic], 1e-10), (statistic, limit)


def test_a_small_limit_means_many_portions_and_each_can_be_the_last(network):
    x, y = samples(network, 80)
    assert list(passing(network, [(x, y)], (Gradient(), InputNorms()))) == [80]
    steps = passing(network, [(x, y)], (Gradient(), Diagonal()), limit=1)
    assert [next(steps) for _ in range(3)] == [1, 2, 3]
    before = {name: p.clone() for name, p in network.state_dict().items()}
    steps.close()  # cancelled
    assert not any(module._forward_hooks for module in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_drawn_labels_do_not_depend_on_what_else_was_drawn(mlp):
    x, y = samples(mlp)
    generator = generator_for(0, "score")
    first = kfac(mlp, [(x, y)], generator=generator)
    torch.rand(17, generator=generator)
    assert agree(kfac(mlp, [(x, y)], generator=generator), first, 0)
    assert not agree(kfac(mlp, [(x, y)], generator=generator_for(1, "score")), first)


def test_labels_are_drawn_by_their_probability():
    logits = torch.tensor([[0.0, 1.0, -1.0, -60.0], [50.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    slopes = CROSS_ENTROPY.drawn(logits, 20_000, torch.Generator().manual_seed(0))  # p - one_hot(label)
    labels = (logits.softmax(1) - slopes).argmax(2)
    shares = torch.stack([(labels == c).double().mean(0) for c in range(4)], 1)
    assert torch.allclose(shares, logits.softmax(1), atol=0.015)  # 4 standard deviations of a share of a half


def test_the_curvature_root_needs_one_column_less_than_there_are_classes():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    p, B = logits.softmax(1), CROSS_ENTROPY.root(logits)
    assert B.shape == (6, 5, 4)
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    assert torch.allclose(B @ B.mT, A, rtol=1e-12, atol=1e-15)


def test_gradients_cover_every_parameter_and_train_mode_where_it_matters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).double()
    x, y = samples(model)
    for mode in ("eval", "train"):
        found = sweep(model, [(x, y)], (Gradient(mode), Diagonal("empirical")))[Gradient(mode)]
        assert agree(found, mean_gradient(model, [(x, y)], CROSS_ENTROPY, mode=mode))
        assert set(found) == {name for name, _ in model.named_parameters()}


def test_activations_that_work_in_place_change_nothing(cnn):
    x, y = samples(cnn)
    in_place = nn.Sequential(*(nn.ReLU(inplace=True) if isinstance(m, nn.ReLU) else m for m in cnn))
    wanted = [s for s in EVERY if not isinstance(s, HessianGradient | Jacobians)]
    one, two = (sweep(model, [(x, y)], wanted, generator=generator_for(0, "")) for model in (cnn, in_place))
    assert all(agree(one[s], two[s]) for s in wanted)


def test_an_input_that_is_overwritten_is_refused(mlp):
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            out = self.second(h.detach())
            h.mul_(2)
            return out + h[:, :3]

    with pytest.raises(UnsupportedLayer, match="input of layer 'second' was overwritten"):
        sweep(Overwrites().double(), [samples(mlp)], (Kronecker(),))


def test_a_gradient_alone_asks_nothing_of_the_network(mlp):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x))

    x, y = samples(mlp)
    model = Twice().double()
    assert agree(sweep(model, [(x, y)], (Gradient(),))[Gradient()], mean_gradient(model, [(x, y)], CROSS_ENTROPY))
    with pytest.raises(UnsupportedLayer, match="used twice"):
        sweep(model, [(x, y)], (Gradient(), Kronecker()))


def test_input_norms_are_the_diagonal_of_a(network):
    x, y = samples(network)
    found = sweep(network, [(x, y)], (InputNorms(), Kronecker()))
    assert all(
        torch.allclose(norms, found[Kronecker()][name].A.diagonal()) for name, norms in found[InputNorms()].items()
    )


def test_the_hessian_times_its_gradient_is_the_explicit_product(mlp):
    x, y = samples(mlp)
    names = ["0.weight", "2.weight"]
    values = {name: p.detach() for name, p in mlp.named_parameters()}

    def loss(flat: Tensor) -> Tensor:
        parts = dict(zip(names, flat.split([30, 15]), strict=True))
        own = values | {name: part.view(values[name].shape) for name, part in parts.items()}
        return tempered(CROSS_ENTROPY, 4.0)(torch.func.functional_call(mlp, own, (x,)), y)

    at = torch.cat([values[name].flatten() for name in names])
    expected = torch.autograd.functional.hessian(loss, at) @ torch.autograd.functional.jacobian(loss, at)
    for batches in ([(x, y)], list(zip(x.split(3), y.split(3), strict=True))):
        found = sweep(mlp, batches, (HessianGradient(4.0),))[HessianGradient(4.0)]
        assert torch.allclose(torch.cat([found[name].flatten() for name in names]), expected, rtol=1e-10, atol=1e-14)


def test_statistics_are_gathered_once_for_the_same_weights_and_samples(mlp, monkeypatch):
    x, y = samples(mlp)
    passes = []
    network_of(mlp, x)  # a look at the network, once
    mlp.register_forward_hook(lambda *_: passes.append(1))
    statistics = Statistics()
    wanted = (Kronecker(), Diagonal(), Gradient())

    def task(seed: int = 0) -> Task:
        return Task(lambda: [(x, y)], generator_for(seed, "score"), statistics=statistics)

    assert list(statistics.gather(mlp, task(), wanted)) == [7]
    assert len(passes) == 1
    for statistic in wanted:
        assert agree(
            task().statistic(mlp, statistic), sweep(mlp, [(x, y)], (statistic,), generator=task().generator)[statistic]
        )
    assert len(passes) == 4  # the three sweeps of this test alone
    task(1).statistic(mlp, Kronecker())
    assert len(passes) == 5  # other labels
    with torch.no_grad():
        mlp[0].weight[0, 0] += 1
    task().statistic(mlp, Diagonal())
    assert len(passes) == 6  # other weights
    statistics.clear()
    task().statistic(mlp, Diagonal())
    assert len(passes) == 7


# factors kept as rows


def test_few_samples_are_kept_as_rows_and_are_the_same_factors():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 4, 3), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    x, y = torch.randn(12, 2, 4, 4).double(), torch.randint(0, 3, (12,))
    few, many = pv.kfac(model, x, y, fisher="exact"), kfac(model, [(x, y)] * 20, fisher="exact")
    assert [few[name].rows is not None for name in ("0", "2", "4")] == [False, True, True]
    assert not any(factors.rows is not None for factors in many.values())
    for name, own in few.items():
        whole = many[name]  # the same samples twenty times: the same means
        assert torch.allclose(own.A, whole.A, rtol=1e-12, atol=1e-12)
        assert torch.allclose(own.S, whole.S, rtol=1e-12, atol=1e-14)
        for one, two in zip(own.eigenvalues(), whole.eigenvalues(), strict=True):
            assert torch.allclose(one, two, atol=1e-12 * float(two.max()))
        for complete in (True, False):
            for matrix, (values, Q) in zip((own.A, own.S), own.eigh(complete=complete), strict=True):
                assert torch.allclose(Q * values @ Q.T, matrix, atol=1e-11 * float(matrix.abs().max()))
                assert torch.allclose(Q.T @ Q, torch.eye(Q.shape[1], dtype=Q.dtype), atol=1e-10)
        assert own.eigh()[0][1].shape == own.A.shape
    batches = list(zip(x.split(5), y.split(5), strict=True))
    for name, factors in kfac(model, batches, fisher="exact").items():
        assert torch.allclose(factors.A, few[name].A, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["plain", "repeated", "steep", "zero", "one"])
@pytest.mark.parametrize("complete", [True, False])
def test_the_spectrum_of_rows_is_that_of_their_gram_matrix(kind: str, complete: bool):
    rows = torch.randn(8, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if kind == "repeated":
        rows[5] = rows[4]
    elif kind == "steep":
        rows *= torch.logspace(0, -9, 8, dtype=torch.float64)[:, None]
    elif kind == "zero":
        rows[:] = 0
    elif kind == "one":
        rows = rows[:1]
    values, Q = spectral_of_rows(rows, complete=complete)
    A = rows.T @ rows
    assert Q.shape == (20, 20 if complete else len(rows))
    assert torch.allclose(Q.T @ Q, torch.eye(Q.shape[1], dtype=Q.dtype), atol=1e-9)  # 1e7 x precision, as SURE says
    assert torch.allclose(Q * values @ Q.T, A, atol=1e-12 * max(1.0, float(A.abs().max())))
    dense = torch.linalg.eigvalsh(A)[-len(values) :]
    assert torch.allclose(values, dense, atol=1e-13 * max(1.0, float(dense.max())))
    assert bool((values.diff() >= -1e-13 * max(1.0, float(values.max()))).all())
