"""Filters and directions: each score, move, rotation and choice against something written differently, in float64."""

from __future__ import annotations

import itertools
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import samples
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, PruningWarning, Unreachable, Unsuitable
from pruneviz.curvature.kronecker import KroneckerFactors
from pruneviz.curvature.task import Task, generator_for
from pruneviz.methods import method_class
from pruneviz.methods.kron_obs import inverse
from pruneviz.methods.l1_filters import stages_of
from pruneviz.units import directions
from pruneviz.units.choice import select_units
from pruneviz.units.directions import Directions, Rotated, plain, rotated
from pruneviz.units.filters import Filters
from pruneviz.units.masks import Mask

EXACT = {"fisher": "exact"}


def dense_minimum(H: Tensor, w: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
    """The least 1/2 d^T H d with d = -w where ``gone``, by solving for the others: (d, rise)."""
    d = torch.where(gone, -w, 0.0)
    free = ~gone
    d[free] = -torch.linalg.lstsq(H[free][:, free], H[free][:, gone] @ d[gone], driver="gelsd").solution
    return d, d @ H @ d / 2


def damped(factors: KroneckerFactors, damping: float) -> KroneckerFactors:
    S = factors.S
    return KroneckerFactors(factors.A, S + damping * S.diagonal().mean() * torch.eye(len(S), dtype=S.dtype))


class Given:
    """Statistics that were decided beforehand."""

    def __init__(self, factors: dict[str, KroneckerFactors]):
        self.factors = factors

    def get(self, model, task, statistic):
        return self.factors


def given(model: nn.Module, factors: dict[str, KroneckerFactors]) -> Task:
    x, y = samples(model)
    return Task(lambda: [(x, y)], generator_for(0, "score"), statistics=Given(factors))  # pyright: ignore[reportArgumentType]


# the choice


def test_a_choice_is_the_longest_prefix_of_the_ranking_that_stays_below_the_target(cnn):
    """By brute force over all prefixes; no layer loses all, and what saves nothing stays."""
    x, _ = samples(cnn)
    layout = Filters(cnn, x[:1], share=None)
    full = layout.full()
    generator = torch.Generator().manual_seed(0)
    values = {g: torch.rand(g.size, generator=generator, dtype=torch.float64) for g in layout.groups}
    ranking = sorted(
        ((float(v), g, i) for g, value in values.items() for i, v in enumerate(value)), key=lambda row: row[0]
    )
    prefixes = [dict(full.units)]
    for _, group, i in ranking:
        units = {g: keep.clone() for g, keep in prefixes[-1].items()}
        units[group][i] = False
        if units[group].any():
            prefixes.append(units)
    reachable = [1 - layout.left(units) / layout.size for units in prefixes]
    for target in np.linspace(0, max(reachable), 23):
        found = select_units(values, full, float(target))
        assert found.sparsity == pytest.approx(max(s for s in reachable if s <= target + 1e-12))
    with pytest.raises(Unreachable, match=f"Ask for {max(reachable):.10g} or less") as beyond:
        select_units(values, full, 0.999)
    assert beyond.value.most == pytest.approx(max(reachable))
    assert select_units(values, full, beyond.value.most).sparsity == pytest.approx(max(reachable))


def test_a_mask_only_shrinks_over_rounds(cnn):
    x, _ = samples(cnn)
    layout = Filters(cnn, x[:1])
    values = {g: torch.arange(g.size, dtype=torch.float64) for g in layout.groups}
    first = select_units(values, layout.full(), 0.4)
    again = select_units({g: -v for g, v in values.items()}, first, 0.6)
    for group, keep in first.units.items():
        assert not (again.units[group] & ~keep).any()
    with pytest.raises(InvalidSetting, match="only shrinks"):
        select_units(values, again, 0.2)


def test_what_leaves_with_a_filter_is_counted_by_hand(cnn):
    """1 -> 3 -> 4 channels, 16 inputs of the head: without filter 1 of the first layer."""
    x, _ = samples(cnn)
    layout = Filters(cnn, x[:1])
    first, second = layout.groups
    mask = layout.mask({first: torch.tensor([True, False, True]), second: torch.ones(4, dtype=torch.bool)})
    assert layout.size == 27 + 108 + 48
    assert mask.removed == 9 + 36
    assert not mask["0.weight"][1].any()
    assert not mask["2.weight"][:, 1].any()
    assert mask.coupled["0.bias"].tolist() == [True, False, True]
    assert mask["5.weight"].all()


# L1 filters


def test_l1_is_the_sum_of_absolute_weights_and_takes_the_same_share_of_each_layer(cnn):
    x, y = samples(cnn)
    found = pv.score(cnn, x, y, method="l1-filters")
    assert torch.equal(found["2"][0], torch.tensor([f.abs().sum() for f in cnn[2].weight.detach()]))
    model = nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Conv2d(10, 20, 3), nn.Flatten(), nn.Linear(80, 3)).double()
    for ratio in (0.1, 0.3, 0.5):
        left = {name: int(n * (1 - ratio) + 1e-9) for name, n in (("0", 10), ("2", 20))}
        size = 90 + 1800 + 240
        target = 1 - (9 * left["0"] + 9 * left["0"] * left["2"] + 12 * left["2"]) / size
        mask = pv.prune(model, x, y, method="l1-filters", sparsity=target + 1e-9).mask
        assert {g.layer: int(k.sum()) for g, k in mask.units.items() if g.layer != "4"} == left
        for group, keep in list(mask.units.items())[:2]:
            norms = model.get_submodule(group.layer).weight.detach().abs().flatten(1).sum(1)
            assert norms[keep].min() > norms[~keep].max()


