"""Networks as others write them: what a look at them finds, and curvature against a loop over single samples."""

import pytest
import torch
import torch.nn.functional as F
from strange import EVERY, FACTORS, Folded, problem
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured

import pruneviz as pv
from pruneviz.basics.errors import UnsupportedLayer
from pruneviz.curvature.calls import diagonal, inverse_hessian, kronecker_factors
from pruneviz.curvature.gradients import mean_gradient
from pruneviz.door.loss import CROSS_ENTROPY
from pruneviz.door.network import network_of
from pruneviz.door.parameters import named
from pruneviz.door.samples import Inputs


def near(one: Tensor, two: Tensor, tolerance: float = 1e-10) -> bool:
    return bool((one - two).norm() <= tolerance * two.norm() + 1e-14)


def gradients(net: nn.Module, x: Tensor, y: Tensor, names: list[str]) -> list[list[Tensor]]:
    """One backward pass for each sample, alone in its batch."""
    params = [named(net)[n] for n in names]
    each = [torch.autograd.grad(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), params) for i in range(len(x))]
    return [[g[j] for g in each] for j in range(len(names))]


@pytest.mark.parametrize("name", EVERY)
def test_every_matrix_that_is_multiplied_is_found(name: str):
    net, x, _ = problem(name)
    found = network_of(net, x)
    table = {"embed.weight"} if name in ("table", "tied") else set()
    scale = {n for n in named(net) if n.endswith("original0")}
    expected = {n for n, p in named(net).items() if p.dim() > 1} - scale - (table if name == "tied" else set())
    assert set(found.weights) == expected
    assert set(found.counted()) == expected - table
    assert not found.mixes
    assert found.outputs.numel() in (3, 12)


@pytest.mark.parametrize("name", [n for n in EVERY if n != "standardised"])
@pytest.mark.parametrize("loss", ["empirical", "ggn"])
def test_diagonals_are_those_of_single_samples(name: str, loss: str):
    net, x, y = problem(name)
    names = list(network_of(net, x).counted())
    found = diagonal(net, [(x[:2], y[:2]), (x[2:], y[2:])], kind=loss)
    if loss == "empirical":
        expected = [sum(g**2 for g in each) / len(x) for each in gradients(net, x, y, names)]
    else:  # all labels, weighted by their probability: the Gauss-Newton matrix of softmax
        p = net(x).softmax(1).detach()
        labels = [gradients(net, x, torch.full_like(y, c), names) for c in range(p.shape[1])]
        expected = [
            sum(p[i, c] * labels[c][j][i] ** 2 for c in range(p.shape[1]) for i in range(len(x))) / len(x)
            for j in range(len(names))
        ]
    assert all(near(found[n], e) for n, e in zip(names, expected, strict=True))


@pytest.mark.parametrize(
    "name", ["windows", "places", "groups", "by hand", "twice", "encoder", "GRU", "same", "transposed"]
)
def test_exact_diagonals_are_the_hessians(name: str):
    net, x, y = problem(name, 3)
    found = diagonal(net, [(x, y)], kind="exact")
    params = {n: p.detach() for n, p in named(net).items()}
    for chosen in network_of(net, x).counted():

        def loss(value: Tensor, chosen: str = chosen) -> Tensor:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return F.cross_entropy(torch.func.functional_call(net, params | {chosen: value}, (x,)), y)

        size = params[chosen].numel()
        hessian = torch.autograd.functional.hessian(loss, params[chosen]).view(size, size)
        assert near(found[chosen].flatten(), hessian.diagonal(), 1e-8), chosen


