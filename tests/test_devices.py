"""Every call on a device that refuses to mix with the CPU, and on one without float64: the CPU's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from elsewhere import Away, back, elsewhere, sent
from torch import Tensor, nn

import pruneviz as pv

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*frobenius_norm is deprecated",  # torch's own name for it, where it does not know the device
    "ignore::pruneviz.basics.errors.PruningWarning",
)
KINDS = ("mps", "maia")  # without float64, and with
FILTERS = ("l1-filters", "kron-obd", "kron-obs", "eigendamage")
# scores of fewer digits: without float64 the Hessian's product is taken in float32
LIMITS = {"grasp": 2e-3}
SWITCHES: dict[str, list[dict[str, Any]]] = {
    "kron-obs": [{"fisher": "exact"}, {"fisher": "exact", "quadratic": "row-sum", "joint": False}],
    "kron-obd": [{}, {"quadratic": "row-sum"}],
    "eigendamage": [{}, {"basis": "patches", "eigenvalues": "corrected"}],
    "obd": [{}, {"hessian": "exact"}, {"hessian": "fisher", "include_bias": True}],
    "obs": [{}, {"blocks": "rows"}, {"blocks": 7}],
    "snip": [{}, {"bn_mode": "eval"}],
    "isometry": [{"steps": 30}],
    "lottery-ticket": [{}, {"criterion": "movement"}],
}


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in ((2, 4), (4, 6), (6, 4)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (4, 6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.stem(x)))
        x = F.relu(x + self.norms[2](self.b(F.relu(self.norms[1](self.a(x))))))
        return self.head(x.mean((2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, bias=False),
        nn.Tanh(), nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (12,)), "cnn": (cnn, (2, 6, 6)), "residual": (Residual, (2, 5, 5))
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def setting(request) -> tuple[nn.Module, Tensor, Tensor]:
    convolutions = (
        "l1-filters" in request.node.name and request.param == "mlp"
    )  # without one it has no filters to score
    make, shape = NETWORKS["cnn" if convolutions else request.param]
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, torch.randn(18, *shape), torch.arange(18) % 3


def apart(found: Any, expected: Any) -> float:
    """The largest difference of two results, relative to each tensor's norm; masks differ or not."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        return max((apart(found[key], value) for key, value in expected.items()), default=0.0)
    if expected.dtype is torch.bool:
        return float((found != expected).any())
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def there(call: Callable[..., Any], setting: tuple[nn.Module, Tensor, Tensor], kind: str) -> Any:
    """What a call gives on such a device, brought back; every tensor has to be there."""
    model, x, y = setting
    with elsewhere(kind):
        return back(call(sent(model, kind), Away(x.clone(), kind), Away(y.clone(), kind)))