def test_greedy_leaves_out_what_earlier_layers_lost():
    """Second layer: filter 0 is large only where it reads the channel that is gone."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2)
    ).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [5.0]])[..., None, None])
        model[1].weight.copy_(torch.tensor([[9.0, 1.0], [0.0, 3.0]])[..., None, None])
    x, y = torch.ones(2, 1, 1, 1).double(), torch.tensor([0, 1])
    size, left = 2 + 4 + 4, 1 + 1 + 2
    kept = {
        mode: [k.tolist() for k in pv.prune(model, x, y, method="l1-filters", sparsity=1 - left / size, mode=mode).mask.units.values()]
        for mode in ("independent", "greedy")
    }  # fmt: skip
    assert kept["independent"] == [[False, True], [True, False]]
    assert kept["greedy"] == [[False, True], [False, True]]


def test_stages_are_convolutions_of_one_image_size_and_unknown_ones_are_refused():
    model = pv.build("vgg-16", shape=(3, 32, 32), classes=10, width=1 / 16)
    stages = stages_of(model, torch.zeros(1, 3, 32, 32))
    assert list(stages.values()) == [1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    x, y = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    with pytest.raises(Unsuitable, match="there are stages 1 to 5"):
        pv.prune(model, x, y, method="l1-filters", sparsity=0.1, per_stage={"6": 0.5})
    with pytest.raises(Unsuitable, match="No convolution is called 'conv9'"):
        pv.prune(model, x, y, method="l1-filters", sparsity=0.1, skip=["conv9"])
    with pytest.raises(InvalidSetting, match="per_stage is written"):
        pv.prune(model, x, y, method="l1-filters", sparsity=0.1, per_stage="half")
    chosen = method_class("l1-filters").from_params({"per_stage": "1=0.5, 4=0.25", "skip": "2, 5"})
    assert chosen.model_dump(mode="json") == {
        "mode": "independent", "per_stage": {"1": 0.5, "4": 0.25}, "skip": ["2", "5"],
    }  # fmt: skip
    assert method_class("l1-filters").from_params(chosen.model_dump(mode="json")) == chosen


# factors


def test_each_group_of_a_convolution_has_its_own_factors():
    """Against a network in which each group is a convolution of its own."""
    torch.manual_seed(0)
    grouped = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.Flatten(), nn.Linear(6 * 25, 3)).double()

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Conv2d(2, 3, 3, padding=1).double() for _ in range(2))
            self.head = grouped[2]

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.a(x[:, :2]), self.b(x[:, 2:])], 1).flatten(1))

    split = Split()
    for i, layer in enumerate((split.a, split.b)):
        layer.weight.data.copy_(grouped[0].weight[3 * i : 3 * i + 3])
        layer.bias.data.copy_(grouped[0].bias[3 * i : 3 * i + 3])
    x, y = torch.randn(5, 4, 5, 5).double(), torch.arange(5) % 3
    ours, theirs = pv.kfac(grouped, x, y, **EXACT), pv.kfac(split, x, y, **EXACT)
    for i, name in enumerate("ab"):
        torch.testing.assert_close(ours["0"].A[i], theirs[name].A)
        torch.testing.assert_close(ours["0"].S[i], theirs[name].S)
    assert ours["0"].dense().shape == (6 * 18, 6 * 18)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("key", "n"), [("lenet-5-caffe", 6), ("vgg-16", 2), ("resnet-20", 6)])
def test_factors_agree_with_curvlinops(key: str, n: int):
    """Its "expand" factors with mean reduction are A / L and S L of ours, L the positions of a convolution."""
    curvlinops = pytest.importorskip(
        "curvlinops", reason="curvlinops is not installed: pip install -r requirements-heavy.txt"
    )
    model = pv.build(key, shape=(1, 28, 28), classes=10).double().eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 28, 28, generator=generator, dtype=torch.float64)
    y = torch.arange(n) % 10
    ours = pv.kfac(model, x, y, fisher="exact")
    params = [model.get_submodule(n).weight for n in ours]
    theirs = curvlinops.KFACLinearOperator(
        model, nn.CrossEntropyLoss(), params, [(x, y)], fisher_type="type-2", kfac_approx="expand",
        separate_weight_and_bias=True, check_deterministic=False,
    )  # fmt: skip
    theirs.compute_kronecker_factors()
    positions: dict[str, int] = {}
    for name in ours:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda m, i, o, n=name: positions.__setitem__(n, o[0].numel() // len(m.weight)))
    model(x)
    assert len(ours) >= 4
    for name, pair in ours.items():
        L = positions[name]
        A, S = theirs._input_covariances[name], theirs._gradient_covariances[name]
        assert (A * L - pair.A).norm() <= 1e-5 * pair.A.norm(), name
        assert (S / L - pair.S).norm() <= 1e-5 * pair.S.norm(), name


# Kron-OBD and Kron-OBS


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_kron_obd_is_whole_row_obd_with_the_dense_matrix(kind: str, request):
    model = request.getfixturevalue(kind)
    x, y = samples(model, 20)
    factors, found = pv.kfac(model, x, y, **EXACT), pv.score(model, x, y, method="kron-obd", **EXACT)
    for name, scores in found.items():
        weight = model.get_submodule(name).weight.detach()
        for j in range(len(weight)):
            alone = torch.zeros_like(weight)
            alone[j] = weight[j]
            v = alone.flatten()
            torch.testing.assert_close(scores[0][j], v @ factors[name].dense() @ v / 2)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_kron_obs_is_the_dense_constrained_minimum_for_one_two_and_three_filters(kind: str, request):
    """Scores of one filter; the moves and the summed rises of the first filters of each layer's greedy order."""
    model = request.getfixturevalue(kind)
    x, y = samples(model, 40)
    damping = 1e-2
    method = method_class("kron-obs").from_params({"damping": damping, **EXACT})
    task = Task(lambda: [(x, y)], generator_for(0, "score"))
    full = method.full(model, task)
    scores = method.score(model, task, full)
    factors = pv.kfac(model, x, y, **EXACT)
    for group in full.layout.groups:
        weight = model.get_submodule(group.layer).weight.detach()
        H, w = damped(factors[group.layer], damping).dense(), weight.flatten()
        rows = torch.arange(w.numel()) // weight[0].numel()
        for j in range(len(weight)):
            torch.testing.assert_close(scores.values[group][j], dense_minimum(H, w, rows == j)[1])
        order, losses = scores.plan.orders[group]
        for count in (1, 2, 3):
            if count >= len(weight):
                continue
            leaving = order[:count]
            d, rise = dense_minimum(H, w, torch.isin(rows, leaving))
            torch.testing.assert_close(losses[:count].sum(), rise)
            units = {g: torch.ones_like(k) for g, k in full.units.items()}
            units[group][leaving] = False
            moved = method.repaired(model, task, scores, full.keeping(units))[f"{group.layer}.weight"]
            torch.testing.assert_close(moved.flatten(), w + d, rtol=1e-6, atol=1e-9)


