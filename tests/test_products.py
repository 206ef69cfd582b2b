"""Sums of products over samples and positions, against the sums as they are written."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.basics.errors import UnsupportedLayer
from pruneviz.curvature import products
from pruneviz.curvature.products import (
    gram,
    inputs_gram,
    inputs_squares,
    rows_of,
    slopes_gram,
    slopes_of,
    squared_gradients,
)

N = 5
CONVOLUTIONS = {
    "3 x 3, same size": (nn.Conv2d(3, 5, 3, padding=1), (6, 7)),
    "3 x 3, smallest map": (nn.Conv2d(4, 70, 3, padding=1), (3, 3)),
    "3 x 3 on a map that is smaller": (nn.Conv2d(3, 5, 3, padding=1), (2, 2)),
    "many channels": (nn.Conv2d(130, 30, 3, padding=1), (4, 4)),
    "5 x 5, inside": (nn.Conv2d(3, 5, 5), (12, 12)),
    "stride": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (7, 8)),
    "uneven": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 0)), (9, 9)),
    "point": (nn.Conv2d(3, 4, 1, bias=False), (5, 5)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (5, 5)),
}
LINEAR = {"one position": (nn.Linear(7, 4), (7,)), "several": (nn.Linear(7, 4), (6, 7))}


Case = tuple[nn.Linear | nn.Conv2d, Tensor, Tensor]
CASES = CONVOLUTIONS | LINEAR


@pytest.fixture(params=CASES)
def case(request) -> Case:
    """A layer, its inputs, and three slopes at its outputs."""
    return made(request.param)


def made(name: str) -> Case:
    layer, shape = CASES[name]
    generator = torch.Generator().manual_seed(0)
    shape = (layer.in_channels, *shape) if isinstance(layer, nn.Conv2d) else shape
    x = torch.randn(N, *shape, generator=generator, dtype=torch.float64)
    z = layer.double()(x).detach()
    return layer, x, torch.randn(3, *z.shape, generator=generator, dtype=torch.float64)


def outer(rows: Tensor, groups: int) -> Tensor:
    parts = rows.unflatten(2, (groups, -1))
    found = torch.einsum("nlgi,nlgj->gij", parts, parts)
    return found if groups > 1 else found[0]


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


def test_a_layer_is_its_rows_times_its_weight(case):
    layer, x, _ = case
    rows, groups = rows_of(layer, x), products.groups_of(layer)
    weight = layer.weight.flatten(1).unflatten(0, (groups, -1))
    found = torch.einsum("nlgi,goi->nlgo", rows.unflatten(2, (groups, -1)), weight).flatten(2)
    found = found if layer.bias is None else found + layer.bias
    assert same(found.detach(), slopes_of(layer, layer(x).detach()))


def test_gram_matrices_are_the_sums_of_outer_products(case):
    layer, x, g = case
    groups = products.groups_of(layer)
    assert same(inputs_gram(layer, x), outer(rows_of(layer, x), groups))
    assert same(slopes_gram(layer, g[0]), outer(slopes_of(layer, g[0]), groups))


def test_gram_matrices_do_not_depend_on_how_many_patches_fit_at_a_time(case, monkeypatch):
    layer, x, _ = case
    expected = inputs_gram(layer, x)
    monkeypatch.setattr(products, "ENTRIES", 1)
    assert same(inputs_gram(layer, x), expected)


def bright(where: str, by: float) -> Tensor:
    """Images [20, 3, 12, 12] of numbers around 0.05, and in one channel (or all) a bright part."""
    x = 0.05 * torch.randn(20, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    part = {
        "nowhere": x[:0], "column": x[:, 0, :, 0], "last column": x[:, 2, :, -1], "row": x[:, 1, 0], "last row": x[:, 0, -1],
        "corner": x[:, 0, -1, 0], "every channel's column": x[..., 0], "everywhere": x, "frame": x[:, 1, :, [0, -1]],
    }[where]  # fmt: skip
    part += by
    if where == "frame":  # an index makes a copy
        x[:, 1, :, 0] += by
        x[:, 1, -1] += by
    return x


@pytest.mark.parametrize("by", [3.0, 255.0, 1e5])
@pytest.mark.parametrize(
    "where",
    ["nowhere", "column", "last column", "row", "last row", "corner", "every channel's column", "everywhere", "frame"],
)
def test_a_bright_border_leaves_what_is_beside_it_right(where: str, by: float):
    """Every entry relative to its row's and column's own size, in either precision, against patches summed in float64."""
    for dtype, limit in ((torch.float32, 2e-4), (torch.float64, 1e-9)):
        layer, x = nn.Conv2d(3, 4, 3, padding=1).to(dtype), bright(where, by).to(dtype)
        rows = rows_of(layer, x.double()).flatten(0, 1)
        expected = rows.T @ rows
        size = expected.diagonal().sqrt()
        found = inputs_gram(layer, x)
        assert float(((found - expected) / size / size[:, None]).abs().max()) < limit
        assert float(((found - found.T) / size / size[:, None]).abs().max()) < limit
        assert float((inputs_squares(layer, x) / size.square() - 1).abs().max()) < limit


def test_what_no_window_sees_is_exactly_zero():
    x = torch.zeros(4, 3, 5, 5)
    x[:, 0] = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(0))
    x[:, 1, 0] = 0.7  # a row that windows below it never reach
    found = inputs_gram(nn.Conv2d(3, 2, 3, padding=1), x)
    dark = torch.tensor([15, 16, 17, *range(18, 27)])
    assert not found[dark].any()
    assert not found[:, dark].any()
    assert (found.diagonal()[9:15] > 0).all()


def test_the_usual_channels_stay_as_they_are_beside_a_bright_border():
    x = bright("nowhere", 0.0)
    other = x.clone()
    other[:, 0, :, 0] += 1e5
    layer = nn.Conv2d(3, 4, 3, padding=1).double()
    assert torch.equal(inputs_gram(layer, x)[9:, 9:], inputs_gram(layer, other)[9:, 9:])


def test_squares_of_inputs_are_the_gram_matrix_diagonal(case):
    layer, x, _ = case
    assert same(inputs_squares(layer, x), inputs_gram(layer, x).diagonal(dim1=-2, dim2=-1))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("small", [0, 2**18])
@pytest.mark.parametrize("name", [name for name in CASES if name != "groups"])
def test_squared_gradients_are_those_of_single_samples(name: str, count: int, small: int, monkeypatch):
    """Every route: one product, pairs of positions, a grouped convolution, a buffer that holds one or several samples."""
    layer, x, g = made(name)
    rows = rows_of(layer, x)
    each = torch.einsum("knlo,nli->knoi", torch.stack([slopes_of(layer, one) for one in g[:count]]), rows)
    biases = torch.stack([slopes_of(layer, one).sum(1) for one in g[:count]]).square().sum((0, 1))
    monkeypatch.setattr(products, "SMALL", small)
    for buffer in (1, 2**20):
        monkeypatch.setattr(products, "BUFFER", buffer)
        weight, bias = squared_gradients(layer, x, list(g[:count]))
        assert same(weight.flatten(1), each.square().sum((0, 1)))
        assert same(bias, biases)


def test_a_gram_matrix_is_exactly_symmetric_and_counts_every_column_once():
    rows = torch.randn(40, 300, generator=torch.Generator().manual_seed(0))
    found = gram(rows)
    assert torch.equal(found, found.T)
    assert torch.allclose(found, rows.T @ rows, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("padding", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"}])
def test_padding_that_is_not_zeros_in_numbers_is_refused(padding):
    layer = nn.Conv2d(2, 2, 3, **padding)
    with pytest.raises(UnsupportedLayer, match="zero padding given in numbers"):
        inputs_gram(layer, torch.ones(1, 2, 4, 4))


@pytest.mark.parametrize("where", ["column", "row", "corner", "one channel"])
def test_a_bright_border_leaves_no_rounding_behind(where: str):
    torch.manual_seed(2)
    x = 0.05 * torch.randn(6, 3, 9, 8)
    at = {
        "column": (..., slice(None), 0),
        "row": (..., -1, slice(None)),
        "corner": (..., 0, -1),
        "one channel": (slice(None), 1, 0),
    }[where]
    x[at] += 255
    rows = F.unfold(x.double(), 3, padding=1).mT.flatten(0, 1)
    found = inputs_gram(nn.Conv2d(3, 4, 3, padding=1), x).double()
    size = rows.square().sum(0)
    assert bool(((found.diagonal() - size).abs() < 1e-4 * size).all())
    assert bool(((found - rows.T @ rows).abs() < 1e-4 * torch.outer(size, size).sqrt()).all())
