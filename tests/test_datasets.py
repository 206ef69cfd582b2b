"""Data: fixed splits, published content, and errors that say where to put which file."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import pruneviz as pv
from pruneviz.datasets import _idx
from pruneviz.datasets.base import DATA_VARIABLE, File, obtain
from pruneviz.errors import DataUnavailable, UnknownName

MNIST, FASHION = pv.DATASETS["mnist"], pv.DATASETS["fashion-mnist"]
needs_mnist = pytest.mark.skipif(
    not MNIST.present, reason="MNIST is not here: set PRUNEVIZ_DATA to a folder with mnist/"
)
needs_fashion = pytest.mark.skipif(
    not FASHION.present, reason="Fashion-MNIST is not here: install dataset-fashion-mnist"
)


def test_digits_are_split_once_and_for_all():
    one, two = pv.load("digits"), pv.load("digits")
    assert [len(x) for x, _ in (one.train, one.val, one.test)] == [1257, 180, 360]
    assert torch.equal(one.test[0], two.test[0])
    assert one.shape == (1, 8, 8)
    assert 0 <= float(one.train[0].min()) < float(one.train[0].max()) == 1
    rows = [r.tobytes() for part in (one.train, one.val, one.test) for r in part[0].numpy()]
    assert hashlib.sha256(b"".join(sorted(rows))).hexdigest() == hashlib.sha256(b"".join(sorted(_digits()))).hexdigest()


def _digits() -> list[bytes]:
    from sklearn.datasets import load_digits

    return [(row / 16).astype(np.float32).tobytes() for row in load_digits()["data"]]


@pytest.mark.parametrize(
    "key", [pytest.param("mnist", marks=needs_mnist), pytest.param("fashion-mnist", marks=needs_fashion)]
)
def test_the_published_files_give_55000_5000_10000(key: str):
    data = pv.load(key)
    assert [tuple(x.shape) for x, _ in (data.train, data.val, data.test)] == [
        (n, 1, 28, 28) for n in (55_000, 5_000, 10_000)
    ]
    assert torch.bincount(data.test[1]).tolist() == {"fashion-mnist": [1000] * 10}.get(
        key, torch.bincount(data.test[1]).tolist()
    )
    assert float(data.train[0].max()) == 1


def test_an_unknown_data_set_suggests_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'fashion-mnist'"):
        pv.load("fashionmnist")


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A data set of one small IDX file, looked for under a folder of this test; its address cannot be reached."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    content = b"\x00\x00\x08\x01\x00\x00\x00\x03abc"
    file = File("small.gz", "http://127.0.0.1:9/small.gz", hashlib.sha256(content).hexdigest())
    (tmp_path / "mnist").mkdir()
    return replace(MNIST, files=(file,)), tmp_path / "mnist", content


def test_a_local_file_is_read_compressed_or_not(card):
    made, folder, content = card
    (folder / "small").write_bytes(content)
    assert made.present
    assert _idx.parse(obtain(made, made.files[0])).tolist() == [97, 98, 99]
    (folder / "small.gz").write_bytes(gzip.compress(content))
    (folder / "small").unlink()
    assert obtain(made, made.files[0]) == content


def test_offline_the_error_says_which_file_goes_where(card):
    made, folder, _ = card
    assert not made.present
    with pytest.raises(DataUnavailable, match="could not be downloaded") as error:
        obtain(made, made.files[0])
    assert f"Put small.gz into {folder}" in str(error.value)
    assert made.source in str(error.value)


@pytest.mark.parametrize("damage", ["other content", "cut short", "not gzip"])
def test_a_damaged_file_is_named(card, damage: str):
    made, folder, content = card
    packed = gzip.compress(content)
    bad = {"other content": gzip.compress(content + b"!"), "cut short": packed[:-9], "not gzip": b"hello"}[damage]
    (folder / "small.gz").write_bytes(bad)
    with pytest.raises(DataUnavailable, match="damaged") as error:
        obtain(made, made.files[0])
    assert "small.gz" in str(error.value)
    assert "Delete it" in str(error.value)


def test_a_download_is_checked_and_kept(card, tmp_path):
    import http.server
    import threading

    made, folder, content = card
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "small.gz").write_bytes(gzip.compress(content))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, directory=str(tmp_path / "web"), **options)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = replace(made, files=(replace(made.files[0], url=f"http://127.0.0.1:{server.server_port}/small.gz"),))
        assert obtain(here, here.files[0]) == content
        server.shutdown()
    assert (folder / "small.gz").is_file()
    shutil.rmtree(tmp_path / "web")
    assert obtain(here, here.files[0]) == content


def test_an_idx_file_that_is_none_says_so():
    with pytest.raises(DataUnavailable, match="not an IDX file"):
        _idx.parse(b"P5 3 3", "x")
    with pytest.raises(DataUnavailable, match="cut short"):
        _idx.parse(b"\x00\x00\x08\x01\x00\x00\x00\x09abc", "x")


@pytest.mark.parametrize(
    ("key", "weights", "all_"), [("lenet-300-100", 266_200, 266_610), ("lenet-5-caffe", 430_500, 431_080)]
)
def test_models_have_the_papers_sizes(key: str, weights: int, all_: int):
    from pruneviz.masks import Mask, prunable

    model = pv.build(key, shape=(1, 28, 28), classes=10)
    assert Mask.full(model, prunable(model)).size == weights
    assert sum(p.numel() for p in model.parameters()) == all_


def test_the_same_seed_builds_the_same_network():
    one, two, other = (pv.build("digits-cnn", shape=(1, 8, 8), classes=10, seed=s) for s in (0, 0, 1))
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_flops_of_a_masked_network_are_counted_by_hand():
    from pruneviz.cost import cost
    from pruneviz.masks import Mask

    model = pv.build("digits-cnn", shape=(1, 8, 8), classes=10)
    x = torch.zeros(1, 1, 8, 8)
    dense = 2 * (64 * 9 * 16 + 64 * 16 * 9 * 32 + 512 * 64 + 640)
    assert cost(model, x).flops == dense
    half = torch.zeros(16, 1, 3, 3, dtype=torch.bool)
    half[:8] = True
    assert cost(model, x, Mask({"0.weight": half})).flops == dense - 64 * 9 * 16