def by_hand(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """A and S of every layer, sample by sample, from what its function was really given."""
    totals: dict[str, list[Tensor | int]] = {}
    layers = {n: m for n, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)}
    real = {"linear": F.linear, "conv1d": F.conv1d, "conv2d": F.conv2d}
    for i in range(len(x)):
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        class Watch(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                for n, m in layers.items():
                    given = [*args, *(kwargs or {}).values()]
                    if func in real.values() and any(m.weight is t for t in given):
                        rows = given[0]
                        if not isinstance(m, nn.Linear):
                            k, s, d = m.kernel_size, m.stride, m.dilation
                            if isinstance(m.padding, str):
                                full = [e * (q - 1) for q, e in zip(k, d, strict=True)]
                                sides = [side for f in reversed(full) for side in (f // 2, f - f // 2)]
                                rows = F.pad(rows, sides)
                            elif m.padding_mode == "zeros":
                                rows = F.pad(rows, [side for q in reversed(m.padding) for side in (q, q)])
                            if isinstance(m, nn.Conv1d):
                                rows, k, s, d = rows[:, :, None], (1, *k), (1, *s), (1, *d)
                            rows = F.unfold(rows, k, d, 0, s).mT
                        out.retain_grad()
                        seen[n] = rows.detach().flatten(0, -2), out  # noqa: B023
                return out

        net.zero_grad()
        with Watch():
            out = net(x[i : i + 1])
        F.cross_entropy(out, y[i : i + 1]).backward()
        for n, (rows, out) in seen.items():
            groups = getattr(layers[n], "groups", 1)
            g = out.grad if isinstance(layers[n], nn.Linear) else out.grad.flatten(2).mT
            g = g.flatten(0, -2).unflatten(1, (groups, -1)).transpose(0, 1)
            r = rows.unflatten(1, (groups, -1)).transpose(0, 1)
            A, S = (r.mT @ r).squeeze(0), (g.mT @ g / len(rows)).squeeze(0)
            old = totals.setdefault(n, [0, 0])
            totals[n] = [old[0] + A / len(x), old[1] + S / len(x)]
    return {n: (A, S) for n, (A, S) in totals.items()}


@pytest.mark.parametrize("name", FACTORS)
def test_factors_are_those_of_single_samples(name: str):
    net, x, y = problem(name)
    found = kronecker_factors(net, [(x[:4], y[:4]), (x[4:], y[4:])], fisher="empirical")
    expected = by_hand(net, x, y)
    assert set(found) == set(expected)
    for layer, (A, S) in expected.items():
        assert near(found[layer].A, A), layer
        assert near(found[layer].S, S), layer


@pytest.mark.parametrize("name", ["windows", "length first", "groups", "same", "by hand", "twice", "encoder", "conv3d"])
@pytest.mark.parametrize("size", [None, 5])
def test_inverse_hessian_is_the_dense_one(name: str, size: int | None):
    net, x, y = problem(name, 4)
    blocks, offsets = inverse_hessian(net, [(x, y)], alpha=1e-2, size=size)
    params = {n: named(net)[n] for n in offsets}
    total = sum(p.numel() for p in params.values())
    H = 1e-2 * torch.eye(total, dtype=x.dtype)
    for i in range(len(x)):
        out = net(x[i : i + 1])[0]
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(z, list(params.values()), retain_graph=True)])
            for z in out
        ]
        J, p = torch.stack(rows), out.softmax(0).detach()
        H += J.T @ (p.diag() - torch.outer(p, p)) @ J / len(x)
    for some in blocks:
        for part in some.parts():
            for index, inverse in zip(some.index[part], some.inverse(part), strict=True):
                at = index[index >= 0]
                expected = torch.linalg.inv(H[at][:, at])
                assert near(inverse[: len(at), : len(at)], expected, 1e-8)


def test_the_mean_gradient_of_a_shared_weight_has_all_its_names():
    net, x, y = problem("tied")
    found = mean_gradient(net, [(x, y)], CROSS_ENTROPY)
    (expected,) = torch.autograd.grad(F.cross_entropy(net(x), y), net.head.weight)
    assert near(found["head.weight"], expected)
    assert near(found["embed.weight"], expected)


def test_a_weight_is_known_by_how_it_is_used():
    found = {name: network_of(*problem(name)[:2]).weights for name in ("tied", "twice", "encoder", "by hand", "LSTM")}
    assert found["tied"]["head.weight"].shared_with == ("embed.weight",)
    assert found["tied"]["head.weight"].uses == found["twice"]["b.weight"].uses == 2
    assert "inside" in found["encoder"]["t.self_attn.out_proj.weight"].why
    assert found["by hand"]["b.weight"].call == "linear"
    assert [w.kind for w in found["LSTM"].values()] == ["recurrent", "recurrent", "linear"]
    assert list(found["by hand"]) == ["a.weight", "b.weight", "w", "c.weight"]  # as the forward pass comes to them


@pytest.mark.parametrize(("how", "inner"), [("plain", 0), ("windows", 0), ("places", 3), ("length first", 1)])
def test_which_rows_belong_to_which_sample_is_found(how: str, inner: int):
    net = Folded(how).double()
    assert network_of(net, problem("plain")[1]).weights["a.weight"].inner == inner


def test_samples_that_meet_are_noticed_and_have_no_factors():
    class Centred(Folded):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(0))

    net, (_, x, y) = Centred("plain").double(), problem("plain")
    found = network_of(net, x)
    assert found.mixes
    assert found.weights["a.weight"].inner is None
    with pytest.raises(UnsupportedLayer, match=r"'a'.*cannot be told.*skip='a'"):
        kronecker_factors(net, [(x, y)])


def test_zeros_that_do_not_stay_and_masks_inside_are_seen():
    net, x, _ = problem("standardised")
    assert not network_of(net, x).weights["0.weight"].stays
    net, x, _ = problem("weight norm")
    assert network_of(net, x).weights["0.parametrizations.weight.original1"].stays
    plain = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()
    l1_unstructured(plain[0], "weight", amount=10)
    weight = network_of(plain, torch.randn(2, 6, dtype=torch.float64)).weights["0.weight_orig"]
    assert torch.equal(weight.alive, plain[0].weight_mask.bool())


