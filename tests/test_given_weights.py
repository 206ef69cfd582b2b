"""Own weights: every tensor where it belongs, or one sentence and a network as it was."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pruneviz.basics.errors import PrunevizError
from pruneviz.models._weights import header, load


def net(outputs: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, outputs))


@pytest.fixture
def state():
    return {name: tensor.clone() for name, tensor in net(seed=7).state_dict().items()}


def same(model: nn.Module, state) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("start", ["", "module.", "model.", "_orig_mod.module."])
def test_names_with_a_beginning_that_all_share_are_fitted(tmp_path, state, start):
    save_file({start + name: tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    load(tmp_path / "w.safetensors", model := net())
    assert same(model, state)


def test_a_network_with_longer_names_takes_shorter_ones(tmp_path, state):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

    save_file(state, tmp_path / "w.safetensors")
    load(tmp_path / "w.safetensors", model := Wrapped())
    assert same(model.inner, state)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_checkpoints_of_torch_are_read_without_their_code(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pt")
    load(tmp_path / "w.pt", model := net())
    assert same(model, state)


def test_half_precision_is_read_into_the_networks_own(tmp_path, state):
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, tmp_path / "w.safetensors")
    load(tmp_path / "w.safetensors", model := net())
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, half["0.weight"].float())
    assert header(tmp_path / "w.safetensors")["0.weight"] == ("BF16", (5, 4))


def _raw(said, size: int = 0, length: int | None = None) -> bytes:
    text = json.dumps(said).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(size)


def _entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


BAD_FILES = {
    "empty": (b"", "no safetensors file"),
    "a pickle in disguise": (pickle.dumps({"a": 1}), "It is a pickle under another name"),
    "a zip in disguise": (b"PK\x03\x04" + bytes(40), "It is a pickle under another name"),
    "a bomb header": (_raw({}, length=2**62), "no safetensors file"),
    "no JSON": ((20).to_bytes(8, "little") + b"{" * 20, "no safetensors file"),
    "a list": (_raw([1, 2]), "no safetensors file"),
    "no tensors": (_raw({}), "holds no tensors"),
    "more than there is": (_raw({"a": _entry(shape=(10**12,), end=4 * 10**12)}, 8), "cut short or damaged"),
    "overlapping": (_raw({"a": _entry(), "b": _entry(begin=4, end=12)}, 12), "cut short or damaged"),
    "sides below zero": (_raw({"a": _entry(shape=(-2,))}, 8), "does not fit its bytes"),
    "an unknown type": (_raw({"a": _entry(dtype="F99")}, 8), "does not fit its bytes"),
    "too few bytes": (_raw({"a": _entry(shape=(3,))}, 8), "does not fit its bytes"),
    "bytes at the end": (_raw({"a": _entry()}, 99), "cut short or damaged"),
}


def _refused(path, words: str) -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PrunevizError) as caught:
        load(path, model)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert same(model, before)


@pytest.mark.parametrize("what", list(BAD_FILES))
def test_bad_files_are_refused_in_one_sentence(tmp_path, what):
    content, words = BAD_FILES[what]
    (tmp_path / "w.safetensors").write_bytes(content)
    _refused(tmp_path / "w.safetensors", words)


def test_weights_of_another_network_are_refused_by_name(tmp_path, state):
    save_file(net(outputs=4).state_dict(), tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", "'3.weight' in the shape [4, 5], and the network in [3, 5]")
    save_file({k: v for k, v in state.items() if k != "3.bias"}, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", "lacks '3.bias'")
    save_file({**state, "9.weight": torch.ones(2)}, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", "holds '9.weight', which the network has not")


def test_numbers_that_are_none_are_refused_and_nothing_is_loaded(tmp_path, state):
    state["3.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", "'3.weight' holds NaN or infinite")


def test_a_pickle_with_code_in_it_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"a": Trap()}, tmp_path / "w.pt")
    _refused(tmp_path / "w.pt", "is not unpickled")
    torch.save(net(), tmp_path / "w.pt")
    _refused(tmp_path / "w.pt", "Save the state alone")
    torch.save([1, 2], tmp_path / "w.pt")
    _refused(tmp_path / "w.pt", "no state dict")
    (tmp_path / "w.pt").write_bytes(b"cut")
    _refused(tmp_path / "w.pt", "damaged")
    assert not (tmp_path / "sprung").exists()
