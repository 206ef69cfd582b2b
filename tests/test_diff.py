"""Two networks' tensors beside each other: every number against a plain loop, every bad file one sentence."""

from __future__ import annotations

import copy
import json
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save as numpy_bytes
from safetensors.numpy import save_file as numpy_save
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

import pruneviz as pv
from pruneviz.basics.errors import DataUnavailable, InvalidSetting, PrunevizError, UnknownName, Unsuitable
from pruneviz.basics.tensors import File
from pruneviz.cli import main
from pruneviz.difference import drawing
from pruneviz.difference.numbers import BLOCK

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "</script><script>alert(1)</script><a href='http://evil.example'>x</a>.weight"


def written(path: Path, header: object, data: bytes = b"") -> Path:
    """A safetensors file by hand: eight bytes, the header, the numbers."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def f32(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def entry(kind: str, shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def row(found: pv.Diff, name: str) -> dict:
    return found.frame().set_index("name").loc[name].to_dict()


def by_hand(before, after) -> dict[str, float]:
    """What a loop over single numbers counts."""
    gone = back = moved = 0
    change, size, most = [], [], 0.0
    for a, b in zip(np.ravel(before).tolist(), np.ravel(after).tolist(), strict=True):
        gone += a != 0 and b == 0
        back += a == 0 and b != 0
        if a != 0 and b != 0:
            moved += a != b
            change.append((b - a) ** 2)
            size.append(a**2)
            most = max(most, abs(b - a))
    return {
        "gone": gone, "back": back, "moved": moved, "moved_by": (sum(change) / sum(size)) ** 0.5, "moved_most": most,
        "zero_before": sum(a == 0 for a in np.ravel(before)), "zero": sum(b == 0 for b in np.ravel(after)),
    }  # fmt: skip


def cnn() -> nn.Module:
    """Small, with a normalisation that has been trained, and a flattened image."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )  # fmt: skip
    for kept in (net[1].weight.data, net[1].bias.data, net[1].running_mean, net[1].running_var):
        kept.uniform_(0.5, 1.5)
    return net.eval()


# numbers


def test_every_count_is_what_a_loop_over_single_numbers_gives():
    random = np.random.default_rng(0)
    a = random.normal(size=(6, 4, 3, 3)) * (random.random((6, 4, 3, 3)) > 0.2)
    b = np.where(random.random(a.shape) > 0.4, a, 0) + (random.random(a.shape) > 0.7) * 0.1
    found = pv.diff({"w": a, "k": a}, {"w": b, "k": a})
    expected = by_hand(a, b)
    assert {key: row(found, "w")[key] for key in expected} == pytest.approx(expected, rel=1e-12)
    assert {expected["gone"] > 0, expected["back"] > 0, expected["moved"] > 0} == {True}
    assert found.tensor("k").same
    edges = np.linspace(-np.abs([a, b]).max(), np.abs([a, b]).max(), 61)
    for side, whole in ((found.tensor("w").numbers.before, a), (found.tensor("w").numbers.after, b)):
        expected = [((whole >= low) & (whole < high) & (whole != 0)).sum() for low, high in pairwise(edges)]
        assert side.counts == pytest.approx(expected, abs=1)  # a number on an edge may be rounded into its neighbour
        assert sum(side.counts) == (whole != 0).sum()


