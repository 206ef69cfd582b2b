"""Orthogonal weights, the repair that makes survivors isometric again, and the method that uses both."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from problems import samples
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting
from pruneviz.curvature.jacobian import end_to_end_singular_values
from pruneviz.curvature.task import Task
from pruneviz.methods import method_class
from pruneviz.models._torch.initialisation import orthogonal_
from pruneviz.papers import isometry as paper
from pruneviz.units.isometry import isometric, repaired, rescaled
from pruneviz.units.masks import Mask
from pruneviz.units.weights import prunable

needs_mnist = pytest.mark.skipif(
    not pv.DATASETS["mnist"].present, reason="MNIST is not here: set PRUNEVIZ_DATA to a folder with mnist/"
)
EYE = torch.eye(64, dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random_mask(model: nn.Module, kept: float) -> Mask:
    draw = _generator(7)
    params = dict(model.named_parameters())
    return Mask({name: torch.rand(params[name].shape, generator=draw) < kept for name in prunable(model)})


def _layers() -> nn.Module:
    """Wide, square, tall, a convolution and one in groups, in float64; not meant to be run."""
    torch.manual_seed(4)
    return nn.ModuleDict(
        {
            "wide": nn.Linear(40, 12),
            "square": nn.Linear(20, 20),
            "tall": nn.Linear(12, 40),
            "conv": nn.Conv2d(4, 10, 3),
            "groups": nn.Conv2d(6, 8, 3, groups=2),
        }
    ).double()


def _matrices(model: nn.Module, name: str, weight: Tensor) -> list[Tensor]:
    """The matrices of a layer's groups, [out, in k k] each."""
    groups = getattr(model.get_submodule(name.removesuffix(".weight")), "groups", 1)
    return [part.detach().flatten(1) for part in weight.chunk(groups)]


def _spread(matrices: list[Tensor]) -> float:
    return float((torch.cat([torch.linalg.svdvals(W) for W in matrices]) - 1).abs().mean())


# orthogonal initialisation


def test_after_preparation_all_singular_values_of_linear_layers_are_1():
    model = nn.Sequential(nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 3)).double()
    before = deepcopy(model.state_dict())
    prepared = method_class("isometry")().prepare(model, Task(list, _generator()))
    for name, value in prepared.named_parameters():
        if name.endswith("weight"):
            found = torch.linalg.svdvals(value)
            torch.testing.assert_close(found, torch.ones_like(found))
        else:
            assert not value.any()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("groups", [1, 2])
def test_a_delta_orthogonal_convolution_keeps_the_size_of_every_image(groups: int):
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=groups).double()
    orthogonal_(conv, _generator())
    model = nn.Sequential(conv)
    image = torch.randn(2, 4, 5, 5, generator=_generator(1), dtype=torch.float64)
    torch.testing.assert_close(conv(image).flatten(1).norm(dim=1), image.flatten(1).norm(dim=1))
    values = pv.jacobian_singular_values(model, image, conv="operator")["0"]
    torch.testing.assert_close(values, torch.ones(2, 100).double())
    kernel = pv.jacobian_singular_values(model, image)["0"]
    torch.testing.assert_close(kernel[0, :4], torch.ones(4).double())  # min(out, in) of them
    off = conv.weight.detach().clone()
    off[:, :, 1, 1] = 0
    assert not off.any()


@pytest.mark.parametrize(("size", "centre"), [(1, 0), (2, 0), (4, 1), (5, 2)])
def test_a_narrowing_convolution_gets_orthonormal_rows_at_its_kernel_s_centre(size: int, centre: int):
    conv = orthogonal_(nn.Conv2d(8, 3, size).double(), _generator())
    W = conv.weight.detach()[:, :, centre, centre]
    torch.testing.assert_close(W @ W.T, EYE[:3, :3])
    assert int((conv.weight != 0).sum()) == W.numel()


