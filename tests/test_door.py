"""Any input at the door: the right number, or one sentence with the reason and the mend."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.data import DataLoader, TensorDataset

import pruneviz as pv
from pruneviz.basics.errors import PrunevizError, PruningWarning
from pruneviz.door.parameters import named
from pruneviz.units.inspection import Inspection

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
Y = torch.arange(6) % 3


class Of(nn.Module):
    """A network whose forward pass is this function of itself and its inputs."""

    def __init__(self, function: Callable, **parts: Any):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def plain(wide: int = 6, out: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(wide, 8), nn.Tanh(), nn.Linear(8, out)).double()


def built(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return build().double().eval()


def near(one: Tensor, two: Tensor, tolerance: float = 1e-9) -> bool:
    return bool((one - two).norm() <= tolerance * two.norm() + 1e-14)


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def alone(net: nn.Module, x: Any, i: int, outputs: Any = None) -> Tensor:
    """The outputs of one sample, by itself."""
    some = slice(i, i + 1)
    if isinstance(x, dict):
        found = net(**{k: v[some] for k, v in x.items()})
    else:
        found = net(*(t[some] for t in x)) if isinstance(x, tuple) else net(x[some])
    if callable(outputs):
        return outputs(found)
    return found if isinstance(found, Tensor) else getattr(found, "logits", None) if outputs is None else found[outputs]


def entropy(z: Tensor, y: Tensor) -> Tensor:
    """Mean over counted positions, written out: classes last."""
    rows, labels = z.reshape(-1, z.shape[-1]), y.reshape(-1)
    return (
        sum(row.logsumexp(0) - row[k] for row, k in zip(rows, labels, strict=True) if k != -100)
        / (labels != -100).sum()
    )


def truth(
    net: nn.Module,
    x: Any,
    y: Tensor,
    names: list[str],
    *,
    each: Callable = entropy,
    outputs: Any = None,
    last: bool = True,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> |w g| and w^2 diag(J^T A J) / 2, one sample and one output at a time."""
    params = [named(net)[n] for n in names]
    for p in net.parameters():
        p.requires_grad_(True)
    slope, curved = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    for i in range(len(y)):
        z = alone(net, x, i, outputs)
        z = z if last else z.movedim(1, -1)
        g = torch.autograd.grad(each(z, y[i : i + 1]), params, retain_graph=True, allow_unused=True)
        A = torch.autograd.functional.hessian(
            lambda flat, z=z, i=i: each(flat.view_as(z), y[i : i + 1]), z.detach().flatten()
        )
        rows = [torch.autograd.grad(v, params, retain_graph=True, allow_unused=True) for v in z.flatten()]
        for k, p in enumerate(params):
            J = torch.stack([torch.zeros_like(p) if row[k] is None else row[k] for row in rows])
            slope[k] += 0 if g[k] is None else g[k] / len(y)
            curved[k] += torch.einsum("c...,cd,d...->...", J, A, J) / len(y)
    return {
        n: ((p * s).abs().detach(), (p**2 * c / 2).detach())
        for n, p, s, c in zip(names, params, slope, curved, strict=True)
    }


def right(net: nn.Module, x: Any, y: Tensor, *, options: dict | None = None, **of: Any) -> set[str]:
    """SNIP and OBD against the truth; the names that are scored."""
    options = options or {}
    snip = pv.score(net, x, y, method="snip", bn_mode="eval", **options)
    obd = pv.score(net, x, y, method="obd", **options)
    expected = truth(net, x, y, list(snip), outputs=options.get("outputs"), **of)
    assert snip.keys() == obd.keys()
    for name, (first, second) in expected.items():
        assert near(snip[name], first), name
        assert near(obd[name], second), name
    return set(snip)


# what is refused: one sentence, from every call


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(5), nn.Linear(5, 3))


def on_meta() -> nn.Module:
    net = plain()
    net[2].to("meta")
    return net


def with_nan() -> nn.Module:
    net = plain()
    net[2].weight.data[1, 1] = torch.nan
    return net


def in_place() -> nn.Module:
    net = plain()
    with catch_warnings():
        simplefilter("ignore")
        net.compile()
    return net


def compiled_forward() -> nn.Module:
    class Compiled(nn.Linear):
        forward = compiled(nn.Linear.forward)

    return Compiled(6, 3).double()


def frozen_by_inference(self: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        h = self.a(x)
    return self.b(h)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5, dtype=torch.complex128), nn.Linear(5, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x + 0j).abs())