def test_the_greedy_order_takes_the_least_rise_at_every_step(mlp):
    """By dense minima over all candidates, given those that left before."""
    x, y = samples(mlp, 40)
    method = method_class("kron-obs").from_params({"damping": 1e-2, **EXACT})
    task = Task(lambda: [(x, y)], generator_for(0, "score"))
    full = method.full(mlp, task)
    (group,) = full.layout.groups
    order = method.score(mlp, task, full).plan.orders[group][0].tolist()
    weight = mlp[0].weight.detach()
    H = damped(pv.kfac(mlp, x, y, **EXACT)["0"], 1e-2).dense()
    rows = torch.arange(weight.numel()) // 6
    for step in range(4):
        rises = {
            j: float(dense_minimum(H, weight.flatten(), torch.isin(rows, torch.tensor([*order[:step], j])))[1])
            for j in range(5)
            if j not in order[:step]
        }
        assert order[step] == min(rises, key=rises.__getitem__)


def test_single_moves_are_added_up_where_they_are_not_joint_and_row_sums_are_what_the_code_computes(mlp):
    x, y = samples(mlp, 40)
    factors = pv.kfac(mlp, x, y, **EXACT)["0"]
    weight = mlp[0].weight.detach()
    inverse = factors.inverse(1e-6).S
    pruned = pv.prune(mlp, x, y, method="kron-obs", sparsity=0.45, joint=False, **EXACT)
    gone = ~pruned.mask["0.weight"][:, 0]
    assert gone.sum() == 2
    moved = weight - sum(torch.outer(inverse[:, j], weight[j]) / inverse[j, j] for j in gone.nonzero().flatten())
    torch.testing.assert_close(pruned.model[0].weight.detach()[~gone], moved[~gone])
    found = pv.score(mlp, x, y, method="kron-obd", quadratic="row-sum", **EXACT)["0"][0]
    torch.testing.assert_close(found, (weight.square() @ factors.A).sum(1) * factors.S.diagonal() / 2)