def test_orthogonal_kernel_matrices_have_no_zeros():
    model = orthogonal_(
        nn.Sequential(nn.Conv2d(6, 9, 3), nn.Conv2d(6, 9, 3, groups=3)).double(), _generator(), kernel="matrix"
    )
    for name in ("0.weight", "1.weight"):
        weight = model.get_parameter(name)
        assert (weight != 0).all()
        for W in _matrices(model, name, weight):
            torch.testing.assert_close(W @ W.T, EYE[: len(W), : len(W)])


def test_every_dtype_starts_from_the_same_orthogonal_weights():
    single, double = (orthogonal_(nn.Linear(9, 5, dtype=t), _generator()) for t in (torch.float32, torch.float64))
    assert torch.equal(single.weight, double.weight.float())
    assert not torch.equal(single.weight, orthogonal_(nn.Linear(9, 5), _generator(1)).weight)


def test_normalisation_starts_fresh():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(8, 3, generator=_generator()))
    model[1].weight.data.fill_(2)
    orthogonal_(model, _generator())
    assert torch.equal(model[1].running_mean, torch.zeros(4))
    assert torch.equal(model[1].weight, torch.ones(4))


def test_in_a_deep_linear_net_all_end_to_end_singular_values_are_1_and_with_tanh_they_are_less():
    def deep(activation: type[nn.Module]) -> nn.Module:
        layers = [part for _ in range(7) for part in (nn.Linear(10, 10), activation())]
        return orthogonal_(nn.Sequential(*layers).double(), _generator())

    x = torch.randn(3, 10, generator=_generator(), dtype=torch.float64)
    torch.testing.assert_close(end_to_end_singular_values(deep(nn.Identity), x), torch.ones(3, 10).double())
    assert (end_to_end_singular_values(deep(nn.Tanh), x) < 1).all()


# the repair


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.7])
def test_the_repair_brings_singular_values_nearer_1_in_each_layer_and_moves_survivors_only(kept: float):
    model = _layers()
    mask = _random_mask(model, kept)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    found, residuals = isometric(model, mask)
    assert set(found) == set(residuals) == set(mask)
    for name, value in found.items():
        assert (value[~mask[name]] == 0).all()
        assert _spread(_matrices(model, name, value)) < _spread(_matrices(model, name, before[name] * mask[name]))
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_where_the_mask_allows_it_every_singular_value_becomes_1():
    model = _layers()
    found, residuals = isometric(model, _random_mask(model, 0.7), tolerance=1e-6, steps=5000)
    for name, value in found.items():
        for W in _matrices(model, name, value):
            values = torch.linalg.svdvals(W)
            torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-5)
        assert residuals[name] < 1e-4


def test_the_residual_is_the_norm_on_the_smaller_side_over_all_groups():
    model = _layers()
    found, residuals = isometric(model, _random_mask(model, 0.15))
    for name, value in found.items():
        total = 0.0
        for W in _matrices(model, name, value):
            large = max(W.shape)
            gram = W.T @ W if W.shape[1] == large else W @ W.T
            total += float((gram - EYE[:large, :large]).square().sum()) - (
                large - min(W.shape)
            )  # the larger side's excess
        assert residuals[name] == pytest.approx(total**0.5, rel=1e-9)


def test_a_wide_layer_and_its_transpose_are_repaired_alike():
    wide, tall = nn.Linear(30, 8).double(), nn.Linear(8, 30).double()
    tall.weight.data.copy_(wide.weight.data.T)
    keep = torch.rand(8, 30, generator=_generator()) < 0.3
    (one, r), (two, s) = isometric(wide, Mask({"weight": keep})), isometric(tall, Mask({"weight": keep.T}))
    torch.testing.assert_close(one["weight"], two["weight"].T)
    assert r["weight"] == pytest.approx(s["weight"])


def test_the_norm_and_its_square_have_the_same_minimum():
    model = _layers()
    mask = _random_mask(model, 0.15)
    (_, square), (_, norm) = (isometric(model, mask, norm=n, tolerance=1e-9) for n in (False, True))
    assert norm == pytest.approx(square, rel=1e-3, abs=1e-3)
    assert max(square.values()) > 0.5


