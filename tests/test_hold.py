"""Zeros that stay zero in anybody's training loop."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from problems import samples
from strange import Words
from torch import nn

import pruneviz as pv
from pruneviz.units.masks import Mask


def _trained(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, steps: int = 4
) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)


def _half(model: nn.Module) -> Mask:
    draw = torch.Generator().manual_seed(3)
    return Mask({n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in model.named_parameters() if p.dim() > 1})


def _zero(model: nn.Module, mask: Mask) -> bool:
    params = dict(model.named_parameters(remove_duplicate=False))
    return all(not params[name].detach()[~keep].any() for name, keep in mask.everything.items())


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=5, line_search_fn="strong_wolfe"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_held_zeros_stay_through_every_optimiser_that_has_momentum_from_before(mlp: nn.Module, name: str):
    x, y = samples(mlp)
    mask, optimizer = _half(mlp), OPTIMIZERS[name](mlp.parameters())
    _trained(mlp, optimizer, x, y)
    with pv.hold(mlp, mask):
        assert _zero(mlp, mask)
        before = {n: mlp.get_parameter(n).detach().clone() for n in mask}
        for _ in range(5):
            _trained(mlp, optimizer, x, y, steps=1)
            assert _zero(mlp, mask)
        assert all(not torch.equal(mlp.get_parameter(n)[k], before[n][k]) for n, k in mask.items())
    assert _zero(mlp, mask)
    _trained(mlp, optimizer, x, y, steps=1)
    assert not _zero(mlp, mask)  # let go


def test_held_training_is_the_training_of_the_weights_that_are_left(mlp: nn.Module):
    """By gradient descent with momentum on the survivors alone, as one vector."""
    x, y = samples(mlp)
    mask, other = _half(mlp), copy.deepcopy(mlp)
    with pv.hold(mlp, mask):
        _trained(mlp, torch.optim.SGD(mlp.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01), x, y, steps=6)
    mask.apply_(other)
    keep = torch.cat([mask.get(n, torch.ones_like(p).bool()).flatten() for n, p in other.named_parameters()])
    speed = torch.zeros(int(keep.sum()), dtype=torch.float64)
    for _ in range(6):
        params = list(other.parameters())
        slopes = torch.autograd.grad(nn.functional.cross_entropy(other(x), y), params)
        w = torch.cat([p.detach().flatten() for p in params])
        speed = 0.9 * speed + torch.cat([s.flatten() for s in slopes])[keep] + 0.01 * w[keep]
        w[keep] -= 0.1 * speed
        nn.utils.vector_to_parameters(w, params)
    for a, b in zip(mlp.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_held_weights_may_be_tied_or_parametrized():
    tied = Words(tied=True).double()
    mask = Mask({"head.weight": torch.arange(72).view(12, 6) % 3 > 0})
    x, y = torch.arange(15).view(5, 3) % 7, torch.arange(5)
    with pv.hold(tied, mask):
        _trained(tied, OPTIMIZERS["adam"](tied.parameters()), x, y)
        assert _zero(tied, mask)
        assert not _zero(tied, Mask({"embed.weight": ~mask["head.weight"]}))
    model = nn.Sequential(nn.Linear(6, 5), nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))).double()
    mask = Mask({"1.parametrizations.weight.original1": torch.arange(15).view(3, 5) % 2 == 0})
    with pv.hold(model, mask):
        _trained(model, OPTIMIZERS["sgd"](model.parameters()), *samples(model))
        assert _zero(model, mask)
        assert not model[1].weight.detach()[~mask["1.parametrizations.weight.original1"]].any()


def test_copies_loaded_and_saved_states_and_unpickled_models_are_held_too(mlp: nn.Module):
    x, y = samples(mlp)
    dense, mask = copy.deepcopy(mlp.state_dict()), _half(mlp)
    held = pv.hold(mlp, mask)
    twin, stored = copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))
    for model in (twin, stored):
        _trained(model, OPTIMIZERS["adam"](model.parameters()), x, y)
        assert _zero(model, mask)
    mlp.load_state_dict(dense)
    assert _zero(mlp, mask)
    mlp.load_state_dict(dense, assign=True)
    _trained(mlp, OPTIMIZERS["sgd"](mlp.parameters()), x, y)
    assert _zero(mlp, mask)
    with torch.no_grad():
        for p in mlp.parameters():
            p += 1.0  # nobody's optimiser
    assert all(not mlp.state_dict()[n][~k].any() for n, k in mask.items())
    held.remove()
    _trained(twin, OPTIMIZERS["adam"](twin.parameters()), x, y, steps=1)
    assert not _zero(twin, mask)


def test_a_held_model_may_be_read_twice_before_its_gradients_and_copied_into_another_shape(mlp: nn.Module):
    x, y = samples(mlp)
    mask, dense = _half(mlp), copy.deepcopy(mlp)
    with pv.hold(mlp, mask):
        (nn.functional.cross_entropy(mlp(x), y) + mlp(x).square().mean()).backward()
        assert all(not mlp.get_parameter(n).grad[~k].any() for n, k in mask.items())
        small = copy.deepcopy(mlp)
        small[0], small[2] = nn.Linear(6, 4).double(), nn.Identity()
        assert torch.equal(small(x), torch.relu(small[0](x)))
        params = {n: p.detach() for n, p in mlp.named_parameters()}
        torch.func.grad(lambda p: torch.func.functional_call(mlp, p, (x,)).sum())(params)
    with pv.hold(dense, {"0.bias": torch.arange(5) > 2}):
        assert pv.prune(dense, x, y, method="eigendamage", sparsity=0.2).model(x).shape == (len(x), 3)


# told where nothing holds them


def _data(model: nn.Module) -> pv.Splits:
    both = samples(model, n=40)
    return pv.Splits(both, both, both, ("a", "b", "c"), tuple(both[0].shape[1:]))


def test_training_a_network_with_zeros_says_that_they_come_back_unless_something_keeps_them(mlp: nn.Module):
    mask, data = _half(mlp), _data(mlp)
    dense, pruned = copy.deepcopy(mlp), copy.deepcopy(mlp)
    mask.apply_(pruned)
    blank = copy.deepcopy(mlp)
    nn.init.zeros_(blank[2].weight)  # has yet to learn
    frozen = copy.deepcopy(pruned).requires_grad_(False)
    frozen[2].bias.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, given in ((dense, None), (blank, None), (copy.deepcopy(pruned), mask), (frozen, None)):
            pv.train(model, data, epochs=1, mask=given)
        pv.train(pruned, data, epochs=0)
        held = copy.deepcopy(pruned)
        with pv.hold(held, mask):
            pv.train(held, data, epochs=2, momentum=0.9, weight_decay=0.1)
        assert _zero(held, mask)
    with pytest.warns(
        UserWarning, match=r"'0.weight' and 1 more are exactly zero.* pass mask=, or train inside pv.hold"
    ):
        pv.train(pruned, data, epochs=1)
    assert not _zero(pruned, mask)