def test_damping_follows_the_size_of_the_factor_and_moves_only_kron_obs(mlp):
    x, y = samples(mlp, 40)
    small = KroneckerFactors(torch.eye(3).double(), 1e-9 * torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double())
    torch.testing.assert_close(
        small.inverse(0.5).S, 1e9 * torch.linalg.inv(torch.tensor([[3.0, 1.0], [1.0, 3.0]]).double())
    )
    for method, same in (("kron-obd", True), ("eigendamage", True), ("kron-obs", False)):
        a, b = (pv.score(mlp, x, y, method=method, damping=d, **EXACT)["0"][0] for d in (1e-6, 0.5))
        assert torch.equal(a, b) is same


def renumbered(net: nn.Sequential) -> tuple[nn.Sequential, Tensor]:
    """The same function with the hidden units of its first layer in another order."""
    other = deepcopy(net)
    order = torch.randperm(len(net[0].weight), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        other[0].weight.copy_(net[0].weight[order])
        other[0].bias.copy_(net[0].bias[order])
        other[2].weight.copy_(net[2].weight[:, order])
    return other, order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_damping_a_singular_s_is_refused_and_a_regular_one_does_not_know_how_units_are_numbered(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 20), nn.Tanh(), nn.Linear(20, 3)).to(dtype)
    other, order = renumbered(net)
    x, y = torch.randn(200, 8).to(dtype), torch.arange(200) % 3
    how = {"method": "kron-obs", "fisher": "exact"}
    for n, damping in ((200, 0.0), (4, 1e-3)):
        a, b = (pv.score(m, x[:n], y[:n], damping=damping, **how)["0"][0] for m in (net, other))
        torch.testing.assert_close(b, a[order], rtol=1e-2 if dtype is torch.float32 else 1e-7, atol=0)
    with pytest.raises(Unsuitable, match=r"'0' has rank 8 of 20.*damping=1e-6 or more, or more samples"):
        pv.score(net, x[:4], y[:4], damping=0.0, **how)


def test_without_damping_each_group_has_a_rank_of_its_own():
    """One group's slopes are a million times the other's: both are regular."""
    S = torch.stack([torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 1e-12 * torch.tensor([[2.0, 1.0], [1.0, 2.0]])])
    found = inverse(S, 0.0, torch.ones(4).bool(), "3")
    torch.testing.assert_close(found, torch.linalg.inv(S.double()))
    with pytest.raises(Unsuitable, match="layer '3' has rank 0 of 2"):
        inverse(S * torch.tensor([1.0, 0.0]).view(2, 1, 1), 0.0, torch.ones(4).bool(), "3")