def scripted(make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with catch_warnings():
        simplefilter("ignore")  # torch's of its own past
        return make(plain())


def compiled(what: Any) -> Any:
    with catch_warnings():
        simplefilter("ignore")
        return torch.compile(what)


NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (lambda: scripted(torch.jit.script), "scripted.*made from"),
    "traced": (lambda: scripted(lambda net: torch.jit.trace(net, X)), "scripted.*made from"),
    "scripted inside": (lambda: nn.Sequential(scripted(torch.jit.script), nn.Linear(3, 3).double()), "Layer '0'.*scripted"),
    "compiled": (lambda: compiled(plain()), "compiled.*_orig_mod"),
    "compiled inside": (lambda: nn.Sequential(compiled(plain()), nn.Linear(3, 3).double()), "Layer '0' is compiled"),
    "compiled in place": (in_place, "compiled.*after pruning"),
    "compiled function": (compiled_forward, "compiled.*after pruning"),
    "lazy": (lazy, "'0.weight' has no shape yet.*once on a batch"),
    "meta": (on_meta, "'2.weight' is on the meta device.*Load"),
    "NaN weights": (with_nan, "'2.weight' holds NaN"),
    "several replicas": (lambda: nn.DataParallel(plain()), "DataParallel.*Pass its .module"),
    "complex": (Complex, "'a.weight' holds complex numbers.*two parameters"),
    "no parameters": (lambda: nn.Sequential(nn.ReLU()), "no parameters"),
    "no matrix": (lambda: nn.Sequential(nn.BatchNorm1d(6).double()), "no weight matrix"),
    "no module": (lambda: plain().state_dict(), "found OrderedDict"),
    "fixed batch": (lambda: Of(lambda s, x: s.m(x.reshape(6, -1)), m=plain()), r"runs on 6 samples and not on 2.*x.shape\[0\]"),
    "inference": (lambda: Of(frozen_by_inference, a=nn.Linear(6, 8).double(), b=nn.Linear(8, 3).double()), "no_grad"),
    "logarithms": (lambda: nn.Sequential(plain(), Of(lambda s, x: x.log())), "outputs hold NaN or infinity"),
    "positions first": (lambda: Of(lambda s, x: s.m(x.view(-1, 3, 2).transpose(0, 1)), m=plain(2)), "first axis.*outputs="),
}  # fmt: skip