def test_tensors_larger_than_a_block_are_counted_like_small_ones():
    random = np.random.default_rng(1)
    long, wide = (
        random.normal(size=(BLOCK // 500 + 7, 1000)).astype("f4"),
        random.normal(size=(2, BLOCK + 9)).astype("f4"),
    )
    for a in (long, wide):
        b = np.where(np.abs(a) > 0.5, a, 0)
        b[:, 3] = 0
        b[1] = 0
        found = row(pv.diff({"w": a}, {"w": b}), "w")
        assert (found["gone"], found["moved"]) == (int((b == 0).sum()), 0)
        assert (
            found["pattern"]
            == f"1 of {len(a):,} rows zero; {int((b == 0).all(0).sum()):,} of {a.shape[1]:,} columns zero"
        )


def test_memory_does_not_grow_with_a_tensor(tmp_path):
    peaks = []
    for rows in (1000, 6000):
        numpy_save({"w": np.random.default_rng(0).normal(size=(rows, 2000)).astype("f4")}, tmp_path / "x.safetensors")
        tracemalloc.start()
        pv.diff(tmp_path / "x.safetensors", tmp_path / "x.safetensors")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 100e6


def test_sparsity_counts_matrix_weights_and_what_is_absent():
    a = {"w": np.ones((4, 5)), "b": np.ones(4), "steps": np.array(7), "only": np.ones((2, 5))}
    b = {"w": np.vstack([np.zeros((1, 5)), np.ones((3, 5))]), "b": np.zeros(4), "steps": np.array(9)}
    found = pv.diff(a, b)
    assert found.sparsity["matrix"] == {"before": 30, "after": 20, "zero_before": 0, "zero_after": 0.25, "left": 0.5}
    assert found.sparsity["all"]["left"] == pytest.approx(15 / 34)
    assert [t.name for t in found.only_before] == ["only"]
    assert "Only in the first: only." in found.said()
    assert row(found, "steps")["moved"] == 1


def test_nan_and_infinity_are_said_and_in_no_norm():
    a, b = np.array([[1.0, 2.0, 3.0, np.inf]]), np.array([[np.nan, 2.5, 0.0, np.inf]])
    found = pv.diff({"w": a}, {"w": b})
    assert row(found, "w")["moved_by"] == 0.25  # 0.5 of 2.0: the others are not finite, or gone
    assert (row(found, "w")["gone"], row(found, "w")["moved"]) == (1, 2)
    assert row(found, "w")["note"] == "3 NaN or infinite (1 before, 2 after)"
    assert any("NaN or infinite" in sentence and "w" in sentence for sentence in found.said())
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("size", [1e-320, 1e200, 1.7e308])
def test_numbers_at_the_ends_of_their_range_are_counted_without_a_warning(size):
    found = pv.diff({"w": np.full((2, 2), size)}, {"w": np.full((2, 2), -size)})
    assert row(found, "w")["moved"] == 4
    json.dumps(found.to_dict(), allow_nan=False)


# patterns


def patterns(b: np.ndarray) -> str:
    return row(pv.diff({"w": np.ones_like(b)}, {"w": b}), "w")["pattern"]


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (4, 8), (3, 16)])
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_n_of_m_is_found_along_the_inputs_of_matrices_and_convolutions(n, m, kernel):
    random = np.random.default_rng(n * m)
    keep = random.random((16, 32 // m, m, *kernel)).argsort(2) < n
    expected = min(((n / m, m) for n, m in [(n, m)]), default=None)
    found = patterns(keep.reshape(16, 32, *kernel).astype(float))
    ratio = re.search(r"(\d+):(\d+)$", found)
    assert ratio
    assert (int(ratio[1]) / int(ratio[2]), int(ratio[2])) == expected


def test_single_weights_left_at_random_are_no_pattern():
    random = np.random.default_rng(0)
    for share in (0.5, 0.1, 0.02):
        assert patterns((random.random((64, 64)) < share).astype(float)).count(":") == 0
    assert "kernels" not in patterns((random.random((32, 32, 3, 3)) < 0.1).astype(float))


def test_filters_channels_and_kernels_are_counted_apart():
    b = np.ones((8, 6, 3, 3))
    b[2], b[:, 4] = 0, 0
    b[5, 0], b[6, 1] = 0, 0
    assert patterns(b) == "1 of 8 filters zero; 1 of 6 input channels zero; 2 of 35 other kernels zero"


# files


def test_every_kind_of_number_is_read_as_torch_reads_it(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(5, 7)
    every = torch.arange(256, dtype=torch.uint8)
    state = {
        str(d).removeprefix("torch."): x.to(d) for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    }
    state |= {str(d): (x * 50).to(d) for d in (torch.int64, torch.int32, torch.int16, torch.int8)}
    state |= {
        "bool": x > 0,
        "u8": every,
        "e4m3": every.clone().view(torch.float8_e4m3fn),
        "e5m2": every.clone().view(torch.float8_e5m2),
    }
    state |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    save_file(state, tmp_path / "x.safetensors")
    file = File.open(tmp_path / "x.safetensors")
    assert set(file.entries) == set(state)
    for name, tensor in state.items():
        expected = (
            tensor.double().reshape(tensor.shape[0] if tensor.dim() else 1, -1) if tensor.numel() else torch.empty(0, 3)
        )
        np.testing.assert_array_equal(file.values(name).part(), expected.numpy())
        assert file.values(name).shape == tuple(tensor.shape)
    found = pv.diff(tmp_path / "x.safetensors", state)
    assert [t.name for t in found.tensors if not t.same] == []


def test_bfloat16_by_hand_needs_no_torch(tmp_path):
    path = written(
        tmp_path / "x.safetensors",
        {"w": entry("BF16", [2, 2], 0, 8)},
        bytes.fromhex("803f 0000 20c0 0042".replace(" ", "")),
    )
    code = (
        "import sys, pruneviz.difference as d\n"
        "from pruneviz.basics.tensors import File\n"
        f"print(File.open({str(path)!r}).values('w').part().tolist(), d.diff({str(path)!r}, {str(path)!r}).tensors[0].same)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[1.0, 0.0], [-2.5, 32.0]] True", done.stderr


def test_names_count_as_people_count(tmp_path):
    state = {f"layer{i}.weight": torch.ones(2, 2) for i in (10, 2, 1)}
    save_file(state, tmp_path / "x.safetensors")
    found = pv.diff(tmp_path / "x.safetensors", state)
    assert [t.name for t in found.tensors] == ["layer1.weight", "layer2.weight", "layer10.weight"]


GOOD = {"w": entry("F32", [2], 0, 8)}
BAD = {
    "a pickle in disguise": (lambda p: p.write_bytes(pickle.dumps({"w": [1.0] * 99})), "is no safetensors file but a pickle"),
    "torch.save in disguise": (lambda p: torch.save({"w": torch.ones(3)}, p), "is no safetensors file but a pickle"),
    "a header that is a bomb": (lambda p: p.write_bytes(struct.pack("<Q", 2**40) + b"{}"), "its header would take 1,099,511,627,776 bytes"),
    "a header longer than any": (lambda p: p.write_bytes(struct.pack("<Q", 2**25) + b"{" * (2**25)), "at most 16,777,216 of which"),
    "a header nested without end": (lambda p: written(p, b'{"a":' * 200_000 + b"1" + b"}" * 200_000), "its header cannot be read"),
    "no JSON": (lambda p: written(p, b"{'w': 1}"), "its header cannot be read"),
    "a list": (lambda p: written(p, [1, 2]), "its header cannot be read"),
    "one name twice": (lambda p: written(p, b'{"w":1,"w":2}'), "its header cannot be read"),
    "cut short": (lambda p: written(p, GOOD, f32(1)), "is cut short: its tensors take 8 bytes, and 4 are there"),
    "too long": (lambda p: written(p, GOOD, f32(1, 2, 3)), "4 bytes at its end belong to no tensor"),
    "tensors that overlap": (
        lambda p: written(p, {"w": entry("F32", [2], 0, 8), "v": entry("F32", [2], 4, 12)}, f32(1, 2, 3)), "'v' overlaps 'w'",
    ),
    "a hole": (lambda p: written(p, {"w": entry("F32", [1], 4, 8)}, f32(1, 2)), "bytes before 'w' belong to no tensor"),
    "a shape that does not fit": (lambda p: written(p, {"w": entry("F32", [3], 0, 8)}, f32(1, 2)), "what it says of 'w' does not fit"),
    "a shape of billions": (lambda p: written(p, {"w": entry("F32", [2**40, 2**40], 0, 8)}, f32(1, 2)), "does not fit its bytes"),
    "a negative side": (lambda p: written(p, {"w": entry("F32", [-1, -2], 0, 8)}, f32(1, 2)), "does not fit its bytes"),
    "offsets backwards": (lambda p: written(p, {"w": entry("F32", [2], 8, 0)}, f32(1, 2)), "does not fit its bytes"),
    "an entry that is a number": (lambda p: written(p, {"w": 3}), "does not fit its bytes"),
    "an unknown kind": (lambda p: written(p, {"w": entry("F4", [2], 0, 8)}, f32(1, 2)), "holds 'w' as 'F4'"),
    "no tensors": (lambda p: written(p, {"__metadata__": {"format": "pt"}}), "holds no tensors"),
    "an empty file": (lambda p: p.write_bytes(b""), "is empty"),
    "five bytes": (lambda p: p.write_bytes(b"hello"), "is no safetensors file"),
    "a folder": (lambda p: p.mkdir(), "is a folder"),
    "no file": (lambda p: None, "cannot be read"),
    "a name without end": (lambda p: written(p, {"w" * 600: GOOD["w"]}, f32(1, 2)), "names a tensor in 600 letters"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_one_sentence_and_exit_status_1(what, tmp_path, capsys):
    make, sentence = BAD[what]
    good = written(tmp_path / "good.safetensors", GOOD, f32(1, 2))
    make(tmp_path / "bad.safetensors")
    with pytest.raises(DataUnavailable, match=re.escape(sentence)):
        pv.diff(good, tmp_path / "bad.safetensors")
    assert main(["diff", str(good), str(tmp_path / "bad.safetensors"), "--to", str(tmp_path / "x.html")]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert len(said.err) < 600
    assert not (tmp_path / "x.html").exists()


class Danger:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_pt_files_are_read_without_their_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = cnn()
    torch.save(net.state_dict(), "a.pt")
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, "b.pth")
    assert all(t.same for t in pv.diff("a.pt", "b.pth").tensors)
    torch.save({"w": torch.ones(2), "x": Danger()}, "danger.pt")
    torch.save(net, "module.pt")
    Path("junk.pt").write_bytes(b"junk" * 100)
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data/0", bytes(10**7))
    for name, sentence in {
        "danger.pt": "holds more than tensors", "module.pt": "holds more than tensors", "junk.pt": "is no file of torch.save",
        "bomb.pt": "is a compressed archive", "none.pt": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(DataUnavailable, match=sentence):
            pv.diff("a.pt", name)
    assert not Path("ran").exists()


def test_what_is_no_network_says_what_to_give(tmp_path):
    with pytest.raises(InvalidSetting, match="found int"):
        pv.diff(3, {})
    with pytest.raises(DataUnavailable, match="holds no tensors"):
        pv.diff({"epoch": 3}, cnn())
    with pytest.raises(DataUnavailable, match="meta device"):
        pv.diff(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
    with pytest.raises(DataUnavailable, match="complex64"):
        pv.diff({"w": torch.ones(2, dtype=torch.complex64)}, {"w": torch.ones(2)})
    with pytest.raises(Unsuitable, match="have no tensor of the same name: the one has 'a'"):
        pv.diff({"a": torch.ones(2)}, {"b": torch.ones(2)})


def test_modules_and_what_our_calls_give_are_taken_as_they_are():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    net = Wrapped()
    assert [t.name for t in pv.diff(net, net).tensors] == ["model.weight", "model.bias", "head.weight", "head.bias"]
    dense = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    pruned = pv.prune(dense, torch.randn(9, 6), torch.randint(3, (9,)), method="magnitude", sparsity=0.5)
    assert pv.diff(dense, pruned).sparsity["matrix"]["zero_after"] == 0.5


# names


def test_names_that_differ_by_one_beginning_match():
    net = cnn().state_dict()
    for begin in ("module.", "model.", "_orig_mod.", "_orig_mod.module.", "net.0."):
        wrapped = {f"{begin}{name}": tensor for name, tensor in net.items()}
        for found in (pv.diff(net, wrapped), pv.diff(wrapped, net)):
            assert [t.name for t in found.tensors] == list(net)
            assert all(t.same for t in found.tensors)
            assert any(begin in note for note in found.notes)
    found = pv.diff({f"module.{n}": t for n, t in net.items()}, {f"_orig_mod.{n}": t for n, t in net.items()})
    assert [t.name for t in found.tensors] == list(net)
    headed = {f"model.{name}": tensor for name, tensor in net.items()} | {"lm_head.weight": torch.ones(2, 2)}
    assert [lone.name for lone in pv.diff(headed, net).only_before] == ["lm_head.weight"]


def test_two_beginnings_that_fit_as_well_are_not_chosen_between():
    with pytest.raises(Unsuitable, match="no tensor of the same name"):
        pv.diff({"a.w": torch.ones(2), "b.w": torch.ones(2)}, {"w": torch.ones(2)})


def test_torch_prune_s_pairs_are_the_weight_in_use(tmp_path):
    net = cnn()
    pruned = copy.deepcopy(net)
    torch_prune.l1_unstructured(pruned[6], "weight", amount=0.75)
    torch_prune.ln_structured(pruned[0], "weight", amount=3, n=2, dim=0)
    save_file(pruned.state_dict(), tmp_path / "x.safetensors")
    for given in (pruned, tmp_path / "x.safetensors"):
        found = pv.diff(net, given)
        assert not found.only_before + found.only_after
        assert (row(found, "6.weight")["gone"], row(found, "6.weight")["moved"]) == (1920, 0)
        assert row(found, "0.weight")["pattern"] == "3 of 12 filters zero"
        assert any("torch.nn.utils.prune" in note for note in found.notes)
    assert row(pv.diff(pruned, net), "6.weight")["back"] == 1920


def test_a_parametrization_s_mask_is_part_of_its_weight():
    weight, mask = torch.randn(4, 4), torch.arange(16).reshape(4, 4) % 2 == 0
    kept = {"fc.parametrizations.weight.original": weight, "fc.parametrizations.weight.0.mask": mask}
    found = pv.diff({"fc.weight": weight}, kept)
    assert (row(found, "fc.weight")["gone"], row(found, "fc.weight")["moved"]) == (8, 0)
    other = {"fc.weight_orig": weight, "fc.weight_mask": torch.ones(3)}  # of another shape: no mask of it
    assert [lone.name for lone in pv.diff({"fc.weight_orig": weight}, other).only_after] == ["fc.weight_mask"]


# smaller networks


def cut(net: nn.Module) -> nn.Module:
    """Made smaller by Torch-Pruning."""
    pruning = pytest.importorskip("torch_pruning")
    small, x = copy.deepcopy(net), torch.randn(1, 3, 8, 8)
    pruner = pruning.pruner.MagnitudePruner(
        small, x, importance=pruning.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=[small[6]]
    )
    pruner.step()
    return small


def kept_by_search(dense: torch.Tensor, small: torch.Tensor) -> list[int]:
    """Of each small row (over inputs that all stayed) the dense row that it is, by plain search."""
    return [next(i for i, other in enumerate(dense) if torch.equal(other, mine)) for mine in small]


@pytest.mark.parametrize("trained_on", [False, True])
def test_channels_that_torch_pruning_kept_are_found(trained_on):
    net = cnn()
    small = cut(net)
    rows = kept_by_search(net[0].weight, small[0].weight)
    middle = kept_by_search(net[3].weight[:, rows], small[3].weight)
    if trained_on:
        torch.manual_seed(1)
        for p in small.parameters():
            p.data += 0.02 * p.data.std() * torch.randn_like(p)
    found = pv.diff(net, small)
    assert [t.name for t in found.tensors if t.how == "not found"] == []
    assert found.tensor("0.weight").rows == found.tensor("1.running_mean").rows == tuple(rows)
    assert (found.tensor("3.weight").rows, found.tensor("3.weight").columns) == (tuple(middle), tuple(rows))
    assert found.tensor("6.weight").columns == tuple(16 * c + i for c in middle for i in range(16))
    assert found.tensor("3.weight").how == ("nearest" if trained_on else "equal")
    there = by_hand(net[3].weight[middle][:, rows].double().tolist(), small[3].weight.double().tolist())
    assert row(found, "3.weight")["moved"] == there["moved"]
    assert row(found, "3.weight")["moved_by"] == pytest.approx(there["moved_by"], rel=1e-12, abs=1e-12)
    assert row(found, "3.weight")["gone"] == net[3].weight.numel() - small[3].weight.numel()


def test_channels_are_found_across_residual_sums_before_and_after_training_on():
    pruning = pytest.importorskip("torch_pruning")
    dense = pv.build("resnet-20", shape=(3, 32, 32), classes=10, seed=0).eval()
    torch.manual_seed(0)
    for tensor in [*dense.parameters(), *dense.buffers()]:
        if tensor.dim() == 1:
            tensor.data.uniform_(0.5, 1.5)
    small, head = copy.deepcopy(dense), "Linear"
    ignored = [layer for layer in small.modules() if type(layer).__name__ == head]
    importance = pruning.importance.MagnitudeImportance(p=2)
    pruning.pruner.MagnitudePruner(
        small, torch.randn(1, 3, 32, 32), importance=importance, pruning_ratio=0.4, ignored_layers=ignored
    ).step()
    exact = pv.diff(dense, small)
    changed = [t for t in exact.tensors if t.shapes[0] != t.shapes[1]]
    assert len(changed) > 90
    everything = {**dict(dense.named_parameters()), **dict(dense.named_buffers())}
    for tensor in changed:
        part = everything[tensor.name].detach()[list(tensor.rows or range(tensor.shapes[0][0]))]
        part = part if tensor.columns is None else part[:, list(tensor.columns)]
        assert torch.equal(part, small.state_dict()[tensor.name])
    for p in small.parameters():
        p.data += 0.1 * p.data.std() * torch.randn_like(p)
    trained = {t.name: (t.rows, t.columns) for t in pv.diff(dense, small).tensors if t.how}
    assert trained == {t.name: (t.rows, t.columns) for t in changed}


def test_networks_that_were_made_apart_are_not_matched_by_chance():
    torch.manual_seed(5)
    other = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    found = pv.diff(cnn(), other)
    sized = [t for t in found.tensors if t.shapes[0] != t.shapes[1]]
    assert len(sized) == 9
    assert {t.how for t in sized} == {"not found"}
    assert found.tensor("3.weight").numbers.gone is None
    assert "could not be found" in row(found, "3.weight")["note"]
    assert any("is not guessed" in sentence for sentence in found.said())


def test_rows_that_are_alike_are_not_told_apart():
    a, b = np.ones((6, 4)), np.ones((3, 4))
    assert pv.diff({"w": a}, {"w": b}).tensor("w").how == "not found"


def test_what_compact_makes_is_the_masked_network_without_its_zeros():
    data = pv.load("digits")
    model = pv.build("digits-cnn", data, seed=0)
    x, y = data.train[0][:64], data.train[1][:64]
    pruned = pv.prune(model, x, y, method="l1-filters", sparsity=0.5)
    small = pv.compact(pruned).model
    found = pv.diff(model, small)
    assert [t.name for t in found.tensors if t.how == "not found"] == []
    weights = [t for t in found.tensors if t.weight and t.shapes[0] != t.shapes[1]]
    assert weights
    for tensor in weights:
        dense, masked = (dict(m.named_parameters())[tensor.name].detach().double() for m in (model, pruned.model))
        expected = dict(small.named_parameters())[tensor.name].detach().double()
        rows = list(tensor.rows) if tensor.rows else slice(None)
        columns = list(tensor.columns) if tensor.columns else slice(None)
        assert torch.equal(dense[rows][:, columns], expected)
        assert torch.equal(masked[rows][:, columns], expected)


# what becomes of it


def test_json_holds_everything_and_reads_back():
    net = cnn()
    small = cut(net)
    found = pv.diff(net, small)
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert pv.Diff.from_dict(json.loads(text)) == found
    with pytest.raises(InvalidSetting, match="format 99"):
        pv.Diff.from_dict({"format": 99})


def test_the_figure_s_shares_are_those_of_the_table():
    a, b = cnn().state_dict(), cnn().state_dict()
    b["6.weight"] = b["6.weight"] * (b["6.weight"].abs() > 0.03)
    found = pv.diff(a, b)
    fig = found.figure()
    gone = next(trace for trace in fig.data if trace.name == "gone")
    assert list(gone.x)[-1] == pytest.approx(100 * int((b["6.weight"] == 0).sum()) / 2560)
    table = drawing.fates(found)
    assert (table[["same", "moved", "back", "gone", "zero", "unknown"]].sum(axis=1) == table["size"]).all()
    panel = found.figure("6.weight")
    assert sum(panel.data[0].y) == 2560
    assert sum(panel.data[1].y) == int((b["6.weight"] != 0).sum())
    with pytest.raises(UnknownName, match=r"No tensor called '6\.wait'"):
        found.figure("6.wait")


def test_the_page_needs_nothing_and_runs_nothing_that_a_name_says(tmp_path):
    state = {HOSTILE: torch.randn(4, 4), "w": torch.randn(4, 4)}
    found = pv.diff(state, {name: tensor * 0.5 for name, tensor in state.items()})
    found.save(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in page
    assert page.count("<script") == 3  # data, Plotly, the drawing
    assert "alert(1)</script><a" not in page
    drawn = [json.dumps(json.loads(fig.to_json())["data"] + json.loads(fig.to_json())["layout"].get("annotations", []))
             for fig in (found.figure(), found.figure(HOSTILE))]  # fmt: skip
    assert ["<a href" in text for text in drawn] == [False, False]
    assert "evil.example" in drawn[1]
    assert "<script>alert" not in found._repr_html_()
    assert len(page) < 6_000_000
    with pytest.raises(InvalidSetting, match="cannot be written"):
        found.save(tmp_path / "nowhere" / "x.html")


def test_the_command_prints_writes_and_says_json(tmp_path, capsys):
    net = cnn()
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    state = load_file(tmp_path / "a.safetensors")
    state["6.weight"][:5] = 0
    save_file(state, tmp_path / "b.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    assert main(["diff", *files, "--to", str(tmp_path / "x.html")]) == 0
    said = capsys.readouterr().out
    assert "5 of 10 rows zero" in said
    assert (tmp_path / "x.html").stat().st_size > 1e6
    assert main(["diff", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert next(t for t in found["tensors"] if t["name"] == "6.weight")["numbers"]["gone"] == 1280
    assert pv.Diff.from_dict(found).sparsity == found["sparsity"]


def test_a_process_of_its_own_finds_the_same_and_leaves_nothing(tmp_path):
    from pruneviz.ui.two_files import Apart

    a = written(tmp_path / "a.safetensors", {"w": entry("F32", [2, 2], 0, 16)}, f32(1, 2, 3, 4))
    b = written(tmp_path / "b.safetensors", {"w": entry("F32", [2, 2], 0, 16)}, f32(0, 2, 3, 5))
    apart = Apart([File.open(a), File.open(b)])
    folder = apart._folder
    apart._process.wait(60)
    assert apart.progress[0] == 1.0
    assert apart.result() == pv.diff(a, b)
    assert not folder.exists()
    strange = Apart(
        [File.open(a), File.of("c", written(tmp_path / "c", {"x": entry("F32", [1], 0, 4)}, f32(1)).read_bytes())]
    )
    strange._process.wait(60)
    with pytest.raises(PrunevizError, match="no tensor of the same name"):
        strange.result()
    forgotten = Apart([File.open(a), File.open(b)])
    process, folder = forgotten._process, forgotten._folder
    del forgotten
    assert process.poll() is not None
    assert not folder.exists()


@pytest.fixture
def page(monkeypatch, tmp_path):
    """Opens the page with these uploads, (name, content) or None, and runs it."""
    testing = pytest.importorskip("streamlit.testing.v1")
    monkeypatch.setenv("PRUNEVIZ_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PRUNEVIZ_UPLOADS", "yes")

    def opened(*uploads: tuple[str, bytes] | None):
        made = testing.AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        made.switch_page("pages/diff.py").run()
        for place, upload in zip(made.file_uploader, uploads, strict=True):
            place.set_value((*upload, "application/octet-stream") if upload else None)
        made.run()
        assert not made.exception
        return made

    return opened


def test_the_page_shows_what_the_comparison_found_and_explains_its_words(page):
    from test_words import explained, terms
    from test_words import said as words_of

    random = np.random.default_rng(0)
    dense = {
        "fc.weight": random.normal(size=(6, 4)),
        HOSTILE: random.normal(size=(4, 4)),
        "b": np.ones(3),
        "old": np.ones(2),
    }
    pruned = {**dense, "fc.weight": dense["fc.weight"][[0, 3, 4]] * 1.5, "b": np.array([0, 1, np.nan])}
    del pruned["old"]
    found = pv.diff(dense, pruned)
    made = page(("a.safetensors", numpy_bytes(dense)), ("b.safetensors", numpy_bytes(pruned)))
    shown = made.dataframe[0].value.set_index("Tensor")
    assert dict(shown["Gone"].dropna()) == {t.name: t.numbers.gone for t in found.tensors if t.numbers.gone is not None}
    assert shown.loc["b", "Note"] == "1 NaN or infinite (0 before, 1 after)"
    charts = [json.loads(chart.proto.spec) for chart in made.get("plotly_chart")]
    assert len(charts) == 2
    assert all("<a href" not in json.dumps(chart) for chart in charts)
    assert sorted(made.selectbox[0].options) == sorted(t.name for t in found.tensors)
    made.selectbox[0].select("b").run()
    assert "<b>b</b>" in json.dumps(json.loads(made.get("plotly_chart")[1].proto.spec))
    used = terms("\n".join(words_of(made.main)))
    assert used - explained(made.main) == set()


def test_the_page_says_what_is_wrong_with_a_file_and_waits_for_another(page):
    good = ("a.safetensors", numpy_bytes({"w": np.ones((2, 2))}))
    made = page(good, ("bad.safetensors", pickle.dumps([1.0] * 99)))
    assert [error.value.count("no safetensors file but a pickle") for error in made.error] == [1]
    assert not made.dataframe
    assert "no tensor of the same name" in page(good, ("b.safetensors", numpy_bytes({"v": np.ones(2)}))).error[0].value
    assert len(page(good, None).code) == 1


@pytest.mark.parametrize(
    ("said", "shared", "address", "allowed"),
    [
        ("", "", "localhost", True), ("", "", "127.0.0.1", True), ("", "1", "localhost", False), ("", "", None, False),
        ("", "", "0.0.0.0", False), ("yes", "1", None, True), ("YES ", "", "0.0.0.0", True), ("no", "", "localhost", False),
    ],
)  # fmt: skip
def test_files_come_from_the_browser_only_where_the_operator_allows_them(monkeypatch, said, shared, address, allowed):
    from pruneviz.ui.server import uploads

    monkeypatch.setenv("PRUNEVIZ_UPLOADS", said)
    monkeypatch.setenv("PRUNEVIZ_SHARED", shared)
    monkeypatch.setattr(uploads.config, "get_option", {"server.address": address}.__getitem__)
    assert uploads.uploads_allowed() is allowed


def test_a_wrong_word_about_uploads_allows_nothing(monkeypatch):
    from pruneviz.ui.server.uploads import uploads_allowed

    monkeypatch.setenv("PRUNEVIZ_UPLOADS", "maybe")
    with pytest.raises(InvalidSetting, match="is yes or no; found 'maybe'"):
        uploads_allowed()
