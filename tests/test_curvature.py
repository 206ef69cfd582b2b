"""Kronecker factors, gradients and Jacobians against dense oracles in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import samples
from torch import nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, UnsupportedLayer
from pruneviz.curvature.gradients import mean_gradient
from pruneviz.curvature.jacobian import end_to_end_singular_values
from pruneviz.curvature.kronecker import KroneckerFactors
from pruneviz.door.loss import CROSS_ENTROPY
from pruneviz.run import probes


def _dense_ggn(model: nn.Module, x: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    """Gauss-Newton blocks of softmax cross-entropy from explicit per-sample Jacobians of the logits: name -> [P, P]."""
    params = {n: p.detach() for n, p in model.named_parameters()}
    jacobians = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(params)
    p = model(x).detach().softmax(1)
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # [n, C, C]
    return {
        n: torch.einsum("nci,ncd,ndj->ij", jacobians[n].flatten(2), A, jacobians[n].flatten(2)) / len(x) for n in names
    }


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_exact_fisher_of_one_sample_is_the_dense_gauss_newton(kind: str, request):
    """For one sample, one position: the Kronecker product is exact."""
    model = request.getfixturevalue(kind)
    x, y = samples(model, 1)
    factors = pv.kfac(model, x, y, fisher="exact")
    linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    dense = _dense_ggn(model, x, [f"{n}.weight" for n in linear])
    for name in linear:
        torch.testing.assert_close(factors[name].dense(), dense[f"{name}.weight"], rtol=1e-10, atol=1e-14)


def test_factors_of_a_convolution_are_the_sums_and_means_over_locations(cnn):
    """Against explicit loops over samples and locations, patches cut by hand."""
    x, y = samples(cnn, 3)
    found = pv.kfac(cnn, x, y, fisher="empirical")["2"]
    hidden = F.relu(cnn[0](x)).detach()
    A = torch.zeros(27, 27).double()
    S = torch.zeros(4, 4).double()
    for n in range(3):
        out = cnn[2](hidden[n : n + 1]).detach().requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(cnn[5](F.relu(out).flatten(1)), y[n : n + 1]), out)
        for i in range(2):
            for j in range(2):
                patch = hidden[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].flatten()
                A += torch.outer(patch, patch) / 3
                S += torch.outer(g[0, :, i, j], g[0, :, i, j]) / 4 / 3
    torch.testing.assert_close(found.A, A, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.S, S, rtol=1e-10, atol=1e-14)


def test_sampled_fisher_approaches_the_exact_one(mlp):
    x, y = samples(mlp)
    exact, sampled = pv.kfac(mlp, x, y, fisher="exact"), pv.kfac(mlp, x, y, samples=4000)
    for name in exact:
        assert torch.equal(exact[name].A, sampled[name].A)
        error = (exact[name].S - sampled[name].S).norm() / exact[name].S.norm()
        assert error < 0.05  # 1 / sqrt(28,000 draws), eight times over


def test_kfac_is_repeatable_and_takes_normalisation_in_evaluation_mode():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)).double().train()
    x, y = samples(model)
    one, two = pv.kfac(model, x, y, seed=4), pv.kfac(model, x, y, seed=4)
    assert all(torch.equal(one[n].S, two[n].S) for n in one)
    assert model.training
    assert int(model[1].num_batches_tracked) == 0
    assert torch.equal(one["0"].A, x.T @ x / len(x))


def test_a_layer_used_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    with pytest.raises(UnsupportedLayer, match="used twice"):
        pv.kfac(Twice(), torch.randn(2, 3), torch.tensor([0, 1]))


def test_factors_invert_and_multiply_out():
    generator = torch.Generator().manual_seed(0)
    A, S = (torch.randn(n, 2 * n, generator=generator, dtype=torch.float64) for n in (3, 2))
    factors = KroneckerFactors(A @ A.T, S @ S.T)
    damped = KroneckerFactors(
        factors.A + 0.1 * factors.A.diagonal().mean() * torch.eye(3),
        factors.S + 0.1 * factors.S.diagonal().mean() * torch.eye(2),
    )
    torch.testing.assert_close(factors.inverse(0.1).dense() @ damped.dense(), torch.eye(6).double())
    W = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(factors.dense() @ W.flatten(), (factors.S @ W @ factors.A).flatten())


def test_the_mean_gradient_does_not_depend_on_how_samples_are_batched(mlp):
    x, y = samples(mlp)
    whole = mean_gradient(mlp, [(x, y)], CROSS_ENTROPY)
    parts = mean_gradient(mlp, [(x[:2], y[:2]), (x[2:], y[2:])], CROSS_ENTROPY)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name])


class _Functional(nn.Module):
    """Activations as plain functions, batch normalisation and dropout between."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.a(x)))
        return self.c(torch.tanh(self.b(x)))