def every(net: Any, x: Any, y: Any, **options: Any) -> list[Callable[[], Any]]:
    chosen = {k: v for k, v in options.items() if k in ("loss", "outputs")}
    return [
        lambda: pv.inspect(net, x, y, **chosen),
        lambda: pv.score(net, x, y, method="snip", **options),
        lambda: pv.prune(net, x, y, method="magnitude", sparsity=0.5, **options),
        lambda: pv.prune(net, x, y, method="kron-obs", sparsity=0.5, **options),
        lambda: pv.kfac(net, x, y, **chosen),
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_cannot_be_seen_is_refused_by_every_call(name: str):
    build, said = NETWORKS[name]
    net = build()
    for call in [*every(net, X, Y), lambda: pv.jacobian_singular_values(net, X)]:
        with pytest.raises(PrunevizError, match=said) as found:
            call()
        assert "\n" not in str(found.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_quantised_layer_is_named():
    net = torch.ao.quantization.quantize_dynamic(plain().float(), {nn.Linear}, torch.qint8)
    with pytest.raises(PrunevizError, match=r"'0'.*quantised.*Prune first"):
        pv.inspect(net, X.float(), Y)


def test_a_network_on_two_devices_is_refused():
    net = plain()

    class There(nn.Parameter):
        device = torch.device("xpu", 0)
        is_meta = False

    net[2].weight = There(net[2].weight.data)
    with pytest.raises(PrunevizError, match=r"several devices.*model\.to"):
        pv.inspect(net, X, Y)


SAMPLES: dict[str, tuple[Any, str]] = {
    "none": (X[:0], "no samples"),
    "nothing": (None, "holds NoneType"),
    "empty tuple": ((), "no samples"),
    "empty mapping": ({}, "no samples"),
    "NaN": (X.masked_fill(X > 1, torch.nan), "samples hold NaN"),
    "infinity": (X.numpy() * np.inf, "samples hold NaN or infinity"),
    "another width": (X[:, :5], r"stops at layer '0' \(Linear\)"),
    "one sample": (X[0], r"x\[None\]"),
    "text": (["a"] * 6, "can't be read"),
    "complex": (X + 1j, "real numbers"),
    "a setting": ({"input": X, "flag": True}, "single number.*into the network"),
    "a name": ({"input": X, "name": "a"}, "holds str"),
    "a tree": ({"input": {"a": X}}, "holds dict"),
    "unknown keyword": ({"image": X}, "unexpected keyword argument 'image'"),
    "unequal": ((X, X[:3]), "different numbers of samples: 6, 3"),
    "batches and targets": (DataLoader(TensorDataset(X, Y)), "leave out y"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_that_cannot_be_read_are_refused(name: str):
    x, said = SAMPLES[name]
    for call in every(plain(), x, Y):
        with pytest.raises(PrunevizError, match=said):
            call()


def test_channels_tokens_and_batches_that_do_not_fit_are_refused_with_the_layer():
    images = built(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3)))
    with pytest.raises(PrunevizError, match=r"layer '0' \(Conv2d\).*3 channels"):
        pv.inspect(images, torch.randn(2, 1, 6, 6), Y[:2])
    words = built(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3)))
    for ids in (torch.tensor([[3, 9], [1, 1]]), torch.rand(2, 2)):
        with pytest.raises(PrunevizError, match=r"layer '0' \(Embedding\).*token ids"):
            pv.inspect(words, ids, Y[:2])
    with pytest.raises(PrunevizError, match=r"list of 3.*\(\(a, b\), y\)"):
        pv.inspect(plain(), DataLoader(TensorDataset(X, X, Y)))


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (Y + 1, "subtract 1"),
        (Y - 1, "label -1 is no class"),
        (Y * 2, "label 4"),
        (Y[:-1], "6 samples and 5 targets"),
        (Y.double(), r"y\.long\(\)"),
        (["a"] * 6, "can't be read as numbers"),
        ({0, 1}, "holds set"),
        ({"y": Y}, "holds dict"),
        (Y * torch.nan, "targets hold NaN"),
        (1, "single number"),
        (torch.full((6,), -100), "Every label is -100"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y: Any, said: str):
    for call in every(plain(), X, y):
        with pytest.raises(PrunevizError, match=said):
            call()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"initial": {f"module.{n}": p for n, p in plain().state_dict().items()}}, r"DataParallel. Take 'module\.'"),
        ({"initial": {"0.weight": torch.ones(9, 6)}}, r"shape \[9, 6\], and the network in \[8, 6\]"),
        ({"initial": plain()}, "found Sequential.*state_dict"),
        ({"mask": 3}, "mask is a mapping.*found int"),
        ({"mask": {"0.weight": torch.ones(8, 5)}}, r"\[8, 5\], and the network's is \[8, 6\]"),
        ({"mask": {"7.weight": torch.ones(8, 5)}}, "no parameter called '7.weight'"),
        ({"skip": "fc"}, "no layer with weights is called so"),
        ({"skip": "*"}, "No weight is left to score. '0.weight': left alone"),
        ({"loss": "hinge"}, "No loss called 'hinge'"),
        ({"loss": nn.CrossEntropyLoss}, r"instance: CrossEntropyLoss\(\)"),
        ({"loss": lambda z, y: F.cross_entropy(z, y, reduction="none")}, r"Add \.mean\(\)"),
        ({"outputs": "logits"}, "have no 'logits'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(options: dict, said: str):
    with pytest.raises(PrunevizError, match=said):
        pv.score(plain(), X, Y, method="snip", **options)


def test_samples_that_turn_to_nan_later_are_found():
    net = Of(lambda s, x: s.m(x).sqrt(), m=nn.Linear(6, 3).double())
    net.m.weight.data.fill_(0.01)
    net.m.bias.data.fill_(1)
    x = X.clone()
    x[4] = -1000
    for method in ("snip", "obd", "obs", "grasp"):
        with pytest.raises(PrunevizError, match=r"NaN or infinity, first for sample 4"):
            pv.score(net, x, Y, method=method)
    with pytest.raises(PrunevizError, match="sample 4"):
        pv.kfac(net, x, Y)


def test_one_sample_too_few_for_batch_normalisation_is_told():
    net = built(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    for method in ("snip", "grasp"):
        with pytest.raises(PrunevizError, match=r"several samples.*bn_mode='eval'"):
            pv.score(net, X[:1], Y[:1], method=method, bn_mode="train")
        assert pv.score(net, X[:1], Y[:1], method=method, bn_mode="eval")


# forms: the same numbers however they are given


@pytest.mark.parametrize(
    "give",
    [
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: (x.tolist(), y.tolist()),
        lambda x, y: (list(x), list(y)),
        lambda x, y: (x.to_sparse(), y.int()),
        lambda x, y: (x, y[:, None]),
        lambda x, y: (x, y.byte()),
        lambda x, y: (x, np.array(y.tolist(), dtype=object)),
        lambda x, y: (x, F.one_hot(y, 3)),
        lambda x, y: (x, F.one_hot(y, 3).bool()),
        lambda x, y: (x, F.one_hot(y, 3).float()),
        lambda x, y: ({"input": x}, y),
        lambda x, y: ((x,), y),
        lambda x, y: ((x, y), None),
        lambda x, y: ([x, y], None),
        lambda x, y: ([(x[:4], y[:4]), (x[4:], y[4:])], None),
        lambda x, y: (DataLoader(TensorDataset(x, y), batch_size=6), None),
        lambda x, y: (TensorDataset(x, y), None),
        lambda x, y: (iter([(x, y)]), None),
        lambda x, y: ([{"input": x, "labels": y}], None),
        lambda x, y: ({"input": x, "labels": y}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["snip", "obd"])
def test_every_form_of_input_is_the_same_input(give: Callable, method: str):
    expected = pv.score(plain(), X, Y, method=method)
    found = pv.score(plain(), *give(X, Y), method=method)
    assert all(near(found[n], expected[n], 1e-12) for n in expected)


def test_bytes_are_pictures_or_token_ids():
    bytes_ = torch.randint(0, 9, (6, 6), dtype=torch.uint8)
    assert same(pv.score(plain(), bytes_, Y, method="snip"), pv.score(plain(), bytes_.double(), Y, method="snip"))
    words = built(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3)))
    with pytest.warns(PruningWarning, match="lookup table"):
        found = pv.score(words, bytes_, Y, method="snip")
    with pytest.warns(PruningWarning, match="lookup table"):
        assert same(found, pv.score(words, bytes_.long(), Y, method="snip"))


def test_two_inputs_need_no_targets_to_be_told_from_samples_and_labels():
    net = built(lambda: Of(lambda s, a, b: s.o(torch.tanh(s.b(a, b))), b=nn.Bilinear(5, 4, 6), o=nn.Linear(6, 3)))
    pair = torch.randn(5, 5).double(), torch.randn(5, 4).double()
    assert list(pv.jacobian_singular_values(net, pair)) == ["o"]
    assert set(pv.score(net, pair, method="magnitude")) == {"b.weight", "o.weight"}
    assert right(net, pair, Y[:5]) == {"b.weight", "o.weight"}
    assert pv.inspect(net, pair).flops is None


def test_probabilities_as_targets():
    p = torch.rand(6, 3).double().softmax(1)
    right(plain(), X, p, each=lambda z, q: -(q * z.log_softmax(1)).sum())


@pytest.mark.parametrize("y", [Y % 2, (Y % 2).bool(), (Y % 2).tolist()])
def test_one_probability_and_one_logit_are_the_same_network(y: Any):
    logit = plain(out=1)
    whole = nn.Sequential(logit, nn.Sigmoid())
    one = pv.score(whole, X, y, method="snip")
    two = pv.score(logit, X, torch.as_tensor(y)[:, None], method="snip", loss="binary")
    assert all(near(one[f"0.{n}"], two[n]) for n in two)
    with pytest.raises(PrunevizError, match="loss='binary'"):
        pv.score(logit, X, y, method="snip")


def test_outputs_in_every_wrapping():
    want = pv.score(plain(), X, Y, method="obd")
    forms: list[tuple[Callable, Any]] = [
        (lambda z: {"logits": z, "features": z * 2}, None), (lambda z: SimpleNamespace(logits=z, h=z * 2), None),
        (lambda z: (z * 2, z), 1), (lambda z: {"a": z * 2, "b": z}, "b"), (lambda z: (z,), None),
        (lambda z: [[z]], lambda out: out[0][0]),
    ]  # fmt: skip
    for wrap, outputs in forms:
        net = Of(lambda s, x, wrap=wrap: wrap(s.m(x)), m=plain())
        found = pv.score(net, X, Y, method="obd", outputs=outputs)
        assert all(near(found[f"m.{n}"], want[n], 1e-12) for n in want)
    with pytest.raises(PrunevizError, match=r"not clear which.*outputs=0"):
        pv.inspect(Of(lambda s, x: (s.m(x), x), m=plain()), X, Y)


# losses and outputs with positions


def squares(z: Tensor, y: Tensor) -> Tensor:
    return sum((a - b) ** 2 for a, b in zip(z.flatten(), y.flatten(), strict=True))


def yes_no(z: Tensor, y: Tensor) -> Tensor:
    return -(y * torch.sigmoid(z).log() + (1 - y) * torch.sigmoid(-z).log()).sum()


def test_numbers_to_predict_and_several_questions():
    numbers = torch.randn(6, 3).double()
    right(plain(), X, numbers, options={"loss": "squared"}, each=squares)
    right(plain(out=1), X, numbers[:, 0], options={"loss": "squared"}, each=squares)
    right(Of(lambda s, x: s.m(x)[:, 0], m=plain(out=1)), X, numbers[:, 0], options={"loss": "squared"}, each=squares)
    right(plain(), X, (numbers > 0).double(), options={"loss": "binary"}, each=yes_no)


def test_anybodys_loss_serves_gradients():
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    net = plain()
    found = pv.score(net, X, Y, method="snip", loss=loss)
    g = torch.autograd.grad(loss(net(X), Y), [net[0].weight, net[2].weight])
    assert near(found["2.weight"], (net[2].weight * g[1]).abs().detach())
    with pytest.raises(PrunevizError, match="gradient scores only"):
        pv.score(net, X, Y, method="obd", loss=loss)


def u_net(out: int) -> nn.Module:
    def run(self: Any, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.o(torch.cat([self.up(torch.tanh(self.b(h))), h], 1))

    return built(
        lambda: Of(
            run, a=nn.Conv2d(2, 3, 3, padding=1), b=nn.Conv2d(3, 3, 3, 2, 1), up=nn.ConvTranspose2d(3, 2, 2, 2), o=nn.Conv2d(5, out, 1)
        )
    )  # fmt: skip


def test_pictures_to_pictures():
    x = torch.randn(3, 2, 4, 4).double()
    y = torch.randint(0, 3, (3, 4, 4))
    y[:, 0] = -100
    names = {"a.weight", "b.weight", "up.weight", "o.weight"}
    assert right(u_net(3), x, y, last=False) == names
    right(u_net(2), x, torch.randn(3, 2, 4, 4).double(), options={"loss": "squared"}, each=squares, last=True)
    right(u_net(1), x, torch.randint(0, 2, (3, 1, 4, 4)).double(), options={"loss": "binary"}, each=yes_no)
    with pytest.raises(PrunevizError, match=r"single class.*binary"):
        pv.score(u_net(1), x, (y > 0).long(), method="snip")


def language(*, tied: bool) -> nn.Module:
    def build() -> nn.Module:
        block = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True, activation="gelu")
        net = Of(lambda s, ids: s.head(s.t(s.e(ids))), e=nn.Embedding(9, 6), t=block, head=nn.Linear(6, 9, bias=False))
        if tied:
            net.head.weight = net.e.weight
        return net

    return built(build)


@pytest.mark.parametrize("tied", [False, True])
def test_the_next_token(tied: bool):
    ids = torch.randint(0, 9, (3, 4), generator=torch.Generator().manual_seed(0))
    y = ids.roll(-1, 1).clone()
    y[:, -1] = -100
    net = language(tied=tied)
    names = {
        "t.self_attn.in_proj_weight",
        "t.self_attn.out_proj.weight",
        "t.linear1.weight",
        "t.linear2.weight",
        "head.weight",
    }
    if tied:
        assert right(net, ids, y) == names
        assert pv.inspect(net, ids, y).shared == {"head.weight": ("e.weight",)}
        return
    assert right(net, ids, y, options={"embeddings": True}) == {*names, "e.weight"}
    seen = pv.inspect(net, ids, y)
    assert list(seen.left_out) == ["e.weight"]
    assert "embeddings=True" in str(seen)


def test_positions_first_are_turned_by_outputs():
    net = Of(lambda s, x: s.m(x.transpose(0, 1)), m=plain())
    x, y = torch.randn(3, 5, 6).double(), torch.randint(0, 3, (3, 5))
    right(net, x, y, options={"outputs": lambda out: out.transpose(0, 1)})


def test_a_softmax_before_cross_entropy_is_noticed():
    net = nn.Sequential(plain(), nn.Softmax(1))
    with pytest.warns(PruningWarning, match="leave out the softmax"):
        pv.score(net, X, Y, method="snip")
    assert "softmax" in str(pv.inspect(net, X, Y))


# networks of every kind


def recurrent(kind: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: Of(
        lambda s, x: s.o(s.r(x)[0][:, -1]),
        r=getattr(nn, kind)(6, 4, batch_first=True, **options),
        o=nn.Linear(options.get("proj_size", 4) * (1 + options.get("bidirectional", False)), 3),
    )


def cell(self: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 4)
    for step in x.unbind(1):
        h = self.r(step, h)
    return self.o(h)


def experts(self: Any, x: Tensor) -> Tensor:
    x = x[:, 0]
    gate = self.g(x)
    chosen, found = gate.argmax(1), x.new_zeros(len(x), 5)
    for k, expert in enumerate(self.e):
        mine = (chosen == k).nonzero()[:, 0]
        if len(mine):
            found = found.index_add(0, mine, expert(x[mine]) * gate.softmax(1)[mine, k : k + 1])
    return self.o(torch.tanh(found))


def stopped(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        h = torch.tanh(self.a(x[:, 0]))
    return self.b(h)


def images(*layers: nn.Module, out: int) -> nn.Module:
    """[n, 5, 6] as lines of 5 channels."""
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.Linear(out, 3))


def attention(self: Any, x: Tensor) -> Tensor:
    return self.o(self.m(x, x[:, :2, :5], x[:, :2, :5])[0].mean(1))


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.A, self.B = (nn.Parameter(torch.randn(*s) / 2) for s in ((5, 6), (5, 2), (2, 6)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.W + self.A @ self.B)


def by_hand(product: Callable) -> nn.Module:
    return Of(lambda s, x: s.o(torch.tanh(product(s, x))), w=nn.Parameter(torch.randn(4, 6)), o=nn.Linear(4, 3))


KINDS: dict[str, tuple[Callable[[], nn.Module], int, dict]] = {  # network of [n, 5, 6], how many weights are scored
    "LSTM both ways": (recurrent("LSTM", num_layers=2, bidirectional=True), 9, {}),
    "LSTM projected": (recurrent("LSTM", proj_size=2), 4, {}),
    "GRU": (recurrent("GRU", num_layers=2), 5, {}),
    "RNN": (recurrent("RNN", nonlinearity="tanh", bidirectional=True), 5, {}),
    "GRU cell": (lambda: Of(cell, r=nn.GRUCell(6, 4), o=nn.Linear(4, 3)), 3, {}),
    "cross attention": (
        lambda: Of(attention, m=nn.MultiheadAttention(6, 2, kdim=5, vdim=5, batch_first=True, add_bias_kv=True), o=nn.Linear(6, 3)), 5, {},
    ),
    "transposed": (lambda: images(nn.ConvTranspose1d(5, 4, 3, stride=2), out=52), 2, {}),
    "groups": (lambda: images(nn.Conv1d(5, 10, 3, groups=5, padding="same", padding_mode="replicate", dilation=2), out=60), 2, {}),
    "volumes": (
        lambda: Of(lambda s, x: s.o(torch.tanh(s.c(x.view(-1, 1, 5, 2, 3))).flatten(1)), c=nn.Conv3d(1, 2, 2), o=nn.Linear(16, 3)), 2, {},
    ),
    "weight normalised": (lambda: images(weight_norm(nn.Conv1d(5, 4, 3)), out=16), 2, {}),
    "spectrally normalised": (lambda: images(spectral_norm(nn.Conv1d(5, 4, 3)), out=16), 2, {}),
    "experts": (lambda: Of(experts, g=nn.Linear(6, 3), e=nn.ModuleList(nn.Linear(6, 5) for _ in range(3)), o=nn.Linear(5, 3)), 5, {}),
    "adapted": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(30, 6), Adapted(), nn.Tanh(), nn.Linear(5, 3)), 2, {"skip": "2"}),
    "no slope": (lambda: Of(stopped, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), 1, {}),
    "by keyword": (lambda: Of(lambda s, x: s.b(input=torch.tanh(s.a(input=x)).mean(1)), a=nn.Linear(6, 8), b=nn.Linear(8, 3)), 2, {}),
    "twice": (lambda: Of(lambda s, x: s.b(torch.tanh(s.a(torch.tanh(s.a(x)))).mean(1)), a=nn.Linear(6, 6), b=nn.Linear(6, 3)), 2, {}),
    "einsum": (lambda: by_hand(lambda s, x: torch.einsum("nli,oi->no", x, s.w)), 2, {}),
    "scaled": (lambda: by_hand(lambda s, x: F.linear(x.mean(1), s.w * s.w.new_tensor([[1.0], [2.0], [3.0], [0.5]]))), 2, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore::pruneviz.basics.errors.PruningWarning")
def test_kinds_of_networks_are_scored_as_single_samples_say(name: str):
    build, count, options = KINDS[name]
    net = built(build)
    x = torch.randn(6, 5, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    before = {n: v.clone() for n, v in net.state_dict().items()}
    assert len(right(net, x, Y, options=options)) == count
    seen = pv.inspect(net, x, Y)
    assert isinstance(seen, Inspection)
    assert all(w in str(seen) for w in seen.layers["name"])
    assert not seen.unused
    for method in ("obs", "grasp", "isometry"):
        assert all(bool(torch.isfinite(s).all()) for s in pv.score(net, x, Y, method=method, **options).values())
    found = pv.prune(net, x, Y, method="snip", sparsity=0.5, **options)
    assert found.report["reached"] == pytest.approx(0.5, abs=0.02)
    pv.compact(found)
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


def test_what_does_not_stay_zero_is_refused_by_name_until_it_is_skipped():
    for build, name in ((Adapted, "0.W"), (lambda: orthogonal(nn.Linear(6, 5)), "0.parametrizations.weight.original")):
        net = built(lambda build=build: nn.Sequential(build(), nn.Tanh(), nn.Linear(5, 3)))
        with pytest.raises(PrunevizError, match=re.escape(f"'{name}' can't be pruned") + r".*skip=\('0',\)"):
            pv.score(net, X, Y, method="magnitude")
        assert set(pv.score(net, X, Y, method="magnitude", skip="0")) == {"2.weight"}
        assert name in "".join(pv.inspect(net, X, Y).problems)


@pytest.mark.parametrize("how", ["batch statistics", "centred"])
def test_where_samples_meet_curvature_is_of_the_batch(how: str):
    """Sample by sample a mean over samples says nothing: the Jacobian is that of each sample's outputs in its company."""
    if how == "centred":
        net = built(lambda: Of(lambda s, x: s.b(torch.tanh(s.a(x - x.mean(0)))), a=nn.Linear(6, 5), b=nn.Linear(5, 3)))
    else:
        norm = nn.BatchNorm1d(5, track_running_stats=False)
        net = built(lambda: Of(lambda s, x: s.b(s.n(s.a(x))), a=nn.Linear(6, 5), n=norm, b=nn.Linear(5, 3)))
    found = pv.score(net, X, Y, method="obd")
    p = net(X).softmax(1).detach()
    for name in ("a.weight", "b.weight"):
        w = named(net)[name]
        total = torch.zeros_like(w)
        for i in range(6):
            J = torch.stack([torch.autograd.grad(net(X)[i, c], w)[0] for c in range(3)])
            A = torch.diag(p[i]) - torch.outer(p[i], p[i])
            total += torch.einsum("c...,cd,d...->...", J, A, J) / 6
        assert near(found[name], (w**2 * total / 2).detach())
    assert "Samples meet" in str(pv.inspect(net, X, Y))
    pruned = pv.prune(net, X, Y, method="obd", sparsity=0.5)
    assert pruned.report["flops"] == 2 * int(sum(pruned.mask[n].sum() for n in pruned.mask))
    assert pv.compact(pruned).before.flops == 2 * 45
    with pytest.raises(PrunevizError, match="which rows of its input belong to which sample"):
        pv.score(net, X, Y, method="kron-obd")


def test_a_table_that_renormalises_in_use_is_left_as_it_was():
    net = built(lambda: Of(lambda s, x: s.o(s.e(x).mean(1)), e=nn.Embedding(9, 6, max_norm=0.5), o=nn.Linear(6, 3)))
    before = net.e.weight.detach().clone()
    ids = torch.randint(0, 9, (6, 4))
    with pytest.warns(PruningWarning, match="lookup table"):
        pv.score(net, ids, Y, method="obd")
    assert pv.inspect(net, ids, Y).layers["kind"].tolist() == ["embedding", "linear"]
    assert torch.equal(net.e.weight, before)


def test_a_table_with_sparse_slopes():
    net = built(
        lambda: Of(lambda s, x: s.o(torch.tanh(s.e(x).sum(1))), e=nn.Embedding(9, 6, sparse=True), o=nn.Linear(6, 3))
    )
    ids = torch.randint(0, 9, (6, 4))
    found = pv.score(net, ids, Y, method="obd", embeddings=True)
    other = Of(net.function, e=nn.Embedding(9, 6), o=net.o).double()
    other.e.weight.data = net.e.weight.data
    assert all(near(found[n], v) for n, v in pv.score(other, ids, Y, method="obd", embeddings=True).items())


def test_power_iterations_do_not_go_on_while_scoring():
    net = nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3)).double().train()
    before = {n: b.clone() for n, b in net.named_buffers()}
    pv.score(net, X, Y, method="snip")
    pv.prune(net, X, Y, method="obd", sparsity=0.5)
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())
    assert all(module.training for module in net.modules())


def test_lengths_beside_samples():
    def run(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.o(self.r(packed)[1][0][-1])

    net = built(lambda: Of(run, r=nn.LSTM(6, 4, batch_first=True), o=nn.Linear(4, 3)))
    x = {"x": torch.randn(4, 5, 6).double(), "lengths": torch.tensor([5, 3, 2, 4])}
    right(net, x, Y[:4])
    pv.compact(pv.prune(net, x, Y[:4], method="magnitude", sparsity=0.3))
    assert pv.inspect(net, {k: v[:1] for k, v in x.items()}, Y[:1]).covered == 1


def test_frozen_layers_are_scored_and_said():
    net = plain()
    expected = pv.score(net, X, Y, method="obd")
    net[0].requires_grad_(False)
    assert same(pv.score(net, X, Y, method="obd"), expected)
    assert "'0.weight' (requires_grad=False)" in str(pv.inspect(net, X, Y))
    assert not net[0].weight.requires_grad


def test_dropout_follows_the_seed():
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)).double()
    first = pv.score(net, X, Y, method="snip", seed=3)
    torch.rand(7)
    assert same(first, pv.score(net, X, Y, method="snip", seed=3))
    assert not same(first, pv.score(net, X, Y, method="snip", seed=4))


def test_images_in_another_memory_format_are_the_same():
    net = built(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)))
    x = torch.randn(6, 3, 6, 6).double()
    expected = pv.score(net, x, Y, method="obd")
    turned = net.to(memory_format=torch.channels_last)
    found = pv.score(turned, x.to(memory_format=torch.channels_last), Y, method="obd")
    assert all(near(found[n], expected[n], 1e-12) for n in expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["snip", "obd", "obs", "grasp"])
