"""Data: fixed splits, published content, and errors that say where to put which file."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pruneviz as pv
from pruneviz.datasets import _idx, mnist_1d, monks
from pruneviz.datasets.base import DATA_VARIABLE, File, obtain
from pruneviz.errors import DataUnavailable, UnknownName

ROOT = Path(__file__).resolve().parent.parent
MNIST, FASHION = pv.DATASETS["mnist"], pv.DATASETS["fashion-mnist"]
MONKS = [pv.DATASETS[f"monks-{i}"] for i in (1, 2, 3)]
needs_mnist = pytest.mark.skipif(
    not MNIST.present, reason="MNIST is not here: set PRUNEVIZ_DATA to a folder with mnist/"
)
needs_monks = pytest.mark.skipif(
    not all(card.present for card in MONKS),
    reason="the MONK's problems are not here: set PRUNEVIZ_DATA to a folder with monks/",
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


SMALL = ["digits", "xor", "mnist-1d", *(pytest.param(card.key, marks=needs_monks) for card in MONKS)]


@pytest.mark.parametrize("key", SMALL)
def test_the_splits_are_what_the_card_says(key: str):
    card, data = pv.DATASETS[key], pv.load(key)
    for (x, y), size in zip((data.train, data.val, data.test), card.sizes, strict=True):
        assert x.shape == (size, *card.shape)
        assert x.dtype == torch.float32
        assert y.shape == (size,)
        assert sorted(set(y.tolist())) == list(range(len(card.classes)))
    assert all(torch.equal(a, b) for a, b in zip(data.test, pv.load(key).test, strict=True))


def test_cards_of_one_file_pin_their_own_content():
    digests = [card.digest for card in pv.DATASETS.values()]
    assert len(set(digests)) == len(pv.DATASETS)


def test_xor_is_its_truth_table():
    data = pv.load("xor")
    for x, y in (data.train, data.val, data.test):
        assert {(int(a), int(b)): int(label) for (a, b), label in zip(x, y, strict=True)} == {
            (a, b): a ^ b for a in (0, 1) for b in (0, 1)
        }


RULES = {
    "monks-1": lambda a: a[0] == a[1] or a[4] == 1,
    "monks-2": lambda a: a.count(1) == 2,
    "monks-3": lambda a: (a[4] == 3 and a[3] == 1) or (a[4] != 4 and a[1] != 3),
}


def attributes(x: torch.Tensor) -> list[tuple[int, ...]]:
    """The six values, counted from 1, that rows of 17 inputs stand for."""
    parts = x.split((3, 3, 2, 3, 4, 2), dim=1)
    assert all((part.sum(1) == 1).all() for part in parts)
    return list(zip(*((part.argmax(1) + 1).tolist() for part in parts), strict=True))


@needs_monks
@pytest.mark.parametrize(("key", "wrong"), [("monks-1", 0), ("monks-2", 0), ("monks-3", 6)])
def test_the_monks_labels_follow_the_published_rules(key: str, wrong: int):
    data, rule = pv.load(key), RULES[key]
    robots = attributes(data.test[0])
    assert set(robots) == set(itertools.product(*(range(1, n + 1) for n in monks.ATTRIBUTES)))
    assert data.test[1].tolist() == [rule(robot) for robot in robots]
    train = attributes(data.train[0])
    assert len(set(train)) == len(train)
    assert sum(label != rule(robot) for robot, label in zip(train, data.train[1].tolist(), strict=True)) == wrong


@needs_monks
def test_the_monks_problems_have_no_samples_to_spare_for_validation():
    data = pv.load("monks-1")
    assert torch.equal(data.val[0], data.train[0])
    assert "validation set too" in MONKS[0].idea


def test_a_line_of_the_monks_files_is_read_as_published():
    x, y = monks.parse(b" 1 1 2 1 3 4 2 data_7\n 0 3 1 2 1 1 1 data_9\n\n")
    assert x.tolist() == [
        [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1],
        [0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0],
    ]
    assert y.tolist() == [1, 0]


def test_the_monks_problems_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    unreachable = tuple(replace(file, url="http://127.0.0.1:9/") for file in MONKS[0].files)
    card = replace(MONKS[0], files=unreachable)
    with pytest.raises(DataUnavailable) as error:
        card.read(card)
    assert f"Put monks-1.train, monks-1.test into {tmp_path / 'monks'}" in str(error.value)
    (tmp_path / "monks" / "monks-1.train").write_text("1 1 1 1 1 3 1 data_5\n")
    with pytest.raises(DataUnavailable, match="not the published one"):
        card.read(card)


def test_mnist_1d_is_split_once_and_for_all():
    (made_x, _), (test_x, test_y) = mnist_1d._made()
    data = pv.load("mnist-1d")
    rows = [row.tobytes() for part in (data.train, data.val) for row in part[0].numpy()]
    assert sorted(rows) == sorted(row.tobytes() for row in made_x.astype(np.float32))
    assert torch.equal(data.test[0], torch.from_numpy(test_x).float())
    assert torch.equal(data.test[1], torch.from_numpy(test_y))


def test_making_mnist_1d_leaves_the_global_generators_as_they_were():
    mnist_1d._made.cache_clear()
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.rand()
    random.seed(3)
    np.random.seed(3)
    mnist_1d._made()
    assert (random.random(), np.random.rand()) == expected


def test_the_pin_of_mnist_1d_survives_last_digits_and_nothing_more():
    made, test = mnist_1d._made()
    for x, _ in (made, test):
        assert np.abs(np.abs(x * 1000 % 1) - 0.5).min() > 1e-6  # in thousandths: 1e-9 of a unit
    pinned = pv.DATASETS["mnist-1d"].content
    other_digits = made[0] * (1 + 1e-12 * np.sign(np.sin(np.arange(made[0].size))).reshape(made[0].shape))
    assert mnist_1d.content((other_digits, made[1]), test) == pinned
    moved = made[0].copy()
    moved[7, 3] += 0.001
    assert mnist_1d.content((moved, made[1]), test) != pinned
    assert mnist_1d.content((made[0], np.roll(made[1], 1)), test) != pinned


def test_samples_of_another_version_of_mnist_1d_are_refused():
    card = replace(pv.DATASETS["mnist-1d"], content="0" * 64)
    with pytest.raises(DataUnavailable, match=r"Install the version that requirements\.txt names"):
        card.read(card)


def test_the_catalogue_of_data_sets_loads_none_of_their_packages():
    code = "import sys, pruneviz.datasets; assert not {'mnist1d', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_normalised_samples_have_mean_0_and_deviation_1_in_training():
    plain = pv.load("digits")
    data = plain.normalised()
    x = data.train[0].double()
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std()) == pytest.approx(1, abs=1e-6)


def test_normalising_shifts_all_splits_alike_by_what_training_samples_say():
    plain = pv.load("digits")
    data = plain.normalised()
    values = plain.train[0].double().numpy()
    for name in ("train", "val", "test"):
        x, y = getattr(data, name)
        raw, labels = getattr(plain, name)
        expected = (raw.double().numpy() - values.mean()) / values.std(ddof=1)
        np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)  # float32
        assert torch.equal(y, labels)
    assert float(data.test[0].mean()) != pytest.approx(0, abs=1e-6)
    assert (data.shape, data.classes) == (plain.shape, plain.classes)


def test_choosing_data_on_the_run_page_brings_its_usual_network_and_budget(tmp_path, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    monkeypatch.setenv("PRUNEVIZ_STORE", str(tmp_path))
    page = testing.AppTest.from_file(str(ROOT / "pages" / "run.py"), default_timeout=60).run()
    for key in ("xor", "monks-1", "mnist", "mnist-1d", "digits"):
        page.selectbox(key="data").set_value(key).run()
        assert not page.exception
        assert not page.error
        card = pv.DATASETS[key]
        assert page.selectbox(key="model").value == card.model
        assert (page.number_input(key="epochs").value, page.number_input(key="tune").value) == (
            card.epochs,
            card.tune_epochs,
        )
        offered = {model.key for model in pv.MODELS.values() if model.fits(card.shape, len(card.classes))}
        assert page.selectbox(key="model").options == [pv.MODELS[m].title for m in pv.MODELS if m in offered]


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