def test_jacobian_values_of_modules_are_autograd_s(mlp):
    x, _ = samples(mlp)
    found = pv.jacobian_singular_values(mlp, x)
    assert list(found) == ["0", "2"]
    for i in range(len(x)):
        J = torch.autograd.functional.jacobian(lambda v: F.relu(mlp[0](v)), x[i])
        torch.testing.assert_close(found["0"][i], torch.linalg.svdvals(J), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found["2"][i], torch.linalg.svdvals(mlp[2].weight.detach()), rtol=1e-8, atol=1e-8)


def test_jacobian_values_see_activations_called_as_functions():
    torch.manual_seed(3)
    model = _Functional().double().eval()
    x, _ = samples(model)
    found = pv.jacobian_singular_values(model, x)
    z = model.b(F.relu(model.norm(model.a(x)))).detach()
    slope = 1 - torch.tanh(z) ** 2
    for i in range(len(x)):
        torch.testing.assert_close(
            found["b"][i], torch.linalg.svdvals(slope[i][:, None] * model.b.weight.detach()), rtol=1e-6, atol=1e-9
        )
    scale = (
        model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    )  # normalisation is part of what follows
    alive = ((model.norm(model.a(x)) > 0) * scale).detach()
    torch.testing.assert_close(
        found["a"][0], torch.linalg.svdvals(alive[0][:, None] * model.a.weight.detach()), rtol=1e-6, atol=1e-7
    )


def test_a_convolution_s_values_are_its_kernel_matrix_s(cnn):
    x, _ = samples(cnn)
    found = pv.jacobian_singular_values(cnn, x)["2"]
    torch.testing.assert_close(found, torch.linalg.svdvals(cnn[2].weight.detach().reshape(4, -1))[None])


def test_a_convolution_s_operator_values_are_autograd_s(cnn):
    x, _ = samples(cnn, 2)
    found = pv.jacobian_singular_values(cnn, x, conv="operator")
    hidden = F.relu(cnn[0](x)).detach()
    for i in range(2):
        J = torch.autograd.functional.jacobian(lambda v: F.relu(cnn[2](v[None])).flatten(), hidden[i]).flatten(1)
        torch.testing.assert_close(found["2"][i], torch.linalg.svdvals(J), rtol=1e-6, atol=1e-7)
    assert found["0"].shape == (2, 36)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_lanczos_finds_the_largest_values_of_an_operator_that_is_too_large(monkeypatch, padding_mode: str):
    """Against the exact decomposition, on an operator that either can do."""
    torch.manual_seed(2)
    conv = nn.Conv2d(2, 6, 3, padding=1, groups=2, stride=2, padding_mode=padding_mode)
    model = nn.Sequential(conv, nn.Tanh(), nn.Conv2d(6, 2, 3)).double()
    x = torch.randn(2, 2, 10, 10, dtype=torch.float64)
    exact = pv.jacobian_singular_values(model, x, conv="operator")
    monkeypatch.setattr("pruneviz.curvature.jacobian.LARGEST", 20)
    found = pv.jacobian_singular_values(model, x, conv="operator")
    assert exact["0"].shape == (2, 150)
    assert found["0"].shape == (2, 32)
    torch.testing.assert_close(found["0"], exact["0"][:, :32], rtol=1e-8, atol=0)
    assert found["2"].shape == exact["2"].shape == (2, 18)  # fewer than 32 in all: all of them
    torch.testing.assert_close(found["2"], exact["2"], rtol=1e-6, atol=1e-7)
    again = pv.jacobian_singular_values(model, x, conv="operator")
    assert torch.equal(found["0"], again["0"])
    with torch.no_grad():
        conv.weight.zero_()
    assert not pv.jacobian_singular_values(model, x, conv="operator")["0"].any()