def test_without_damping_filters_that_left_before_are_no_want_of_rank(mlp):
    x, y = samples(mlp, 60)
    method = method_class("kron-obs").from_params({"damping": 0.0, **EXACT})
    task = Task(lambda: [(x, y)], generator_for(0, "score"))
    full = method.full(mlp, task)
    (group,) = full.layout.groups
    once = full.keeping({group: torch.tensor([True, False, True, True, True])})
    once.apply_(mlp)
    S = pv.kfac(mlp, x, y, **EXACT)["0"].S
    left = once.units[group]
    found = inverse(S, 0.0, left, "0")[0]
    torch.testing.assert_close(found[left][:, left], torch.linalg.inv(S[left][:, left]))
    assert not found[1, left].any()
    assert torch.isfinite(method.score(mlp, task, once).values[group][left]).all()
    with pytest.raises(Unsuitable, match="rank 4 of 5"):
        inverse(S, 0.0, torch.ones(5).bool(), "0")


def test_an_inverse_survives_rounding_below_zero():
    """Rank one in float32: its eigenvalues scatter around 0 by more than the damping."""
    g = torch.randn(300, generator=torch.Generator().manual_seed(0))
    factors = KroneckerFactors(torch.eye(2), torch.outer(g, g) - 1e-4 * torch.eye(300))
    assert torch.isfinite(factors.inverse(1e-9).S).all()


# EigenDamage


class Many(nn.Module):
    """Biases, padding, stride, groups, dilation, a flatten."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(),
            nn.Conv2d(6, 8, 3, stride=2, padding=2, groups=2), nn.ReLU(),
            nn.Conv2d(8, 5, (3, 2), padding=(2, 1), dilation=2, bias=False), nn.ReLU(),
            nn.Flatten(), nn.LazyLinear(7), nn.ReLU(), nn.Linear(7, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def many() -> tuple[nn.Module, Tensor, Tensor]:
    model = Many()
    x = torch.randn(9, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    model(x)
    return model.double(), x.double(), torch.arange(9) % 3


@pytest.mark.parametrize("basis", ["channels", "patches"])
def test_the_rotation_keeps_the_function_though_the_core_differs(basis: str):
    model, x, y = many()
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.0, basis=basis, **EXACT)
    torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=1e-12)
    layers = rotated(found.model)
    assert list(layers) == [f"layers.{i}" for i in (0, 2, 4, 7)]
    for name, layer in layers.items():
        own = model.get_submodule(name).weight
        assert layer.core.weight.numel() == own.numel()
        assert (layer.core.weight.reshape(own.shape) - own).abs().max() > 1e-3
        torch.testing.assert_close(layer.merged().weight, own, rtol=0, atol=1e-12)
    assert found.mask.size == sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    assert found.report["parameters"] == sum(p.numel() for p in model.parameters())


def test_importance_is_half_the_curvature_times_the_core_squared(cnn):
    """From NumPy's eigenvectors and the dense definition; a convolution's A averaged over the kernel's offsets."""
    x, y = samples(cnn, 20)
    factors = pv.kfac(cnn, x, y, **EXACT)
    found = pv.score(cnn, x, y, method="eigendamage", **EXACT)
    for name in ("0", "2"):
        W = cnn.get_submodule(name).weight.detach().numpy()
        out, into = W.shape[:2]
        A = factors[name].A.numpy().reshape(into, 9, into, 9)
        A = sum(A[:, d, :, d] for d in range(9)) / 9
        (a, Q_A), (s, Q_S) = np.linalg.eigh(A), np.linalg.eigh(factors[name].S.numpy())
        theta = np.zeros((out, into))
        for i, j in itertools.product(range(out), range(into)):
            core = np.einsum("o,i,oihw->hw", Q_S[:, i], Q_A[:, j], W)
            theta[i, j] = 0.5 * s[i] * a[j] * (core**2).sum()
        theta = theta[::-1, ::-1]  # directions by falling eigenvalue
        np.testing.assert_allclose(found[name][0], theta.sum(1), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found[name][1], theta.sum(0), rtol=1e-9, atol=1e-15)


def test_with_diagonal_factors_directions_are_filters(mlp):
    """Kron-OBD, up to a permutation."""
    generator = torch.Generator().manual_seed(1)
    factors = {
        name: KroneckerFactors(*(torch.diag(torch.rand(n, generator=generator, dtype=torch.float64)) for n in shape))
        for name, shape in (("0", (6, 5)), ("2", (5, 3)))
    }
    task = given(mlp, factors)
    filters, directions = method_class("kron-obd")(), method_class("eigendamage")()
    by_filter = next(iter(filters.score(mlp, task, filters.full(mlp, task)).values.values()))
    by_direction = directions.score(mlp, task, directions.full(mlp, task)).values
    out = next(v for g, v in by_direction.items() if g.name == "0 out")
    torch.testing.assert_close(out.sort().values, by_filter.sort().values)


