"""Data: fixed splits, published content, and errors that say where to put which file."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pruneviz as pv
from pruneviz.basics.errors import DataUnavailable, UnknownName
from pruneviz.datasets import _idx, _pickled, mnist_1d, monks
from pruneviz.datasets import cifar as _cifar
from pruneviz.datasets.base import DATA_VARIABLE, Archive, DataCard, File, obtain

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
    for key in ("xor", "monks-1", "cifar-10", "mnist", "mnist-1d", "digits"):
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


# CIFAR


class Python2(pickle._Pickler):
    """Writes strings as Python 2 did, in which CIFAR's pickles were made."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, text: bytes) -> None:
        n = len(text)
        self.write(pickle.SHORT_BINSTRING + bytes([n]) if n < 256 else pickle.BINSTRING + struct.pack("<i", n))
        self.write(text)
        self.memoize(text)

    dispatch[bytes] = save_bytes
    dispatch[str] = lambda self, text: self.save_bytes(text.encode())


def pickled(content: object) -> bytes:
    """A pickle with the opcodes and names of the published files."""
    file = io.BytesIO()
    Python2(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar_batch(samples: int, seed: int, *, classes: int) -> dict[bytes, object]:
    """What a published batch holds: images, labels and what nobody reads."""
    draw = np.random.default_rng(seed)
    labels = [int(label) for label in draw.integers(classes, size=samples)]
    kinds = {b"labels": labels} if classes == 10 else {b"coarse_labels": [0] * samples, b"fine_labels": labels}
    names = [f"image_{seed}_{i}.png".encode() for i in range(samples)]
    images = draw.integers(256, size=(samples, 3072), dtype=np.uint8)
    return {b"batch_label": f"batch {seed}".encode(), b"filenames": names, b"data": images, **kinds}


def packed(folder: Path, contents: dict[str, bytes], name: str) -> str:
    """Write a .tar.gz; returns its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / name, "w:gz") as tar:
        for member, content in contents.items():
            about = tarfile.TarInfo(member)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


@dataclass
class Small:
    """A small data set in CIFAR's format, under a folder of one test; its address cannot be reached."""

    card: DataCard
    folder: Path
    batches: list[dict]
    contents: dict[str, bytes]

    def publish(self) -> None:
        """Pack what it holds, and pin the checksum of that."""
        sha256 = packed(self.folder, self.contents, self.archive.name)
        self.card = replace(self.card, files=(replace(self.archive, sha256=sha256),))

    @property
    def archive(self) -> Archive:
        (archive,) = self.card.files
        assert isinstance(archive, Archive)
        return archive


@pytest.fixture(params=["cifar-10", "cifar-100"])
def cifar(request, tmp_path, monkeypatch) -> Small:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    card = pv.DATASETS[request.param]
    (archive,) = card.files
    batches = [cifar_batch(6, i, classes=len(card.classes)) for i in range(len(archive.members))]
    contents = {member: pickled(batch) for (member, _), batch in zip(archive.members, batches, strict=True)}
    pinned = tuple((member, hashlib.md5(content).hexdigest()) for member, content in contents.items())
    parent = archive.members[0][0].partition("/")[0]
    extras = {f"{parent}/readme.html": b"<html>", f"{parent}/meta": pickled({b"label_names": [b"a"]})}
    sizes = (6 * (len(batches) - 1) - 2, 2, 6)
    small = replace(card, sizes=sizes, files=(replace(archive, url="http://127.0.0.1:9/", members=pinned),))
    made = Small(small, tmp_path / card.key, batches, extras | contents)
    made.publish()
    return made


def test_cifar_s_splits_are_its_images_plane_by_plane_over_255(cifar, monkeypatch):
    monkeypatch.setitem(pv.DATASETS._entries, cifar.card.key, cifar.card)
    assert cifar.card.present
    data = pv.load(cifar.card.key)
    *train, test = cifar.batches
    assert [tuple(x.shape) for x, _ in (data.train, data.val, data.test)] == [(n, 3, 32, 32) for n in cifar.card.sizes]
    kind = b"labels" if cifar.card.key == "cifar-10" else b"fine_labels"
    assert data.test[1].tolist() == test[kind]
    channel, row, column = 2, 5, 31
    blue = test[b"data"][:, channel * 1024 + row * 32 + column] / 255
    np.testing.assert_array_equal(data.test[0][:, channel, row, column], blue.astype(np.float32))
    given = {
        image.tobytes(): label for batch in train for image, label in zip(batch[b"data"], batch[kind], strict=True)
    }
    found = {
        np.rint(image.numpy() * 255).astype(np.uint8).tobytes(): int(label)
        for part in (data.train, data.val)
        for image, label in zip(*part, strict=True)
    }
    assert found == given


def test_the_unpacked_folder_of_cifar_will_do_as_well(cifar):
    expected = cifar.card.read(cifar.card)
    (cifar.folder / cifar.archive.name).unlink()
    assert not cifar.card.present
    for member, content in cifar.contents.items():
        (cifar.folder / member).parent.mkdir(exist_ok=True)
        (cifar.folder / member).write_bytes(content)
    assert cifar.card.present
    for part, same in zip(cifar.card.read(cifar.card), expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(part, same, strict=True))
    last = cifar.folder / cifar.archive.members[-1][0]
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(DataUnavailable, match="its content is not the published one") as error:
        cifar.card.read(cifar.card)
    assert str(last) in str(error.value)


def test_without_cifar_and_offline_the_error_says_what_goes_where(cifar):
    shutil.rmtree(cifar.folder)
    with pytest.raises(DataUnavailable, match="could not be downloaded") as error:
        cifar.card.read(cifar.card)
    folder = cifar.archive.members[0][0].partition("/")[0]
    wanted = f"Put {cifar.card.key}-python.tar.gz (or its folder {folder}, unpacked) into {cifar.folder}"
    assert wanted in str(error.value)
    assert "cs.toronto.edu" in str(error.value)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("another file", "its content is not the published one"),
        ("cut short", "it cannot be unpacked"),
        ("no archive", "it cannot be unpacked"),
        ("a member missing", "it lacks cifar-10"),
    ],
)
def test_a_damaged_archive_is_named_with_the_mend(cifar, damage: str, said: str):
    path = cifar.folder / cifar.archive.name
    if damage == "another file":
        path.write_bytes(path.read_bytes() + b"!")
    elif damage == "a member missing":
        del cifar.contents[cifar.archive.members[0][0]]
        cifar.publish()
    else:
        path.write_bytes(path.read_bytes()[:-9000] if damage == "cut short" else b"hello")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        cifar.card = replace(cifar.card, files=(replace(cifar.archive, sha256=sha256),))
    with pytest.raises(DataUnavailable, match=said) as error:
        cifar.card.read(cifar.card)
    assert f"{path} is damaged" in str(error.value)
    assert "Delete it and ask again" in str(error.value)


