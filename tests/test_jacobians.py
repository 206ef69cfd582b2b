"""Layer Jacobians where what follows a layer is written as others write it, against autograd's own Jacobian."""

from collections.abc import Callable
from warnings import catch_warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import pruneviz as pv
from pruneviz.basics.errors import Unsuitable, UnsupportedLayer
from pruneviz.curvature.jacobian import end_to_end_singular_values
from pruneviz.door.samples import Inputs


class Then(nn.Module):
    """A layer, something after it, and a head."""

    def __init__(self, after: Callable[[Tensor], Tensor], layer: nn.Module | None = None, head: int = 5):
        super().__init__()
        self.after, self.l, self.head = after, layer or nn.Linear(6, 5), nn.Linear(head, 3)

    def inner(self, x: Tensor) -> Tensor:
        return self.after(self.l(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).flatten(1))


def scaled(norm: nn.Module) -> nn.Module:
    """A normalisation that has seen something."""
    with torch.no_grad():
        norm.weight.uniform_(0.3, 2)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 3)
    return norm


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(5) + 0.5), nn.Parameter(torch.randn(5))

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(self.gamma * h + self.beta) / 3


def by_hand(h: Tensor) -> Tensor:
    return h * torch.sigmoid(h)


with catch_warnings(action="ignore"):  # deprecated, and in use
    swish = torch.jit.script(by_hand)


DOUBLED = ("concatenated ReLU", "two beside each other")
FOLLOWS: dict[str, Callable] = {
    "x sigmoid(x)": lambda h: h * torch.sigmoid(h),
    "GPT-2's GELU": lambda h: 0.5 * h * (1 + torch.tanh(0.7978845608 * (h + 0.044715 * h**3))),
    "sine": torch.sin,
    "maximum with 0": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "where": lambda h: torch.where(h > 0, h, 0.1 * h),
    "squared ReLU": lambda h: F.relu(h).square(),
    "mish by hand": lambda h: h * torch.tanh(F.softplus(h)),
    "clamped to 6": lambda h: h.clamp(0, 1.5),
    "PReLU": nn.PReLU(5),
    "in place": lambda h: F.relu_(h) * 2,
    "scaled by parameters": Scale(),
    "batch normalisation": scaled(nn.BatchNorm1d(5)),
    "normalised, then tanh": nn.Sequential(scaled(nn.BatchNorm1d(5)), nn.Tanh(), nn.Dropout(0.5)),
    "softsign by hand": lambda h: h / (1 + h.abs()),
    "exponential": lambda h: torch.expm1(h).clamp(max=2.0),
    "nothing": lambda h: h,
    "minus its own half": lambda h: h - 0.5 * h.tanh(),
    "a function that no list knows": torch.special.i0,
    "max with a constant": lambda h: torch.max(torch.zeros_like(h), h),
    "masked by its signs": lambda h: h.masked_fill(h < 0, 0.0),
    "times its signs": lambda h: h * (h > 0),
    "set where it is negative": lambda h: (h.__setitem__(h < 0, 0.0), h)[1],
    "a scripted function": swish,
    "a scripted function beside": lambda h: h + swish(h),
    "a slope straight through": lambda h: h + (h.round() - h).detach(),
    "a step": lambda h: (h > 0).to(h.dtype),
    "turned and back": lambda h: h.T.tanh().T,
    "in another order": lambda h: h[:, [4, 2, 0, 1, 3]].sin(),
    "each part by its own": lambda h: torch.cat([h[:, :2].relu(), h[:, 2:].tanh()], 1),
    "parts in place": lambda h: (h[:, :3].relu_(), h)[1],
    "a view, then in place": lambda h: (h.view(-1, 1, 5), h.relu_())[0],
    "concatenated ReLU": lambda h: F.relu(torch.cat([h, -h], 1)),
    "two beside each other": lambda h: torch.stack([h.sigmoid(), h.tanh()], 1),
    "copied into another": lambda h: torch.empty_like(h).copy_(h).tanh(),
    "row by row": lambda h: torch.stack([torch.tanh(one) for one in h]),
    "recomputed": lambda h: checkpoint(torch.tanh, h, use_reentrant=False),
    "in double and back": lambda h: h.to(torch.float64).tanh().type(h.dtype),
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_follows_a_layer_is_differentiated(name: str):
    torch.manual_seed(1)
    x = torch.randn(4, 6, dtype=torch.float64)
    net = Then(FOLLOWS[name], head=10 if name in DOUBLED else 5).double().eval()
    J = torch.stack([torch.autograd.functional.jacobian(lambda z: net.inner(z[None])[0].flatten(), one) for one in x])
    expected = torch.linalg.svdvals(J)[:, :5]  # of ten rows, a sixth is 0: W has five
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


class Summed(Then):
    """The input beside the layer, before the activation."""

    def inner(self, x: Tensor) -> Tensor:
        return self.after(self.l(x) + x[:, :5])


STOPS: dict[str, Callable] = {
    "softmax": lambda h: h.softmax(1),
    "layer normalisation": nn.LayerNorm(5),
    "centred": lambda h: h - h.mean(1, keepdim=True),
    "group normalisation": nn.GroupNorm(1, 5),
    "RMS normalisation by hand": lambda h: h * torch.rsqrt(h.pow(2).mean(1, keepdim=True) + 1e-5),
    "length by hand": lambda h: h / (h * h).sum(1, keepdim=True).sqrt(),
    "largest by hand": lambda h: h / h.abs().max(),
    "softmax by hand": lambda h: (e := torch.exp(h - h.amax(1, keepdim=True))) / e.sum(1, keepdim=True),
    "running sum": lambda h: h.cumsum(1),
    "sorted": lambda h: h.sort(1).values,
    "attention to itself": lambda h: F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None]),
    "statistics of the batch": nn.BatchNorm1d(5, track_running_stats=False),
    "excited by its mean": lambda h: h * h.mean(1, keepdim=True).sigmoid(),
    "added to its mirror image": lambda h: h + h.flip(1),
    "sum in place": lambda h: h.clone().add_(h.flip(1)),
    "sum with the input": None,  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", STOPS)