def initial(model: nn.Module) -> dict[str, Tensor]:
    return {name: 0.5 * value for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", pv.METHODS)
def test_scores_are_the_cpu_s(method: str, kind: str, setting):
    for switches in SWITCHES.get(method, [{}]):

        def scored(model, x, y, switches=switches):
            return pv.score(model, x, y, method=method, initial=initial(model), **switches)

        assert apart(there(scored, setting, kind), scored(*setting)) <= LIMITS.get(method, 2e-4), switches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", pv.METHODS)
def test_masks_and_what_is_left_are_the_cpu_s(method: str, kind: str, setting):
    sparsity = 0.3 if method in FILTERS else 0.5
    for switches in SWITCHES.get(method, [{}]):

        def pruned(model, x, y, switches=switches):
            found = pv.prune(
                model, x, y, method=method, sparsity=sparsity, initial=initial(model), recalibrate=True, **switches
            )
            small = pv.compact(found)
            return {
                "mask": dict(found.mask),
                "weights": dict(found.model.state_dict()),
                "small": small.model(x),
                "outputs": found.model.eval()(x),
                "reached": torch.tensor([found.report["reached"], float(found.report["parameters"])]),
            }

        found, expected = there(pruned, setting, kind), pruned(*setting)
        assert apart(found["mask"], expected["mask"]) == 0, switches
        if method != "eigendamage":  # of eigenvectors the sign is free
            assert apart(found["weights"], expected["weights"]) <= 2e-3, switches
        for key in ("outputs", "small", "reached"):
            assert apart(found[key], expected[key]) <= 2e-3, (key, switches)


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_and_jacobians_are_the_cpu_s(kind: str, setting):
    def factors(fisher: str) -> Callable[..., Any]:
        def call(model, x, y):
            found = pv.kfac(model, x, y, fisher=fisher)
            values = {name: dict(zip("AS", pair.eigenvalues(), strict=True)) for name, pair in found.items()}
            inverse = {name: pair.inverse(1e-2).S for name, pair in found.items()}
            turned = {}
            for name, pair in found.items():
                (a, Q), (s, P) = pair.eigh()
                (some, R), _ = pair.eigh(complete=False)
                turned[name] = {
                    "A": Q @ (a[:, None] * Q.mT),
                    "S": P @ (s[:, None] * P.mT),
                    "some": R @ (some[:, None] * R.mT),
                }
            return {
                "factors": {n: {"A": p.A, "S": p.S} for n, p in found.items()},
                "values": values, "inverse": inverse, "turned": turned,
            }  # fmt: skip

        return call

    for fisher in ("sampled", "exact", "empirical"):
        assert apart(there(factors(fisher), setting, kind), factors(fisher)(*setting)) <= 2e-4
    for conv in ("kernel", "operator"):

        def values(model, x, y, conv=conv):
            return pv.jacobian_singular_values(model, x, conv=conv)

        assert apart(there(values, setting, kind), values(*setting)) <= 2e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_tells_the_same(kind: str, setting):
    def look(model, x, y):
        return str(pv.inspect(model, x, y))

    assert there(look, setting, kind) == look(*setting)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_round_and_held_zeros_stay_there(kind: str, setting):
    def rounds(model, x, y):
        once = pv.prune(model, x, y, method="magnitude", sparsity=0.3)
        with pv.hold(once.model, once.mask):
            optimiser = torch.optim.SGD(once.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
            for _ in range(2):
                optimiser.zero_grad()
                F.cross_entropy(once.model(x), y).backward()
                optimiser.step()
        again = pv.prune(once.model, x, y, method="snip", sparsity=0.6, mask=once.mask)
        return {"mask": dict(again.mask), "weights": dict(again.model.state_dict())}

    found, expected = there(rounds, setting, kind), rounds(*setting)
    assert apart(found["mask"], expected["mask"]) == 0
    assert apart(found["weights"], expected["weights"]) <= 1e-4


def test_the_devices_refuse_what_they_should():
    """Otherwise the tests above would say nothing."""
    here = torch.ones(2, 2)
    for kind in KINDS:
        with elsewhere(kind):
            away = Away(torch.ones(2, 2), kind)
            assert away.cpu().device.type == "cpu"
            assert torch.zeros(2, device=away.device).device == away.device
            assert here.to(away).device == away.new_zeros(3).device == (away + 1).device == away.device
            assert (away * torch.tensor(2.0)).tolist() == [[2, 2], [2, 2]]
            for mixed in (lambda away=away: away + here, lambda away=away: torch.cat([here, away])):
                with pytest.raises(RuntimeError, match="same device"):
                    mixed()
            with pytest.raises(TypeError, match="numpy"):
                away.numpy()
            if kind == "mps":
                for wide in (away.double, lambda: torch.zeros(2, dtype=torch.float64, device="mps")):
                    with pytest.raises(TypeError, match="float64"):
                        wide()
                with pytest.raises(NotImplementedError):
                    torch.linalg.eigh(away)
            else:
                assert away.double().dtype is torch.float64