def test_a_direction_s_score_is_the_kronecker_quadratic_form_of_what_it_carries(mlp):
    x, y = samples(mlp, 20)
    found = pv.prune(mlp, x, y, method="eigendamage", sparsity=0.0, **EXACT)
    H, layer = pv.kfac(mlp, x, y, **EXACT)["0"].dense(), found.model[0]
    for axis, scores in found.scores["0"].items():
        for i, score in enumerate(scores):
            core = torch.zeros_like(layer.core.weight)
            core.select(axis, i).copy_(layer.core.weight.select(axis, i))
            v = (layer.after.weight @ core @ layer.before.weight).detach().flatten()
            torch.testing.assert_close(score, v @ H @ v / 2, rtol=1e-8, atol=1e-14)


def test_corrected_eigenvalues_are_second_moments_along_the_directions(mlp):
    """EKFAC: mean over samples of (Q_S^T g a^T Q_A)^2, the gradients of one sample at a time."""
    x, y = samples(mlp, 12)
    found = pv.prune(mlp, x, y, method="eigendamage", sparsity=0.0, fisher="empirical", eigenvalues="corrected")
    layer = found.model[0]
    moments = torch.zeros_like(layer.core.weight)
    for i in range(12):
        (g,) = torch.autograd.grad(F.cross_entropy(mlp(x[i : i + 1]), y[i : i + 1]), mlp[0].weight)
        moments += (layer.after.weight.T @ g @ layer.before.weight.T).square() / 12
    theta = layer.core.weight.square() * moments / 2
    torch.testing.assert_close(found.scores["0"][0], theta.sum(1).detach())
    torch.testing.assert_close(found.scores["0"][1], theta.sum(0).detach())


@pytest.mark.parametrize("basis", ["channels", "patches"])
def test_turning_again_keeps_the_function_and_the_directions_that_are_gone(basis: str):
    model, x, y = many()
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.5, basis=basis, count="core", **EXACT)
    with torch.no_grad():
        for name, parameter in found.model.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        found.mask.apply_(found.model)
    before = found.model(x)
    kept = {name: [k.clone() for k in layer.kept()] for name, layer in rotated(found.model).items()}
    cores = {name: layer.core.weight.detach().clone() for name, layer in rotated(found.model).items()}
    task = Task(lambda: [(x, y)], generator_for(0, "score"))
    turned = method_class("eigendamage").from_params({"basis": basis, **EXACT}).frame(found.model, task)
    torch.testing.assert_close(turned(x), before, rtol=0, atol=1e-11)
    for name, layer in rotated(turned).items():
        assert all(torch.equal(a, b) for a, b in zip(layer.kept(), kept[name], strict=True))
        assert not torch.allclose(layer.core.weight, cores[name])
    factors = pv.kfac(turned, x, y, **EXACT)["layers.7.core"]
    into, out = kept["layers.7"]
    for matrix, keep in ((factors.A, into), (factors.S, out)):
        inner = matrix[keep][:, keep]
        assert (
            inner - inner.diagonal().diag()
        ).abs().max() < 1e-9 * inner.abs().max()  # the basis is the eigenbasis again


def test_both_counts_by_hand():
    """A Linear 8 -> 6 with 3 and 2 directions kept: 3*8 + 2*3 + 6*2 = 42 of 48; the core alone 6."""
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x, y = torch.randn(9, 8).double(), torch.arange(9) % 2
    frame = method_class("eigendamage")().frame(model, Task(lambda: [(x, y)], generator_for(0, "score")))
    for counted, left in (("compacted", 42 + 12), ("core", 6 + 12)):
        layout = Directions(frame, counted)
        out, into = layout.groups
        units = {out: torch.arange(6) < 2, into: torch.arange(8) < 3}
        assert layout.left(units) == left
        mask = layout.mask(units)
        assert (mask.size, mask.removed) == (60, 60 - left)
        assert (
            layout.left({**units, into: torch.arange(8) < 7}, "compacted") == 48 + 12
        )  # 82 is more than 48: left whole


def test_a_layer_that_three_pieces_would_make_larger_keeps_all_its_directions():
    model, x, y = many()
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.2, **EXACT)
    small = pv.compact(found)
    assert 0 < len(small.whole) < 4
    for name in small.whole:
        assert all(bool(keep.all()) for keep in rotated(found.model)[name].kept())
        torch.testing.assert_close(
            small.model.get_submodule(name).weight, model.get_submodule(name).weight, rtol=0, atol=1e-12
        )
    assert 0 < found.mask.sparsity <= 0.2