def test_it_stops_before_what_mixes_units_or_paths(name: str):
    torch.manual_seed(2)
    x = torch.randn(4, 6, dtype=torch.float64)
    net = (Then(STOPS[name]) if STOPS[name] else Summed(torch.relu)).double().eval()
    expected = torch.linalg.svdvals(net.l.weight.detach()).expand(4, 5)
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


def test_two_functions_that_read_one_layer_stand_one_above_the_other():
    net = Then(lambda h: torch.cat([torch.tanh(h), torch.relu(h)], 1), head=10).double().eval()
    x = torch.randn(4, 6, dtype=torch.float64)
    J = torch.stack([torch.autograd.functional.jacobian(lambda z: net.inner(z[None])[0], one) for one in x])
    expected = torch.linalg.svdvals(J)[:, :5]  # a sixth is 0: W has five rows
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_an_operator_is_taken_with_what_follows_it(padding: str):
    torch.manual_seed(3)
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode=padding)
    after = nn.Sequential(scaled(nn.BatchNorm2d(3)), nn.SiLU())
    net, x = Then(after, conv, head=48).double().eval(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    J = [torch.autograd.functional.jacobian(lambda z: net.inner(z[None])[0].flatten(), one).flatten(1) for one in x]
    found = pv.jacobian_singular_values(net, x, conv="operator")["l"]
    torch.testing.assert_close(found, torch.linalg.svdvals(torch.stack(J)), rtol=1e-6, atol=1e-7)
    last = pv.jacobian_singular_values(net.to(memory_format=torch.channels_last), x, conv="operator")["l"]
    torch.testing.assert_close(last, found, rtol=1e-9, atol=1e-9)


def test_tokens_give_a_row_for_each_position_and_a_layer_used_twice_for_each_use():
    net = nn.Sequential(shared := nn.Linear(6, 6), nn.Tanh(), shared, nn.Flatten(), nn.Linear(18, 2)).double()
    found = pv.jacobian_singular_values(net, torch.randn(4, 3, 6, dtype=torch.float64))
    assert found["0"].shape == (24, 6)
    assert found["4"].shape == (4, 2)


def test_a_layer_without_gradients_has_its_jacobian():
    class Frozen(Then):
        def inner(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().inner(x)

    torch.manual_seed(4)
    net, x = Frozen(torch.tanh).double(), torch.randn(4, 6, dtype=torch.float64)
    slope = 1 - net.inner(x) ** 2
    expected = torch.linalg.svdvals(slope[:, :, None] * net.l.weight.detach())
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


def test_a_function_with_a_slope_of_its_own_is_followed():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(context, h):
            return h * 2

        @staticmethod
        def backward(context, g):
            return g * 3

    net, x = Then(Own.apply).double(), torch.randn(2, 6, dtype=torch.float64)
    expected = torch.linalg.svdvals(3 * net.l.weight.detach()).expand(2, 5)
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


def test_what_cannot_be_seen_is_found_by_its_slope_or_refused_by_the_layer_s_name():
    def mixed(h: Tensor) -> Tensor:
        seen = h * 1
        with torch._C.DisableTorchFunction():  # as what runs outside torch's Python functions
            return seen.cumsum(1)

    x = torch.randn(3, 6, dtype=torch.float64)
    net = Then(mixed).double()
    torch.testing.assert_close(
        pv.jacobian_singular_values(net, x)["l"], torch.linalg.svdvals(net.l.weight.detach()).expand(3, 5)
    )

    class Hidden(Then):
        def inner(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.l(x)
                with torch._C.DisableTorchFunction():
                    return h * 2

    with pytest.raises(
        UnsupportedLayer, match=r"Nobody is seen to read what layer 'l' gives.*module or function of torch.nn"
    ):
        pv.jacobian_singular_values(Hidden(torch.relu), torch.randn(2, 6))


def test_numbers_that_are_read_several_times_count_once():
    class Thrice(Then):
        def forward(self, x: Tensor) -> Tensor:
            h = self.inner(x)
            return self.head(h) + self.head(h.view(-1, 1, 5)).flatten(1) + self.head(h.clone()) + h[:, :3]

    torch.manual_seed(5)
    net, x = Thrice(torch.tanh).double(), torch.randn(4, 6, dtype=torch.float64)
    expected = torch.linalg.svdvals((1 - net.inner(x) ** 2)[:, :, None] * net.l.weight.detach())
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


def test_numbers_that_nobody_reads_keep_the_slope_that_they_have():
    net, x = Then(lambda h: h.tanh()[:, :2], head=2).double(), torch.randn(4, 6, dtype=torch.float64)
    expected = torch.linalg.svdvals((1 - net.l(x).detach().tanh() ** 2)[:, :, None] * net.l.weight.detach())
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


class Gated(Then):
    """Two layers multiplied, or two halves of one."""

    def __init__(self, halves: bool):
        super().__init__(torch.sigmoid, nn.Linear(6, 10) if halves else None)
        self.g, self.halves = nn.Linear(6, 5), halves

    def inner(self, x: Tensor) -> Tensor:
        value, gate = self.l(x).chunk(2, 1) if self.halves else (self.l(x), self.g(x))
        return value * self.after(gate)


@pytest.mark.parametrize("halves", [True, False])
def test_a_gate_is_followed_to_where_it_multiplies(halves: bool):
    torch.manual_seed(6)
    net, x = Gated(halves).double(), torch.randn(4, 6, dtype=torch.float64)
    found = pv.jacobian_singular_values(net, x)
    weight, gate = (net.l.weight, net.l(x)[:, 5:]) if halves else (net.g.weight, net.g(x))
    slope = (gate.sigmoid() * (1 - gate.sigmoid())).detach()
    if halves:
        slope = torch.cat([torch.ones(4, 5), slope], 1)
    expected = torch.linalg.svdvals(slope[:, :, None] * weight.detach())
    torch.testing.assert_close(found["l" if halves else "g"], expected, rtol=1e-7, atol=1e-8)


class InPlace(Then):
    """As residual networks add: to what a function has kept for its slope, in a part that is frozen."""

    def inner(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = torch.tanh(self.l(x))
            h += x[:, :5]
            return torch.relu(h)


class Cut(Then):
    def inner(self, x: Tensor) -> Tensor:
        return self.after(self.l(x).detach())


class Aside(Then):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.head(x[:, :5]), self.inner(x)


@pytest.mark.parametrize("kind", [InPlace, Cut, Aside])
def test_overwritten_detached_and_unchosen_outputs_have_their_slopes(kind: type[Then]):
    torch.manual_seed(7)
    net, x = kind(torch.tanh).double(), torch.randn(4, 6, dtype=torch.float64)
    slope = 1 - net.l(x).detach().tanh() ** 2
    expected = torch.linalg.svdvals(slope[:, :, None] * net.l.weight.detach())
    found = pv.jacobian_singular_values(net, x, outputs=0 if kind is Aside else None)["l"]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_the_sum_with_the_input_in_place_ends_a_normalised_layer():
    class Added(Then):
        def inner(self, x: Tensor) -> Tensor:
            h = self.after(self.l(x))
            h += x[:, :5]
            return torch.relu(h)

    net, x = Added(lambda h: h * 2).double(), torch.randn(4, 6, dtype=torch.float64)
    expected = 2 * torch.linalg.svdvals(net.l.weight.detach()).expand(4, 5)
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], expected, rtol=1e-7, atol=1e-8)


def masked(layer: nn.Linear) -> nn.Linear:
    return prune.random_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize("change", [parametrizations.weight_norm, parametrizations.spectral_norm, masked])
def test_the_weight_is_what_the_pass_multiplies_with(change: Callable[[nn.Linear], nn.Linear]):
    torch.manual_seed(8)
    net, x = Then(torch.tanh, change(nn.Linear(6, 5).double())), torch.randn(4, 6, dtype=torch.float64)
    net.head.double()
    net.eval()
    J = torch.stack([torch.autograd.functional.jacobian(lambda z: net.inner(z[None])[0], one) for one in x])
    torch.testing.assert_close(pv.jacobian_singular_values(net, x)["l"], torch.linalg.svdvals(J), rtol=1e-7, atol=1e-8)


def test_tied_layers_and_one_sample_keep_every_use():
    net = nn.Sequential(a := nn.Linear(6, 6), nn.Tanh(), b := nn.Linear(6, 6), nn.ReLU(), a, nn.Linear(6, 2))
    b.weight = a.weight
    found = pv.jacobian_singular_values(net, torch.randn(1, 6))
    assert {name: len(values) for name, values in found.items()} == {"0": 2, "2": 1, "5": 1}


class Same(nn.Conv2d):
    def forward(self, image: Tensor) -> Tensor:
        return F.conv2d(F.pad(image, (1, 1, 1, 1)), self.weight, self.bias)


class Activated(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


class Standardised(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(input, weight, self.bias, padding=1)


CONVOLVED: dict[str, tuple[nn.Module, Callable]] = {
    "that pads by itself": (Same(2, 4, 3), F.silu),
    "with its activation": (Activated(2, 4, 3, padding=1), lambda h: 2 * h),
    "standardised": (Standardised(2, 4, 3), torch.tanh),
    "with groups": (nn.Conv2d(2, 4, 3, padding="same", groups=2), F.silu),
    "reflected": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), lambda h: h.clamp(0, 6)),
    "dilated": (nn.Conv2d(2, 4, 2, dilation=2), F.hardswish),
    "of sub-pixels": (nn.Conv2d(2, 4, 3), lambda h: F.pixel_shuffle(h, 2).relu()),
    "shuffled": (nn.Conv2d(2, 4, 3), lambda h: h.unflatten(1, (2, 2)).transpose(1, 2).flatten(1).relu()),
    "channels last": (nn.Conv2d(2, 4, 3), lambda h: h.permute(0, 2, 3, 1).tanh()),
    "normalised": (nn.Conv2d(2, 4, 3), scaled(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))),
    "padded behind": (nn.Conv2d(2, 4, 3), lambda h: F.pad(h.tanh(), (1, 1, 1, 1))),
    "image by image": (nn.Conv2d(2, 4, 3), lambda h: h.sigmoid()),
}


class ByImage(Then):
    def inner(self, x: Tensor) -> Tensor:
        return torch.stack([self.after(self.l(one)) for one in x])


@pytest.mark.parametrize("name", CONVOLVED)
@pytest.mark.parametrize("largest", [4096, 8])
def test_operators_of_convolutions_as_others_write_them(name: str, largest: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(9)
    layer, after = CONVOLVED[name]
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    net = (ByImage if name == "image by image" else Then)(after, layer).double().eval()
    net.head = nn.Linear(net.inner(x).flatten(1).shape[1], 2).double()
    J = [torch.autograd.functional.jacobian(lambda z: net.inner(z[None])[0].flatten(), one).flatten(1) for one in x]
    expected = torch.linalg.svdvals(torch.stack(J))
    monkeypatch.setattr("pruneviz.curvature.jacobian.LARGEST", largest)
    found = pv.jacobian_singular_values(net, x, conv="operator")["l"]
    few = min(found.shape[1], expected.shape[1])
    torch.testing.assert_close(found[:, :few], expected[:, :few], rtol=1e-6, atol=1e-7)


def test_a_convolution_called_by_function_or_at_two_sizes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.head = nn.Conv2d(2, 3, 3), nn.Linear(3, 2)

        def small(self, x: Tensor) -> Tensor:
            return torch.tanh(F.conv2d(x[:, :, ::2, ::2], self.l.weight, padding=1))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.l(x).relu().mean((2, 3)) + self.small(x).mean((2, 3)))

    torch.manual_seed(10)
    net, x = Net().double(), torch.randn(2, 2, 6, 6, dtype=torch.float64)
    found = pv.jacobian_singular_values(net, x, conv="operator")["l"]
    parts = ((lambda z: net.l(z).relu()), net.small)
    for rows, part in zip((found[:2], found[2:]), parts, strict=True):
        J = [torch.autograd.functional.jacobian(lambda z, f=part: f(z[None]).flatten(), one).flatten(1) for one in x]
        expected = torch.linalg.svdvals(torch.stack(J))
        few = min(rows.shape[1], expected.shape[1])
        torch.testing.assert_close(rows[:, :few], expected[:, :few], rtol=1e-6, atol=1e-7)
        assert not rows[:, few:].any()


def test_half_precision_is_taken_in_single():
    net, x = Then(F.gelu), torch.randn(3, 6)
    net = net.to(torch.bfloat16)
    found = pv.jacobian_singular_values(net, x.to(torch.bfloat16))["l"]
    again = pv.jacobian_singular_values(net.float(), x.to(torch.bfloat16).float())["l"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, again)


def test_an_expert_that_no_sample_goes_to_is_left_out():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            low = x[:, 0] < 100
            out = torch.zeros_like(x)
            out[low], out[~low] = self.a(x[low]).tanh(), self.b(x[~low]).tanh()
            return self.head(out)

    found = pv.jacobian_singular_values(Experts(), torch.randn(3, 4))
    assert {name: tuple(values.shape) for name, values in found.items()} == {"a": (3, 4), "head": (3, 2)}


def test_end_to_end_values_need_inputs_with_a_slope():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(Unsuitable, match=r"whole numbers \(token ids\), which have no slope"):
        end_to_end_singular_values(net, torch.randint(5, (2, 3)))
    with pytest.raises(Unsuitable, match=r"cuts slopes on the way \(no_grad or detach\)"):
        end_to_end_singular_values(Cut(torch.tanh), torch.randn(2, 6))

    class Weighed(nn.Linear):
        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"logits": super().forward(a + 2 * b)}

    layer, x = Weighed(4, 3).double(), torch.randn(2, 4, dtype=torch.float64)
    expected = torch.linalg.svdvals(torch.cat([layer.weight, 2 * layer.weight], 1).detach()).expand(2, 3)
    torch.testing.assert_close(end_to_end_singular_values(layer, Inputs((x, x))), expected)
