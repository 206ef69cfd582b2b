"""Own samples: read rightly, or refused in one sentence before anything is unpacked."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets import _images, _npz
from pruneviz.datasets._given import WEB, Limits


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def refused(path, words: str, limits: Limits | None = None, reader=_npz.read) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataUnavailable) as caught:
        reader(path, limits)
    assert words in one_sentence(caught.value)
    assert sorted(path.parent.rglob("*")) == before


@pytest.fixture
def good():
    random = np.random.default_rng(1)
    return {"x": random.random((60, 3, 5, 4), dtype=np.float32), "y": np.arange(60) % 3}


# .npz


def test_what_is_missing_is_split_off_with_every_class_in_its_share_and_nothing_is_lost(tmp_path, good):
    np.savez(tmp_path / "a.npz", **good)
    found = _npz.read(tmp_path / "a.npz")
    sizes = [len(y) for _, y in (found.train, found.val, found.test)]
    assert sizes == [42, 6, 12]
    for _, y in (found.train, found.val, found.test):
        assert len(set(np.bincount(y, minlength=3))) == 1
    rows = {x.tobytes(): int(y) for part in (found.train, found.val, found.test) for x, y in zip(*part, strict=True)}
    assert rows == {x.tobytes(): int(y) for x, y in zip(good["x"], good["y"], strict=True)}
    assert len(found.said) == 2
    assert "6 samples (10% of each class" in found.said[0]
    again = _npz.read(tmp_path / "a.npz")
    assert all(
        np.array_equal(a[0], b[0]) for a, b in zip((found.train, found.val), (again.train, again.val), strict=True)
    )


def test_parts_that_are_given_are_kept_in_their_order(tmp_path, good):
    np.savez(
        tmp_path / "a.npz",
        **good,
        x_test=good["x"][:9] + 1,
        y_test=good["y"][:9],
        x_val=good["x"][:6] + 2,
        y_val=good["y"][:6],
    )
    found = _npz.read(tmp_path / "a.npz")
    assert np.array_equal(found.train[0], good["x"])
    assert np.array_equal(found.test[0], good["x"][:9] + 1)
    assert np.array_equal(found.val[0], good["x"][:6] + 2)
    assert found.said == ()


def test_bytes_are_scaled_and_channels_put_first_and_both_are_said(tmp_path):
    x = np.random.default_rng(2).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    found = _npz.read(tmp_path / "a.npz")
    assert found.shape == (3, 6, 5)
    assert found.train[0].dtype == np.float32
    together = np.concatenate([found.train[0], found.val[0], found.test[0]])
    assert together.max() == np.float32(x.max()) / 255
    assert {"Channels came last and are put first.", "Bytes (0 to 255) are scaled to 0 to 1."} <= set(found.said)


@pytest.mark.parametrize(
    ("shape", "dtype", "read_as"),
    [
        ((28, 28), np.float32, (1, 28, 28)),
        ((20, 24), np.uint8, (1, 20, 24)),
        ((8, 50), np.float32, (8, 50)),
        ((7,), np.float64, (7,)),
    ],
)
def test_rows_and_columns_are_images_only_where_they_are_square_or_bytes(tmp_path, shape, dtype, read_as):
    np.savez(tmp_path / "a.npz", x=np.ones((30, *shape), dtype), y=np.arange(30) % 3)
    assert _npz.read(tmp_path / "a.npz").shape == read_as


@pytest.mark.parametrize(
    ("y", "numbers", "classes"),
    [
        (np.array(["cat", "ant", "bee"] * 10), [2, 0, 1], ("ant", "bee", "cat")),
        (np.array([7, 3, 5] * 10), [2, 0, 1], ("3", "5", "7")),
        (np.eye(3)[[1, 0, 2] * 10], [1, 0, 2], ("0", "1", "2")),
        (np.array([1.0, 0.0, 2.0] * 10)[:, None], [1, 0, 2], ("0", "1", "2")),
    ],
)
def test_labels_in_any_form_are_the_same_classes(tmp_path, y, numbers, classes):
    x = np.arange(30, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    found = _npz.read(tmp_path / "a.npz")
    assert found.classes == classes
    for part in (found.train, found.val, found.test):
        for sample, label in zip(*part, strict=True):
            assert label == numbers[int(sample[0]) % 3]


def test_tokens_stay_whole_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(120).reshape(30, 4), y=np.arange(30) % 2)
    assert _npz.read(tmp_path / "a.npz").train[0].dtype == np.int64


BAD = {
    "no labels": ({"x": np.ones((9, 2))}, "must hold x and y"),
    "one class": ({"x": np.ones((9, 2)), "y": np.zeros(9, int)}, "training labels are the same class"),
    "NaN": ({"x": np.full((9, 2), np.nan), "y": np.arange(9) % 2}, "NaN or infinite"),
    "infinite": ({"x": np.full((9, 2), np.inf), "y": np.arange(9) % 2}, "18 of the 18 numbers"),
    "lengths": ({"x": np.ones((9, 2)), "y": np.arange(8) % 2}, "9 samples and y 8"),
    "flat": ({"x": np.ones(9), "y": np.arange(9) % 2}, "has shape [9]"),
    "empty": ({"x": np.ones((0, 2)), "y": np.zeros(0, int)}, "no samples"),
    "numbers as labels": ({"x": np.ones((9, 2)), "y": np.arange(9) / 2}, "no whole number"),
    "label NaN": ({"x": np.ones((9, 2)), "y": np.full(9, np.nan)}, "labels are NaN"),
    "labels of pixels": ({"x": np.ones((9, 2)), "y": np.ones((9, 3, 3), int)}, "labels have shape [9, 3, 3]"),
    "complex": ({"x": np.ones((9, 2), complex), "y": np.arange(9) % 2}, "complex128"),
    "too few to split": ({"x": np.ones((9, 2)), "y": np.array([0] * 8 + [1])}, "too few to split off"),
    "half a part": ({"x": np.ones((30, 2)), "y": np.arange(30) % 2, "x_test": np.ones((3, 2))}, "x_test and no y_test"),
    "other shapes": (
        {"x": np.ones((30, 2)), "y": np.arange(30) % 2, "x_test": np.ones((3, 5)), "y_test": np.zeros(3, int)},
        "in one shape",
    ),
    "names": ({"x": np.ones((30, 2)), "y": np.arange(30) % 2, "classes": np.array([1.5, 2.5])}, "list of 2 names"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_bad_arrays_are_refused_in_one_sentence(tmp_path, what):
    arrays, words = BAD[what]
    np.savez(tmp_path / "bad.npz", **arrays)
    refused(tmp_path / "bad.npz", words)


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "bad.npz", x=np.array([Trap()] * 4, dtype=object), y=np.arange(4) % 2)
    refused(tmp_path / "bad.npz", "would have to be unpickled")
    assert not (tmp_path / "sprung").exists()


def _npy(shape: tuple[int, ...], dtype=np.float32) -> bytes:
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return made.getvalue()


def test_ten_gigabytes_of_zeros_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as whole:
        whole.writestr("y.npy", _npy((2,), np.int64) + bytes(16))
        with whole.open("x.npy", "w", force_zip64=True) as file:
            file.write(_npy((10 * 2**30,), np.uint8))
            block = bytes(2**24)
            for _ in range(16):
                file.write(block)
    refused(path, "its bytes do not")  # it says more than there is
    refused(path, "unpacks to", WEB)  # 256 MB and a header are more than the web may send


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is no .npz"), (b"PK\x03\x04 cut short", "is no .npz"), (b"\x80\x04\x95pickle", "is no .npz")],
)
def test_what_is_no_npz_is_told(tmp_path, content, words):
    (tmp_path / "bad.npz").write_bytes(content)
    refused(tmp_path / "bad.npz", words)


def test_a_missing_file_and_a_damaged_one_are_told(tmp_path, good):
    with pytest.raises(DataUnavailable, match="is no file"):
        _npz.read(tmp_path / "none.npz")
    np.savez_compressed(tmp_path / "a.npz", **good)
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    whole[len(whole) // 3] ^= 255
    (tmp_path / "a.npz").write_bytes(whole)
    refused(tmp_path / "a.npz", "a.npz")


# images


def picture(path, size=(6, 5), mode="L", colour=100, **how) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **how)


def test_a_folder_of_images_is_read_as_pillow_reads_it(tmp_path):
    random = np.random.default_rng(3)
    pixels = {}
    for name in ("cats", "dogs"):
        for i in range(10):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            pixels[name, i] = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels[name, i]).save(path)
    (tmp_path / "dogs" / "notes.txt").write_text("no image")
    found = _images.read(tmp_path)
    assert found.classes == ("cats", "dogs")
    assert found.shape == (3, 5, 6)
    rows = {x.tobytes(): int(y) for part in (found.train, found.val, found.test) for x, y in zip(*part, strict=True)}
    wanted = {
        (np.ascontiguousarray(p.transpose(2, 0, 1)) / np.float32(255)).astype(np.float32).tobytes(): int(name == "dogs")
        for (name, _), p in pixels.items()
    }
    assert rows == wanted


def test_folders_of_train_and_test_are_parts(tmp_path):
    for part, count in (("train", 8), ("test", 3)):
        for name in ("a", "b"):
            for i in range(count):
                picture(tmp_path / part / name / f"{i}.png", colour=10 * i)
    found = _images.read(tmp_path)
    assert [len(y) for _, y in (found.train, found.val, found.test)] == [14, 2, 6]
    assert found.shape == (1, 5, 6)


def test_greys_among_colours_become_colours_and_it_is_said(tmp_path):
    for i in range(8):
        picture(tmp_path / "a" / f"{i}.png", mode="RGB", colour=(9, 8, i))
        picture(tmp_path / "b" / f"{i}.png", colour=50)
    found = _images.read(tmp_path)
    assert found.shape[0] == 3
    assert any("8 grey images among colours" in text for text in found.said)
    grey = found.train[0][found.train[1] == 1][0]
    assert np.array_equal(grey, np.full((3, 5, 6), 50 / 255, np.float32))


def test_an_image_is_turned_as_its_camera_says(tmp_path):
    rows = np.arange(30, dtype=np.uint8).reshape(5, 6)
    turned = Image.fromarray(rows)
    tags = turned.getexif()
    tags[0x0112] = 6  # to be shown a quarter clockwise
    for i in range(8):
        (tmp_path / "a").mkdir(exist_ok=True)
        turned.save(tmp_path / "a" / f"{i}.png", exif=tags)
        picture(tmp_path / "b" / f"{i}.png", size=(5, 6), colour=i)
    found = _images.read(tmp_path)
    assert found.shape == (1, 6, 5)
    own = found.train[0][found.train[1] == 0][0]
    assert np.array_equal(own[0], np.rot90(rows, -1) / np.float32(255))


def test_images_of_mixed_sizes_are_told_with_both(tmp_path):
    picture(tmp_path / "in" / "a" / "1.png")
    picture(tmp_path / "in" / "b" / "2.png", size=(7, 5))
    refused(tmp_path / "in", "a/1.png has 6 x 5 pixels and b/2.png 7 x 5", reader=_images.read)


@pytest.mark.parametrize(
    ("name", "content"), [("bad.png", b"no image"), ("bad.jpg", b"\x80\x04pickle"), ("bad.webp", b"")]
)
def test_what_is_no_image_is_told_by_its_name(tmp_path, name, content):
    picture(tmp_path / "in" / "a" / "1.png")
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "in" / "b" / name).write_bytes(content)
    refused(tmp_path / "in", f"b/{name} is no image", reader=_images.read)


def test_an_image_cut_short_is_told(tmp_path):
    for i in range(6):
        picture(tmp_path / "in" / "a" / f"{i}.png", size=(64, 64))
        picture(tmp_path / "in" / "b" / f"{i}.png", size=(64, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "b" / "6.png")
    whole = (tmp_path / "in" / "b" / "6.png").read_bytes()
    (tmp_path / "in" / "b" / "6.png").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "in", "6.png", reader=_images.read)


def test_one_folder_no_folder_and_too_many_are_told(tmp_path):
    picture(tmp_path / "one" / "a" / "1.png")
    refused(tmp_path / "one", "1 folder of images", reader=_images.read)
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no folders of images", reader=_images.read)
    for i in range(3):
        picture(tmp_path / "many" / "a" / f"{i}.png")
        picture(tmp_path / "many" / "b" / f"{i}.png")
    refused(tmp_path / "many", "at most 5 are read", Limits(files=5), reader=_images.read)
    refused(tmp_path / "many", "MB", Limits(bytes_in_all=100), reader=_images.read)


def test_an_image_of_a_billion_pixels_is_not_unpacked(tmp_path):
    picture(tmp_path / "in" / "a" / "1.png")
    (tmp_path / "in" / "b").mkdir()
    Image.new("1", (40_000, 30_000)).save(tmp_path / "in" / "b" / "2.png")
    refused(tmp_path / "in", "b/2.png", reader=_images.read)