def test_at_most_95_percent_of_a_side_leaves():
    """64-300-100-10 then ends at 97.8%, where all filters that may leave have left."""
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    x, y = torch.randn(30, 64), torch.arange(30) % 10
    with pytest.raises(Unreachable) as beyond:
        pv.prune(model, x, y, method="kron-obd", sparsity=0.99)
    assert beyond.value.most == pytest.approx(0.978, abs=5e-4)
    found = pv.prune(model, x, y, method="kron-obd", sparsity=beyond.value.most)
    assert [int(keep.sum()) for keep in found.mask.units.values()] == [15, 5]


def test_a_rotated_layer_takes_no_random_numbers_and_multiplies_out():
    state = torch.random.get_rng_state()
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect").double()
    after = torch.random.get_rng_state()
    wrapped = Rotated(layer)
    assert torch.equal(torch.random.get_rng_state(), after)
    assert not torch.equal(state, after)
    x = torch.randn(2, 3, 5, 5).double()
    torch.testing.assert_close(plain(nn.Sequential(wrapped))(x), layer(x))
    assert isinstance(plain(nn.Sequential(wrapped))[0], nn.Conv2d)


@pytest.mark.parametrize("basis", ["channels", "patches"])
def test_a_rotated_layer_shows_what_the_layer_had_and_no_parameter_more(basis: str):
    """Numbers and gradients of the weight through the three: for any directions removed the product, by NumPy."""
    model, x, y = many()
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.0, basis=basis, **EXACT).model
    names = (
        "in_features",
        "out_features",
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
    )
    for name, layer in rotated(found).items():
        own = model.get_submodule(name)
        torch.testing.assert_close(layer.weight, own.weight, rtol=0, atol=1e-12)
        assert layer.weight.shape == own.weight.shape
        assert (layer.weight.dtype, layer.weight.device) == (own.weight.dtype, own.weight.device)
        assert layer.bias is (None if own.bias is None else layer.after.bias)
        for attribute in (*names, "groups", "padding_mode"):
            if hasattr(own, attribute):
                assert getattr(layer, attribute) == getattr(own, attribute)
            elif attribute != "groups":
                assert not hasattr(layer, attribute)
        assert {n.partition(".")[0] for n, _ in layer.named_parameters()} == {"before", "core", "after"}
        with pytest.raises(KeyError, match="weight"):
            layer.weight = own.weight
    layer = found.layers[7]
    with torch.no_grad():
        layer.core.weight[2] = 0
    parts = [part.weight.detach().numpy() for part in (layer.after, layer.core, layer.before)]
    np.testing.assert_allclose(layer.weight.detach().numpy(), np.linalg.multi_dot(parts), atol=1e-12)
    layer.weight.sum().backward()
    ones = np.ones(parts[0].shape[:1] + parts[2].shape[1:])
    np.testing.assert_allclose(layer.core.weight.grad.numpy(), parts[0].T @ ones @ parts[2].T, atol=1e-12)


class Reading(nn.Module):
    """Code that reads ``a``'s weight, in several ways, beside calling it."""

    def __init__(self, way: str):
        super().__init__()
        torch.manual_seed(1)
        self.way, self.a, self.b, self.o = way, nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "attributes":
            x = x.to(self.a.weight.device, self.a.weight.dtype) / self.a.in_features + self.a.bias.dim()
        h = torch.tanh(self.a(x))
        if self.way == "values":
            h = h / self.a.weight.norm()
        if self.way == "function":
            h = F.linear(F.linear(h, self.a.weight.mT), self.a.weight)
        return self.o(torch.tanh(self.b(h)))


@pytest.mark.parametrize("way", ["attributes", "values"])
def test_networks_that_read_a_layer_s_weight_run_rotated_or_keep_that_layer(way: str):
    model = Reading(way)
    x, y = samples(model.a, 12)
    whole = pv.prune(model, x, y, method="eigendamage", sparsity=0.0, seed=0)
    torch.testing.assert_close(whole.model(x), model(x), rtol=0, atol=1e-12)
    assert list(rotated(whole.model)) == (["a", "b"] if way == "attributes" else ["b"])
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.1, seed=0)
    assert 0 < found.report["reached"] <= 0.1
    small = pv.compact(found)
    torch.testing.assert_close(small.model(x), found.model(x), rtol=0, atol=1e-10)
    task = Task(lambda: [(x, y)], generator_for(0, "score"))
    turned = method_class("eigendamage")().frame(deepcopy(found.model), task)
    torch.testing.assert_close(turned(x), found.model(x), rtol=0, atol=1e-10)