def test_the_repair_ends_where_the_gradient_over_the_survivors_is_0():
    model = _layers()
    mask = _random_mask(model, 0.15)
    found, residuals = isometric(model, mask, tolerance=1e-12, steps=5000)
    for name in ("wide.weight", "square.weight", "tall.weight"):
        W = found[name].requires_grad_()
        small = W @ W.T if len(W) <= W.shape[1] else W.T @ W
        (g,) = torch.autograd.grad((small - EYE[: len(small), : len(small)]).square().sum(), W)
        assert float((g * mask[name]).abs().max()) < 1e-5
    assert residuals["square.weight"] > 0.5  # a minimum above 0


def test_rows_that_the_mask_empties_are_the_constant_part_of_the_residual():
    layer = nn.Linear(20, 6).double()
    keep = torch.ones(6, 20, dtype=torch.bool)
    keep[:2] = False
    found, residuals = isometric(layer, Mask({"weight": keep}), tolerance=1e-6)
    assert residuals["weight"] == pytest.approx(2**0.5)
    torch.testing.assert_close(torch.linalg.svdvals(found["weight"])[:4], torch.ones(4).double(), rtol=0, atol=1e-5)
    assert not isometric(layer, Mask({"weight": torch.zeros(6, 20)}))[0]["weight"].any()


def test_an_orthogonal_layer_that_lost_nothing_stays_as_it_is():
    layer = orthogonal_(nn.Linear(9, 5).double(), _generator())
    found, _ = isometric(layer, Mask.full(layer, ["weight"]))
    assert torch.equal(found["weight"], layer.weight)


def test_the_repair_is_repeatable_and_keeps_the_network_s_dtype():
    model = _layers().float()
    mask = _random_mask(model, 0.3)
    one, two = isometric(model, mask)[0], isometric(model, mask)[0]
    assert all(torch.equal(one[name], two[name]) for name in mask)
    assert {value.dtype for value in one.values()} == {torch.float32}
    half = isometric(model.bfloat16(), mask)[0]
    assert {value.dtype for value in half.values()} == {torch.bfloat16}


def test_rescaling_gives_mean_singular_value_1_and_changes_nothing_but_the_size():
    model = _layers()
    mask = _random_mask(model, 0.3)
    found = rescaled(model, mask)
    for name, value in found.items():
        values = torch.cat([torch.linalg.svdvals(W) for W in _matrices(model, name, value)])
        assert float(values.mean()) == pytest.approx(1)
        ratio = (value / (model.get_parameter(name) * mask[name]))[mask[name]]
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
        assert (value[~mask[name]] == 0).all()
    gone = Mask({name: torch.zeros_like(keep) for name, keep in mask.items()})
    assert not any(value.any() for value in rescaled(model, gone).values())


def test_a_repair_is_chosen_by_name():
    model = _layers()
    mask = _random_mask(model, 0.3)
    assert repaired("none", model, mask) == {}
    for how, expected in (("isometry", isometric(model, mask)[0]), ("rescale", rescaled(model, mask))):
        found = repaired(how, model, mask)
        assert all(torch.equal(found[name], expected[name]) for name in mask)
    with pytest.raises(InvalidSetting, match="none, isometry or rescale; found 'orthogonal'"):
        repaired("orthogonal", model, mask)


