"""Optimal Brain Damage and Optimal Brain Surgeon against dense Hessians, refits and brute force."""

from __future__ import annotations

import itertools
import re

import mpmath
import pytest
import torch
import torch.nn.functional as F
from problems import samples
from torch import nn
from torch.func import functional_call, jacrev, vmap

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.curvature.calls import diagonal, inverse_hessian
from pruneviz.curvature.task import Task, generator_for
from pruneviz.curvature.woodbury import inverse
from pruneviz.door.loss import CROSS_ENTROPY, SQUARED
from pruneviz.methods import method_class
from pruneviz.run.step import remove
from pruneviz.units.masks import Mask
from pruneviz.units.surgeon import deletions, moved


def _tanh_twin(model: nn.Module) -> nn.Module:
    return nn.Sequential(*[nn.Tanh() if isinstance(m, nn.ReLU) else m for m in model])


def _params(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def _gauss_newton(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Mean of J^T A J over all parameters, from torch.func's Jacobian and softmax's covariance written out."""
    p = _params(model)
    J = vmap(jacrev(lambda p, xi: functional_call(model, p, (xi[None],))[0]), (None, 0))(p, x)
    J = torch.cat([J[name].flatten(2) for name in p], 2)
    prob = model(x).detach().softmax(1)
    A = torch.stack([torch.diag(q) - torch.outer(q, q) for q in prob])
    return sum(j.T @ a @ j for j, a in zip(J, A, strict=True)) / len(x)


def _hessian(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    return jacrev(jacrev(lambda p: F.cross_entropy(functional_call(model, p, (x,)), y)))(_params(model))


def _named(flat: torch.Tensor, model: nn.Module) -> dict[str, torch.Tensor]:
    parts = flat.split([p.numel() for p in model.parameters()])
    return {name: part.view_as(p) for (name, p), part in zip(model.named_parameters(), parts, strict=True)}


# diagonals


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_exact_diagonals_are_the_dense_hessian_s(kind: str, smooth: bool, request):
    model = request.getfixturevalue(kind)
    model = _tanh_twin(model) if smooth else model
    x, y = samples(model)
    found = diagonal(model, [(x[:4], y[:4]), (x[4:], y[4:])], kind="exact")
    dense = _hessian(model, x, y)
    for name, value in found.items():
        expected = dense[name][name].reshape(value.numel(), -1).diagonal().view_as(value)
        assert torch.allclose(value, expected, rtol=1e-6, atol=1e-14)
    assert set(found) == set(_params(model))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_gauss_newton_diagonal_is_the_dense_one_s(kind: str, request):
    model = request.getfixturevalue(kind)
    x, y = samples(model)
    expected = _named(_gauss_newton(model, x).diagonal(), model)
    for name, value in diagonal(model, [(x, y)], kind="ggn").items():
        assert torch.allclose(value, expected[name], rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_empirical_diagonal_squares_each_sample_s_gradient(kind: str, request):
    model = request.getfixturevalue(kind)
    x, y = samples(model)
    each = [
        torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        for i in range(len(x))
    ]
    found = diagonal(model, [(x, y)], kind="empirical")
    for (name, _), *grads in zip(model.named_parameters(), *each, strict=True):
        assert torch.allclose(found[name], sum(g.square() for g in grads) / len(x), rtol=1e-9)
    batch = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    assert not torch.allclose(found["0.weight"], batch[0].square())


def test_drawn_labels_give_the_gauss_newton_diagonal_on_average(mlp):
    x, y = samples(mlp)
    generator = torch.Generator().manual_seed(0)
    many = diagonal(mlp, [(x.repeat(3000, 1), y.repeat(3000))], kind="fisher", generator=generator)
    exact = diagonal(mlp, [(x, y)], kind="ggn")
    for name in exact:
        assert torch.allclose(many[name], exact[name], rtol=0.1, atol=0.02 * float(exact[name].max()))  # 21,000 draws


def test_an_activation_that_works_in_place_changes_nothing(mlp):
    x, y = samples(mlp)
    twin = nn.Sequential(mlp[0], nn.ReLU(inplace=True), mlp[2])
    for kind in ("ggn", "exact", "empirical"):
        one, two = (diagonal(net, [(x, y)], kind=kind) for net in (mlp, twin))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_piecewise_linear_nets_take_the_short_way_to_the_exact_diagonal(cnn, monkeypatch):
    x, y = samples(cnn)
    expected = diagonal(cnn, [(x, y)], kind="ggn")
    monkeypatch.setattr("pruneviz.curvature.diagonals._exact", None)
    found = diagonal(cnn, [(x, y)], kind="exact")
    assert all(torch.allclose(found[name], expected[name]) for name in expected)


# OBD


def _quadratic() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear network with squared error: its loss is quadratic in the weights. It sits at its minimum."""
    torch.manual_seed(2)
    x, t = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(5, 2, bias=False)).double()
    model[0].weight.data = torch.linalg.lstsq(x, t).solution.T.contiguous()
    return model, x, t


def _task(x: torch.Tensor, y: torch.Tensor, loss=CROSS_ENTROPY) -> Task:
    return Task(lambda: [(x, y)], generator_for(0, "test"), loss=loss)


@pytest.mark.parametrize("kind", ["ggn", "exact"])
def test_obd_is_the_measured_rise_on_a_quadratic_loss(kind: str):
    model, x, t = _quadratic()
    method = method_class("obd")(hessian=kind)
    found = method.score(model, _task(x, t, SQUARED), Mask.full(model, ["0.weight"]))
    (scores,) = found.values.values()
    base = float(SQUARED(model(x), t).detach())
    for q in range(10):
        with torch.no_grad():
            weight = model[0].weight.view(-1)
            kept = weight[q].clone()
            weight[q] = 0
            rise = float(SQUARED(model(x), t)) - base
            weight[q] = kept
        assert float(scores[q]) == pytest.approx(rise, rel=1e-9)


def test_the_gradient_term_makes_obd_exact_away_from_the_minimum():
    model, x, t = _quadratic()
    with torch.no_grad():
        model[0].weight.add_(0.3)
    scores = {}
    for term in (False, True):
        method = method_class("obd")(gradient_term=term)
        (scores[term],) = method.score(model, _task(x, t, SQUARED), Mask.full(model, ["0.weight"])).values.values()
    base = float(SQUARED(model(x), t).detach())
    with torch.no_grad():
        model[0].weight.view(-1)[3] = 0
    rise = float(SQUARED(model(x), t).detach()) - base
    assert float(scores[True][3]) == pytest.approx(rise, rel=1e-9)
    assert abs(float(scores[False][3]) - rise) > 0.01 * abs(rise)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("choice", ["ggn", "exact"])
def test_obd_agrees_with_a_dense_second_implementation(choice: str, kind: str, request):
    model = _tanh_twin(request.getfixturevalue(kind))
    x, y = samples(model)
    if choice == "ggn":
        diagonals = _named(_gauss_newton(model, x).diagonal(), model)
    else:
        dense = _hessian(model, x, y)
        diagonals = {n: dense[n][n].reshape(p.numel(), -1).diagonal().view_as(p) for n, p in _params(model).items()}
    for name, value in pv.score(model, x, y, method="obd", hessian=choice).items():
        assert torch.allclose(value, diagonals[name] * _params(model)[name] ** 2 / 2, rtol=1e-6, atol=1e-15)


class _Attention(nn.Module):
    """Attention by torch's fused function, or written out."""

    def __init__(self, heads: int, causal: bool, *, fused: bool):
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.causal, self.fused = heads, causal, fused
        self.qkv, self.out = nn.Linear(4, 12).double(), nn.Linear(4, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            s = q @ k.mT / q.shape[-1] ** 0.5
            later = torch.ones(s.shape[-2:]).triu(1).bool()
            mixed = (s.masked_fill(later, -torch.inf) if self.causal else s).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize(("heads", "causal"), [(1, False), (2, True)])
def test_attention_is_differentiated_twice(heads: int, causal: bool):
    """The exact diagonal and GraSP's product through the fused function, whose own kernels have one derivative."""
    fused, plain = (_Attention(heads, causal, fused=f) for f in (True, False))
    x, y = torch.randn(6, 5, 4).double(), torch.arange(6) % 3
    names = ["qkv.weight", "out.weight"]
    params = {n: plain.get_parameter(n).detach() for n in names}

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([p.numel() for p in params.values()])
        named = {n: part.view_as(params[n]) for n, part in zip(names, parts, strict=True)}
        return F.cross_entropy(torch.func.functional_call(plain, named, (x,)), y)

    theta = torch.cat([p.flatten() for p in params.values()])
    g, H = (f(loss, theta) for f in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian))
    for method, switches, expected in (
        ("obd", {"hessian": "exact"}, H.diagonal() * theta.square() / 2),
        ("grasp", {"temperature": 1.0}, theta * (H @ g)),
    ):
        found = pv.score(fused, x, y, method=method, **switches)
        torch.testing.assert_close(torch.cat([found[n].flatten() for n in names]), expected, rtol=1e-9, atol=1e-13)


def test_exact_obd_is_signed(mlp):
    model = _tanh_twin(mlp)
    with torch.no_grad():
        model[0].weight.mul_(4)
    found = pv.score(model, *samples(model), method="obd", hessian="exact")
    assert any((value < 0).any() for value in found.values())


# the inverse Hessian


@pytest.mark.parametrize("panel", [7, 256])
@pytest.mark.parametrize("alpha", [1e-8, 1e-4])
@pytest.mark.parametrize("rows", [1, 3, 13, 14, 20, 40])
def test_both_ways_to_the_inverse_give_the_dense_one(rows: int, alpha: float, panel: int, monkeypatch):
    monkeypatch.setattr("pruneviz.curvature.woodbury.PANEL", panel)  # so that triangles have several panels
    torch.manual_seed(0)
    R = torch.randn(2, rows, 20, dtype=torch.float64)
    before = R.clone()
    dense = torch.linalg.inv(R.mT @ R + alpha * torch.eye(20, dtype=torch.float64))
    found = inverse(R, alpha)
    assert torch.allclose(found, dense, rtol=1e-6, atol=1e-7 * float(dense.abs().max()))  # the condition is 1e10
    assert torch.allclose(found, found.mT, rtol=1e-12, atol=1e-16 / alpha)
    assert torch.equal(R, before)
    assert torch.equal(inverse(R[1], alpha), found[1])


@pytest.mark.parametrize("rows", [5, 30, 300])
def test_the_inverse_is_what_fifty_digits_give(rows: int):
    """Gradients of a trained net's kind: strong and weak directions, and the paper's least alpha."""
    torch.manual_seed(0)
    alpha, b = 1e-8, 40
    R = torch.randn(rows, b, dtype=torch.float64) * torch.logspace(0, -4, b, dtype=torch.float64) / rows**0.5
    with mpmath.workdps(50):
        r = mpmath.matrix(R.tolist())
        exact = (r.T * r + mpmath.mpf(alpha) * mpmath.eye(b)) ** -1
        exact = torch.tensor([[float(exact[i, j]) for j in range(b)] for i in range(b)], dtype=torch.float64)
    found = inverse(R, alpha)
    assert float((found - exact).norm() / exact.norm()) < 1e-9  # rounding 1e-16 times the condition, 1e8
    assert torch.allclose(found.diagonal(), exact.diagonal(), rtol=1e-7)


def test_the_recursion_row_by_row_gives_the_same_inverse():
    torch.manual_seed(0)
    for rows in (5, 60):
        R = torch.randn(rows, 30, dtype=torch.float64)
        G = torch.eye(30, dtype=torch.float64) / 1e-3
        for x in R:
            h = G @ x
            G -= torch.outer(h, h) / (1 + x @ h)
        assert torch.allclose(inverse(R, 1e-3), G, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_inverse_hessian_is_that_of_the_dense_gauss_newton_whole_and_in_blocks(kind: str, smooth: bool, request):
    model = request.getfixturevalue(kind)
    model = _tanh_twin(model) if smooth else model
    x, y = samples(model)
    H = _gauss_newton(model, x) + 1e-3 * torch.eye(sum(p.numel() for p in model.parameters())).double()
    for size in (None, 1000, 4, 3):
        blocks, _ = inverse_hessian(model, [(x[:3], y[:3]), (x[3:], y[3:])], alpha=1e-3, size=size)
        seen = []
        for found in blocks:
            for part in found.parts():
                for index, G in zip(found.index[part], found.inverse(part), strict=True):
                    real = index >= 0
                    where = index[real]
                    seen += where.tolist()
                    dense = torch.linalg.inv(H[where][:, where])
                    assert torch.allclose(G[real][:, real], dense, rtol=1e-6, atol=1e-9 * float(dense.abs().max()))
        assert sorted(seen) == list(range(len(H)))


@pytest.mark.parametrize("portion", [1, 2, 5, 250])
def test_the_inverse_does_not_depend_on_how_many_samples_pass_at_a_time(portion: int, mlp):
    x, y = samples(mlp, 40)  # 120 rows for 53 weights and biases: rows first, then only their products
    whole, _ = inverse_hessian(mlp, [(x, y)], alpha=1e-3)
    rows, _ = inverse_hessian(mlp, [(x, y)], alpha=1e-3, size=1000)
    portions = list(zip(x.split(portion), y.split(portion), strict=True))
    for before, size in ((whole, None), (rows, 1000)):
        after, _ = inverse_hessian(mlp, portions, alpha=1e-3, size=size)
        for one, two in zip(before, after, strict=True):
            (part,) = one.parts()
            assert torch.allclose(one.inverse(part), two.inverse(part), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("panel", [4, 256])
@pytest.mark.parametrize("n", [5, 40])
def test_blocks_that_share_their_inputs_products_are_the_dense_ones_and_leave_out_what_is_gone(n, panel, monkeypatch):
    monkeypatch.setattr("pruneviz.curvature.woodbury.PANEL", panel)  # so that samples are summed in portions
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(11, 20), nn.Tanh(), nn.Linear(20, 3)).double()  # 20 outputs share 11 inputs
    x, y = torch.randn(n, 11, dtype=torch.float64), torch.randint(0, 3, (n,))
    alive = {"0.weight": torch.rand(20, 11) < 0.7}
    there = torch.cat([alive["0.weight"].flatten(), torch.ones(20 + 60 + 3, dtype=torch.bool)]).double()
    H = _gauss_newton(model, x) * there * there[:, None] + 1e-3 * torch.eye(len(there), dtype=torch.float64)
    for size in (12, 10, 5):
        (first, _), _ = inverse_hessian(model, [(x, y)], alpha=1e-3, size=size, alive=alive)
        assert first.gram is not None or n == 5
        (part,) = first.parts()
        for index, G in zip(first.index[part], first.inverse(part), strict=True):
            real = index >= 0
            dense = torch.linalg.inv(H[index[real]][:, index[real]])
            assert torch.allclose(G[real][:, real], dense, rtol=1e-8, atol=1e-10 * float(dense.abs().max()))


def test_the_empirical_inverse_is_that_of_each_sample_s_gradient_under_its_label(mlp):
    x, y = samples(mlp)
    each = [
        torch.autograd.grad(F.cross_entropy(mlp(x[i : i + 1]), y[i : i + 1]), list(mlp.parameters()))
        for i in range(len(x))
    ]
    R = torch.stack([torch.cat([g.flatten() for g in grads]) for grads in each])
    dense = torch.linalg.inv(R.T @ R / len(x) + 1e-3 * torch.eye(R.shape[1], dtype=torch.float64))
    (whole,), _ = inverse_hessian(mlp, [(x, y)], alpha=1e-3, fisher="empirical")
    order = whole.index[0]
    assert torch.allclose(whole.inverse(slice(0, 1))[0], dense[order][:, order], rtol=1e-8, atol=1e-8)


def test_a_whole_inverse_asked_for_twice_is_the_same(mlp, monkeypatch):
    monkeypatch.setattr("pruneviz.curvature.woodbury.KEEP", 0)
    x, y = samples(mlp, 40)  # so many that only the products are kept, which the inverse overwrites
    (whole,), _ = inverse_hessian(mlp, [(x, y)], alpha=1e-3)
    (part,) = whole.parts()
    first = whole.inverse(part).clone()
    assert torch.equal(whole.inverse(part), first)


# OBS


def test_obs_repair_is_the_refit_without_that_input():
    model, x, t = _quadratic()
    method = method_class("obs")(alpha=1e-12, loss="squared")
    task, full = _task(x, t, SQUARED), Mask.full(model, ["0.weight"])
    scores = method.score(model, task, full)
    (saliency,) = scores.values.values()
    base = float(SQUARED(model(x), t).detach())
    for q in range(10):
        found = method.without(model, scores, "0.weight", q)["0.weight"]
        o, i = divmod(q, 5)
        others = [k for k in range(5) if k != i]
        refit = torch.linalg.lstsq(x[:, others], t[:, o : o + 1]).solution[:, 0]
        assert torch.allclose(found[o, others], refit, rtol=1e-6)
        assert found[o, i] == 0
        assert torch.equal(found[1 - o], model[0].weight[1 - o].detach())
        rise = float(SQUARED(x @ found.T, t)) - base
        assert float(saliency[q]) == pytest.approx(rise, rel=1e-6)


@pytest.mark.parametrize("sparsity", [0.3, 0.6])
def test_after_many_deletions_obs_is_the_refit_on_the_survivors(sparsity: float):
    model, x, t = _quadratic()
    method = method_class("obs")(alpha=1e-12, loss="squared", blocks="none")
    task, full = _task(x, t, SQUARED), Mask.full(model, ["0.weight"])
    mask = remove(method, model, task, method.score(model, task, full), full, sparsity)
    for o in range(2):
        kept = mask["0.weight"][o].nonzero().flatten()
        refit = torch.linalg.lstsq(x[:, kept], t[:, o : o + 1]).solution[:, 0]
        assert torch.allclose(model[0].weight[o, kept].detach(), refit, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_obs_scores_agree_with_the_dense_inverse(kind: str, request):
    model = _tanh_twin(request.getfixturevalue(kind))
    x, y = samples(model)
    G = torch.linalg.inv(
        _gauss_newton(model, x) + 1e-4 * torch.eye(sum(p.numel() for p in model.parameters())).double()
    )
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    expected = _named(theta**2 / (2 * G.diagonal()), model)
    for name, value in pv.score(model, x, y, method="obs").items():
        assert torch.allclose(value, expected[name], rtol=1e-6, atol=1e-15)


def _brute_force(H: torch.Tensor, w: torch.Tensor, steps: int) -> tuple[list[int], list[float], torch.Tensor]:
    """OBS with the inverse taken anew on the survivors after every deletion."""
    alive, order, losses, w = list(range(len(w))), [], [], w.clone()
    for _ in range(steps):
        G = torch.linalg.inv(H[alive][:, alive])
        rise = w[alive] ** 2 / (2 * G.diagonal())
        k = int(rise.argmin())
        losses.append(float(rise[k]))
        w[alive] = w[alive] - w[alive[k]] / G[k, k] * G[:, k]
        order.append(alive.pop(k))
        w[order] = 0
    return order, losses, w


def test_downdating_equals_inverting_anew_after_every_deletion(monkeypatch):
    monkeypatch.setattr("pruneviz.units.surgeon.PENDING", 4)  # so that pending downdates are written in several times
    torch.manual_seed(3)
    R, w = torch.randn(30, 18, dtype=torch.float64), torch.randn(2, 18, dtype=torch.float64)
    H = R.T @ R / 30 + 1e-3 * torch.eye(18, dtype=torch.float64)
    G = torch.linalg.inv(H).expand(2, 18, 18)
    order, losses = deletions(G, w, torch.ones(2, 18, dtype=torch.bool))
    for block in range(2):
        expected, rises, _ = _brute_force(H, w[block], 18)
        assert order[block].tolist() == expected
        assert losses[block].tolist() == pytest.approx(rises, rel=1e-8)
        for steps in (1, 7, 17):
            gone = torch.zeros(2, 18, dtype=torch.bool)
            gone[block, expected[:steps]] = True
            now = moved(G, w, gone)[block]
            assert torch.allclose(now, _brute_force(H, w[block], steps)[2], rtol=1e-8, atol=1e-12)


def test_the_whole_order_s_losses_add_up_to_the_constrained_minimum():
    torch.manual_seed(4)
    R, w = torch.randn(20, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    H = R.T @ R
    order, losses = deletions(torch.linalg.inv(H)[None], w[None], torch.ones(1, 6, dtype=torch.bool))
    for steps in range(1, 6):
        kept = [i for i in range(6) if i not in order[0, :steps].tolist()]
        now = torch.zeros(6, dtype=torch.float64)
        now[kept] = torch.linalg.solve(H[kept][:, kept], (H @ w)[kept])
        assert float(losses[0, :steps].sum()) == pytest.approx(float((now - w) @ H @ (now - w)) / 2, rel=1e-9)


def test_one_order_serves_every_sparsity(mlp):
    x, y = samples(mlp)
    for blocks in ("none", "rows", 3):
        masks = [pv.prune(mlp, x, y, method="obs", sparsity=s, blocks=blocks).mask for s in (0.2, 0.5, 0.8)]
        for before, after in itertools.pairwise(masks):
            assert all((after[name] <= before[name]).all() for name in before)


def test_deleted_weights_stay_deleted_over_rounds_and_the_last_inverse_ignores_them(mlp):
    x, y = samples(mlp)
    method = method_class("obs")()
    task, mask = _task(x, y), Mask.full(mlp, method.prunable(mlp))
    for target in (0.3, 0.6, 0.9):
        scores = method.score(mlp, task, mask)
        smaller = remove(method, mlp, task, scores, mask, target)
        assert all((smaller[name] <= mask[name]).all() for name in mask)
        mask = smaller
        params = dict(mlp.named_parameters())
        assert all((params[name][~mask[name]] == 0).all() for name in mask)


def test_biases_move_but_stay_unless_they_may_leave(mlp):
    x, y = samples(mlp)
    found = pv.prune(mlp, x, y, method="obs", sparsity=0.9)
    assert set(found.mask) == {"0.weight", "2.weight"}
    assert not torch.equal(found.model[2].bias, mlp[2].bias)
    all_gone = pv.prune(mlp, x, y, method="obs", sparsity=0.97, include_bias=True)
    assert all_gone.mask.size == 53
    assert (all_gone.model[2].bias == 0).any() or (all_gone.model[0].bias == 0).any()


def test_obs_refuses_a_whole_inverse_that_is_too_large_and_says_what_to_do():
    model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    x, y = torch.zeros(2, 784), torch.zeros(2).long()
    with pytest.raises(Unsuitable, match=re.escape("266,610 x 266,610 inverse Hessian (530 GiB in float64")) as caught:
        pv.score(model, x, y, method="obs", blocks="none")
    assert "Use blocks=50, or Kron-OBS" in str(caught.value)


@pytest.mark.parametrize("blocks", [0, 1, -5, True, "many", 2.5])
def test_a_block_size_that_makes_no_sense_is_refused(blocks, mlp):
    with pytest.raises(InvalidSetting, match="blocks"):
        pv.score(mlp, *samples(mlp), method="obs", blocks=blocks)


def test_a_single_probability_has_a_curvature_of_its_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Sigmoid()).double()
    x, y = torch.randn(9, 4).double(), torch.randint(0, 2, (9,))
    p = _params(model)
    # softmax over (0, z) is the sigmoid of z, so the two-output twin has the same Gauss-Newton matrix
    logit = vmap(jacrev(lambda p, xi: torch.logit(functional_call(model, p, (xi[None],))[0])), (None, 0))(p, x)
    J = torch.cat([logit[name].flatten(2) for name in p], 2)[:, 0]
    f = model(x).detach()[:, 0]
    expected = _named(((f * (1 - f))[:, None] * J.square()).mean(0), model)
    for name, value in diagonal(model, [(x, y)], kind="ggn").items():
        assert torch.allclose(value, expected[name], rtol=1e-6)


# on real data


def test_the_gradient_term_ranks_single_removals_and_the_update_of_obs_cuts_the_rise():
    """64-16-10 trained on digits: the first of the `loss-change` reproduction's networks, one seed."""
    from pruneviz.papers.loss_change import network
    from pruneviz.run.probes import change

    data = pv.load("digits")
    model = network("64-16-10", data, 0)
    pv.train(model, data, epochs=40, seed=0)
    x, y = data.train
    found = {}
    for name, key, params in (
        ("obd", "obd", {}),
        ("with gradient", "obd", {"hessian": "exact", "gradient_term": True}),
        ("obs", "obs", {}),
    ):
        method = method_class(key).from_params(params)
        task = _task(x, y)
        full = Mask.full(model, method.prunable(model))
        found[name] = change(method, model, task, full, generator_for(0, "change"), len(x))
    assert found["with gradient"].correlation >= 0.9
    assert found["with gradient"].correlation > found["obd"].correlation > 0.7
    assert 0 < found["obs"].measured.mean() <= found["obs"].zeroed.mean() / 5
    assert (found["obd"].measured == found["obd"].zeroed).all()


@pytest.mark.skipif(
    not pv.DATASETS["mnist"].present, reason="MNIST is not on this machine; set PRUNEVIZ_DATA to a folder with mnist/"
)
def test_on_mnist_obs_in_blocks_beats_obd_and_weight_size_without_retraining():
    """The `obs-lenet` reproduction in small: one seed, one epoch on 20,000 samples."""
    from dataclasses import replace

    from pruneviz.papers.obs_lenet import OBD, OBS, SIZE, _pruned

    data = pv.load("mnist")
    data = replace(data, train=tuple(t[:20_000] for t in data.train))
    model = pv.build("lenet-300-100", data, seed=0)
    pv.train(model, data, epochs=1, batch_size=128, seed=0)
    after = {name: _pruned(model, data, name, 0)[1] for name in (OBS, OBD, SIZE)}
    for s in (0.8, 0.9, 0.95):
        assert after[OBS][s]["loss"] < min(after[OBD][s]["loss"], after[SIZE][s]["loss"])