def test_a_weight_that_is_used_by_function_too_is_refused_by_name():
    model = Reading("function")
    x, y = samples(model.a, 12)
    with pytest.raises(Unsuitable, match="'a' is used twice"):
        pv.prune(model, x, y, method="eigendamage", sparsity=0.1)


def test_a_network_of_one_layer_stays_as_it_is_or_says_that_it_is_the_last():
    model = nn.Sequential(nn.Linear(5, 3)).double()
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.arange(6) % 3
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.0)
    assert torch.equal(found.model(x), model(x))
    assert found.mask.removed == 0
    assert not rotated(found.model)
    assert pv.score(model, x, y, method="eigendamage") == {}
    with pytest.raises(Unsuitable, match=r"sparsity 0.3.*no layer that it can turn.*last layer is left out"):
        pv.prune(model, x, y, method="eigendamage", sparsity=0.3)
    convolution = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()).double()
    image = torch.randn(6, 1, 2, 2, dtype=torch.float64)
    for method, net, inputs in (("kron-obd", model, x), ("kron-obs", model, x), ("l1-filters", convolution, image)):
        with pytest.raises(Unsuitable, match="single layer"):
            pv.prune(net, inputs, y, method=method, sparsity=0.3)


@pytest.mark.filterwarnings("ignore:EigenDamage. left in one piece")
def test_a_basis_that_could_never_pay_is_not_made():
    """4,097 inputs and 8 outputs: the rotation of the inputs alone, with 95% removed, has 4,097 x 205 numbers, the layer 8 x 4,097."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4097, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(5, 4097), torch.arange(5) % 3
    found = pv.prune(model, x, y, method="eigendamage", sparsity=0.0005)
    assert list(rotated(found.model)) == ["2"]
    assert max(p.numel() for p in found.model.parameters()) == 8 * 4097
    assert 0 < found.report["reached"] <= 0.0005
    small = pv.compact(found)
    assert "0" in small.whole
    torch.testing.assert_close(small.model(x), found.model(x))
    assert method_class("eigendamage")().foretell(model) == "left in one piece, since three would be larger: 0"
    assert method_class("eigendamage")().foretell(model[2:]) == ""
    with pytest.raises(Unsuitable, match=r"count=core.*'0'.*4,097 x 4,097 numbers \(0.1 GB.*count=compacted"):
        pv.prune(model, x, y, method="eigendamage", sparsity=0.0005, count="core")


@pytest.mark.parametrize("basis", ["channels", "patches"])
def test_what_pays_is_counted_on_the_layer_s_own_pieces(basis: str):
    for layer in (nn.Linear(30, 8), nn.Linear(9, 90), nn.Conv2d(12, 6, 3, groups=2), nn.Conv2d(4, 40, 1)):
        turned = Rotated(layer, basis)
        n, out = len(turned.inputs), len(turned.outputs)
        assert directions.sides(layer, basis) == (n, out)
        pays = turned.pieces(n - int(0.95 * n + 1e-9), out - int(0.95 * out + 1e-9)) < layer.weight.numel()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(directions, "LARGE", 1)
            assert directions.too_large(layer, basis) == (not pays)
        assert not directions.too_large(layer, basis)


def test_a_mask_of_units_goes_to_another_device_whole(cnn):
    x, y = samples(cnn)
    mask = pv.prune(cnn, x, y, method="kron-obd", sparsity=0.4).mask.to("cpu")
    assert isinstance(mask, Mask)
    assert (mask.size, mask.removed > 0, bool(mask.coupled)) == (183, True, True)


def test_layers_left_in_one_piece_are_named_when_scored_and_pruned():
    wide = nn.Sequential(nn.Linear(6000, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(5, 6000), torch.arange(5) % 3
    with pytest.warns(PruningWarning, match="EigenDamage: left in one piece, since three would be larger: 0"):
        assert set(pv.score(wide, x, y, method="eigendamage")) == {"2"}
    with pytest.warns(PruningWarning, match="left in one piece"):
        pv.prune(wide, x, y, method="eigendamage", sparsity=0.0)