def test_a_look_costs_and_changes_nothing():
    net, x, _ = problem("encoder")
    net.train()
    net(x)
    state, before = {n: t.clone() for n, t in net.state_dict().items()}, torch.get_rng_state()
    found = network_of(net, x)
    assert network_of(net, x) is found
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(t, state[n]) for n, t in net.state_dict().items())
    assert net.training
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", ["LSTM", "GRU", "encoder", "by hand", "transposed", "groups", "conv1d"])
def test_flops_are_of_what_runs(name: str):
    net, x, _ = problem(name)
    hand = {
        "LSTM": 4 * 2 * (16 * 5 + 16 * 4) + 2 * 12, "GRU": 4 * 2 * (12 * 5 + 12 * 4) + 2 * 12,
        "encoder": 4 * 2 * (5 * 8 + 24 * 8 + 8 * 8 + 2 * 8 * 6) + 2 * 2 * (4 * 4 * 8) + 2 * 8 * 3,
        "by hand": 2 * (6 * 8 + 8 * 7 + 7 * 5 + 5 * 3),
        "transposed": 2 * 25 * 2 * 4 * 9 + 2 * 16 * 3, "groups": 2 * 36 * 6 * 2 * 9 + 2 * 24 * 3,
        "conv1d": 2 * 5 * (4 * 2 * 3 + 5 * 4 * 3) + 2 * 10 * 3,
    }  # fmt: skip
    found = network_of(net, x)
    assert found.flops == hand[name]
    assert found.uncounted == ()
    assert sum(w.flops for w in found.weights.values()) == found.flops - (512 if name == "encoder" else 0)


class Turned(nn.Module):
    """A weight that is read turned round as well, between two layers that are read once."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 7), nn.Linear(7, 5), nn.Linear(7, 4)
        self.d = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.b(torch.tanh(self.a(x))))
        return self.d(torch.tanh(self.c(torch.tanh(F.linear(h, self.b.weight.t())))))


def test_a_weight_read_turned_round_as_well_is_used_twice():
    weight = network_of(Turned().double(), torch.randn(2, 6, dtype=torch.float64)).weights["b.weight"]
    assert (weight.uses, weight.call, weight.why) == (2, "", "it is used 2 times in one forward pass")


@pytest.mark.filterwarnings("ignore::pruneviz.errors.PruningWarning")  # head left out
@pytest.mark.parametrize("method", ["kron-obd", "kron-obs", "eigendamage"])
def test_what_is_left_alone_needs_no_factors(method: str):
    net, x, y = Turned().double(), torch.randn(6, 6, dtype=torch.float64), torch.arange(6) % 3
    with pytest.raises(UnsupportedLayer, match=r"'b' is used twice.*skip='b'"):
        pv.score(net, x, y, method=method)
    found = pv.score(net, x, y, method=method, skip="b")
    assert set(found) == {"a", "c"}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("how", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_second_derivatives_see_the_norm_of_a_normalised_weight(how):
    """Torch's own second derivative takes the norm for a constant."""
    torch.manual_seed(0)
    net = nn.Sequential(how(nn.Conv1d(2, 4, 3), dim=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = torch.randn(6, 2, 5, dtype=torch.float64), torch.arange(6) % 3
    v = next(n for n, p in net.named_parameters() if p.shape == (4, 2, 3))
    g, bias = (next(p.detach() for p in net[0].parameters() if p.shape == s) for s in ((1, 1, 3), (4,)))
    last = net[3]

    def loss(weights: tuple[Tensor, Tensor]) -> Tensor:
        kernel = weights[0] / weights[0].square().sum((0, 1), keepdim=True).sqrt() * g
        h = torch.tanh(F.conv1d(x, kernel, bias)).flatten(1)
        return F.cross_entropy(h @ weights[1].T + last.bias.detach(), y)

    values = (dict(net.named_parameters())[v].detach(), last.weight.detach())
    H = torch.func.jacrev(torch.func.jacrev(loss))(values)
    flat = [[H[i][j].reshape(values[i].numel(), -1) for j in (0, 1)] for i in (0, 1)]
    slopes = [s.flatten() for s in torch.func.grad(loss)(values)]
    found = pv.score(net, x, y, method="grasp", temperature=1.0)
    for i, name in enumerate((v, "3.weight")):
        expected = values[i].flatten() * (flat[i][0] @ slopes[0] + flat[i][1] @ slopes[1])
        assert near(found[name].flatten(), expected)
    exact = pv.score(net, x, y, method="obd", hessian="exact")[v]
    assert near(exact.flatten(), flat[0][0].diagonal() * values[0].flatten() ** 2 / 2)


def test_a_look_is_taken_anew_when_what_is_read_or_masked_changes():
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    l1_unstructured(net[0], "weight", amount=5)
    first = network_of(net, x).weights["0.weight_orig"].alive
    l1_unstructured(net[0], "weight", amount=5)
    second = network_of(net, x).weights["0.weight_orig"].alive
    assert (int((~first).sum()), int((~second).sum())) == (5, 10)
    two = network_of(net, Inputs(x, outputs=lambda out: out[:, :2]))
    assert two.outputs == torch.Size([2])