def test_an_operator_is_decomposed_exactly_up_to_4096_rows_and_columns():
    x = torch.zeros(1, 1, 32, 32)
    exact, large = (nn.Sequential(nn.Conv2d(1, out, 3, padding=1)) for out in (2, 8))
    assert pv.jacobian_singular_values(exact, x, conv="operator")["0"].shape == (1, 1024)
    assert pv.jacobian_singular_values(large, x, conv="operator")["0"].shape == (1, 32)
    with pytest.raises(InvalidSetting, match="'kernel' or 'operator'"):
        pv.jacobian_singular_values(large, x, conv="dense")


def test_a_grouped_convolution_s_values_are_its_block_diagonal_matrix_s():
    conv = nn.Conv2d(4, 6, 3, groups=2).double()
    blocks = [w.detach().flatten(1) for w in conv.weight.chunk(2)]
    found = pv.jacobian_singular_values(nn.Sequential(conv), torch.zeros(1, 4, 5, 5).double())["0"]
    torch.testing.assert_close(found, torch.linalg.svdvals(torch.block_diag(*blocks))[None])


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_end_to_end_values_are_those_of_the_network_s_jacobian(kind: str, request):
    model = request.getfixturevalue(kind)
    x, _ = samples(model, 3)
    found = end_to_end_singular_values(model, x)
    assert found.shape == (3, 3)
    for i in range(3):
        J = torch.autograd.functional.jacobian(lambda v: model(v)[0], x[i : i + 1])
        torch.testing.assert_close(found[i], torch.linalg.svdvals(J.reshape(3, -1)))


def test_end_to_end_values_are_taken_in_evaluation_mode_and_leave_the_network_as_it_was():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout()).double().train()
    x, _ = samples(nn.Sequential(nn.Linear(6, 1).double()), 5)
    before = x.clone()
    found = end_to_end_singular_values(model, x)
    scaled = model[1].weight.detach() * (1 + model[2].eps) ** -0.5
    torch.testing.assert_close(found[2], torch.linalg.svdvals(scaled * (x[2] > 0)))
    assert model.training
    assert int(model[2].num_batches_tracked) == 0
    assert torch.equal(x, before)
    assert all(p.grad is None for p in model.parameters())


def test_the_jacobian_probe_pools_end_to_end_values_up_to_100_outputs(cnn):
    x, _ = samples(cnn)
    found = probes.jacobians(cnn, x)
    values = end_to_end_singular_values(cnn, x)
    assert found.layers == ("0", "2", "5")
    assert found.end.shape == (65,)
    assert found.end.dtype == np.float32
    assert found.end[[0, -1]] == pytest.approx([float(values.min()), float(values.max())])
    assert found.end_mean == pytest.approx([float(values.mean())])
    assert found.end_spread == pytest.approx([float((values - 1).abs().mean())])
    wide = probes.jacobians(nn.Linear(3, 101), torch.zeros(2, 3))
    assert wide.end is wide.end_mean is wide.end_spread is None


def test_an_activation_that_works_in_place_leaves_the_factors_as_they_are(mlp):
    x, y = samples(mlp)
    plain = pv.kfac(mlp, x, y, fisher="exact")
    in_place = pv.kfac(nn.Sequential(mlp[0], nn.ReLU(inplace=True), mlp[2]), x, y, fisher="exact")
    for name, pair in plain.items():
        assert torch.equal(pair.A, in_place[name].A)
        assert torch.equal(pair.S, in_place[name].S)