def test_batches_of_the_wrong_size_are_refused(cifar):
    cifar.card = replace(cifar.card, sizes=(45_000, 5_000, 10_000))
    with pytest.raises(DataUnavailable, match="expected 50,000 training and 10,000 test images; found") as error:
        cifar.card.read(cifar.card)
    assert f"into {cifar.folder}" in str(error.value)


class Hostile:
    """Pickled, it asks for a call as it is read."""

    def __init__(self, function, *arguments):
        self.asks = function, arguments

    def __reduce__(self):
        return self.asks


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_asks_for_a_call_is_refused_and_nothing_runs(tmp_path, protocol: int):
    mark = tmp_path / "ran"
    for function, argument in ((os.system, f"touch {mark}"), (eval, f"open({str(mark)!r}, 'w')"), (Path.touch, mark)):
        content = pickle.dumps([Hostile(function, argument)], protocol)
        with pytest.raises(DataUnavailable, match=r"batch asks for \S+; only plain containers and arrays") as error:
            _pickled.parse(content, "batch")
        assert "Put the published file in its place" in str(error.value)
    assert not mark.exists()
    pickle.Unpickler(io.BytesIO(content)).load()
    assert mark.exists()  # what plain pickle does with it


def test_a_hostile_member_is_refused_even_where_the_checksum_is_right(cifar, tmp_path):
    member = cifar.archive.members[-1][0]
    cifar.contents[member] = pickled({b"data": Hostile(os.system, f"touch {tmp_path / 'ran'}")})
    cifar.publish()
    with pytest.raises(DataUnavailable, match=rf"{member} asks for {os.system.__module__}\.system"):
        cifar.card.read(cifar.card)
    assert not (tmp_path / "ran").exists()


def test_arrays_are_read_without_a_call_of_numpy(monkeypatch):
    images = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for layout in (images, np.asfortranarray(images), images[:0]):
        (found,) = _pickled.parse(pickled([layout]))
        assert np.array_equal(found, layout)
    content = pickled({b"data": images, b"labels": (1, [b"two", 3.5, None, True])})
    assert b"cnumpy.core.multiarray\n_reconstruct" in content
    assert _pickled._Reader(io.BytesIO(content), encoding="bytes").find_class("numpy", "dtype") is not np.dtype
    assert _pickled.parse(content)[b"labels"] == (1, [b"two", 3.5, None, True])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cut short or damaged"),
        (b"hello", "cut short or damaged"),
        (pickled({b"labels": [1, 2, 3]})[:-3], "cut short or damaged"),
        (pickled(np.zeros(3)), "holds an array of 'f8'; expected single bytes"),
        (pickled(np.array([None])), "holds an array of 'O8'; expected single bytes"),
        (pickled(np.zeros((2, 3), np.uint8)).replace(b"K\x02K\x03", b"K\x02K\x04"), "an array of shape .2, 4. with 6 bytes"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "asks for an object outside itself, 'a'"),
        (b"\x80\x02cnumpy\nload\n.", "asks for numpy.load"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "cut short or damaged"),
    ],
)  # fmt: skip
def test_what_is_no_plain_pickle_is_refused_with_the_mend(content: bytes, said: str):
    with pytest.raises(DataUnavailable, match=f"batch .*{said}") as error:
        _pickled.parse(content, "batch")
    assert str(error.value).endswith("Put the published file in its place.")


@pytest.mark.parametrize(
    "change",
    [{b"data": None}, {b"labels": None}, {b"labels": [1]}, {b"labels": [b"cat"] * 2}, {b"data": np.zeros((2, 9), np.uint8)}],
)  # fmt: skip
def test_a_pickle_that_is_no_batch_says_so(change: dict):
    whole = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 4]}
    assert _cifar.batch(pickled(whole))[1].tolist() == [3, 4]
    for content in (whole | change, [whole]):
        with pytest.raises(DataUnavailable, match="batch 1 is not a batch of CIFAR"):
            _cifar.batch(pickled(content), "batch 1")


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