# the method


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_score_is_weight_times_the_sum_of_all_samples_gradients(kind: str, request):
    """Against a loop over samples; the score divides the sum by their number, which changes no rank."""
    model = request.getfixturevalue(kind)
    x, y = samples(model, 9)
    found = pv.score(model, x, y, method="isometry")
    summed = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for i in range(9):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        for (name, value), g in zip(
            model.named_parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            summed[name] += value.detach() * g
    for name, value in found.items():
        torch.testing.assert_close(value, summed[name].abs() / 9, rtol=1e-6, atol=1e-15)


def test_the_score_is_of_the_weights_it_is_given_whatever_init_says(mlp):
    x, y = samples(mlp)
    one, two = (pv.score(mlp, x, y, method="isometry", init=i) for i in ("orthogonal", "variance-scaling"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_variance_scaling_prepares_nothing(mlp):
    task = Task(list, _generator())
    assert method_class("isometry")(init="variance-scaling").prepare(mlp, task) is mlp


def test_a_run_scores_on_the_whole_training_set():
    train = (torch.zeros(1234, 3), torch.zeros(1234).long())
    assert sum(len(x) for x, _ in method_class("isometry")().draw(train, _generator())) == 1234


@pytest.mark.parametrize("norm", [False, True])
def test_pruning_repairs_the_survivors_from_the_weights_before_pruning(norm: bool, mlp):
    x, y = samples(mlp)
    found = pv.prune(mlp, x, y, method="isometry", sparsity=0.4, norm=norm)
    expected, _ = isometric(mlp, found.mask, norm=norm)
    plain = pv.prune(mlp, x, y, method="isometry", sparsity=0.4, repair=False)
    for name, keep in found.mask.items():
        assert torch.equal(found.model.get_parameter(name), expected[name])
        assert torch.equal(plain.model.get_parameter(name), mlp.get_parameter(name) * keep)


# the paper's claims


@needs_mnist
def test_on_mnist_pruning_lowers_singular_values_and_the_repair_restores_them_and_speeds_training():
    rows = paper.measure([0], paper.SPARSITIES, paper.STEPS, lambda line: None)
    assert rows[0]["repair"] == "none"
    assert rows[0]["mean_singular_value"] > 0.9  # orthogonal, less what tanh takes
    for sparsity in paper.SPARSITIES:
        assert paper.falls(rows, sparsity)[0] > 0.2
        assert paper.restored(rows, sparsity)[0] > 0.7
        assert paper.gains(rows, sparsity, "none")[0] > 0.01
        assert paper.gains(rows, sparsity, "rescale")[0] > 0.005
        pruned, scaled, whole = (r["spread"] for r in rows if r["sparsity"] == sparsity)
        assert whole < scaled / 2 < pruned / 2


def _rows(seeds: int, whole: float) -> list[dict]:
    """Made up: mean singular values 0.9 dense, 0.5 pruned, 0.8 rescaled; the isometric network at ``whole`` for seed 0."""
    found = []
    for seed in range(seeds):
        values = {"none": 0.5, "rescale": 0.8, "isometry": whole if seed == 0 else 0.86}
        found.append({"seed": seed, "sparsity": 0.0, "repair": "none", "mean_singular_value": 0.9, "accuracy": 0.95})
        found += [
            {"seed": seed, "sparsity": 0.9, "repair": r, "mean_singular_value": v, "accuracy": v}
            for r, v in values.items()
        ]
    return [row | {"spread": 0.1, "end_mean": 0.3} for row in found]


@pytest.mark.parametrize(("seeds", "whole", "verdict"), [(5, 0.82, "holds"), (5, 0.7, "open"), (4, 0.82, "open")])
def test_a_claim_holds_where_all_of_at_least_five_seeds_agree(seeds: int, whole: float, verdict: str):
    fall, restored, training, control = paper.claims(_rows(seeds, whole), 0.9)
    assert (fall.key, fall.ours) == ("fall-90", pytest.approx(0.4))
    assert (restored.ours, restored.low) == pytest.approx((0.9, (whole - 0.5) / 0.4))
    assert restored.verdict == verdict
    assert (training.ours, control.ours) == pytest.approx((0.36, 0.06))
    assert control.seeds == seeds


def test_the_paper_s_table_has_a_row_for_each_network():
    table = paper.table(_rows(5, 0.82))
    assert [row[1] for row in table.rows] == ["dense", "pruned", "rescaled", "isometric"]
    assert dict(zip(table.columns, table.rows[-1], strict=True))["lowest"] == 0.82