def test_half_precision_is_scored_as_its_copy_in_single(dtype: torch.dtype, method: str):
    half = plain().to(dtype)
    single = plain().to(dtype).float()
    x = X.to(dtype)
    assert same(pv.score(half, x, Y, method=method), pv.score(single, x.float(), Y, method=method))
    one, two = (pv.prune(m, v, Y, method=method, sparsity=0.5) for m, v in ((half, x), (single, x.float())))
    assert all(torch.equal(one.mask[n], two.mask[n]) for n in two.mask)
    assert {p.dtype for p in one.model.parameters()} == {dtype}
    assert {p.dtype for p in half.parameters()} == {dtype}


def test_a_mask_in_any_form_and_statistics_estimated_again():
    net = built(lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    keep = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) > 0.3
    found = [
        pv.prune(net, X, Y, method="magnitude", sparsity=0.6, mask={"0.weight": m}, recalibrate=True)
        for m in (keep, keep.double(), keep.numpy())
    ]
    h = F.linear(X, found[0].model[0].weight, found[0].model[0].bias)
    assert near(found[0].model[1].running_mean, h.mean(0).detach())
    assert all(torch.equal(f.mask["0.weight"], found[0].mask["0.weight"]) for f in found)
    assert not bool((found[0].mask["0.weight"] & ~keep).any())


def test_an_operation_without_a_second_derivative_is_told():
    net = built(
        lambda: Of(lambda s, x: s.o((-torch.cdist(x, s.c)).exp()), c=nn.Parameter(torch.randn(5, 6)), o=nn.Linear(5, 3))
    )
    assert right(net, X, Y) == {"c", "o.weight"}
    for method, options in (("obd", {"hessian": "exact"}), ("grasp", {})):
        with pytest.raises(PrunevizError, match=r"one only.*_cdist_backward"):
            pv.score(net, X, Y, method=method, **options)
