"""Samples from a folder with one folder of images for each class, or from train/, val/ and test/ with such folders in each."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets._given import Found, Limits, Part, completed

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_PARTS = ("train", "val", "test")
_PIXELS = 50_000_000


def read(folder: Path | str, limits: Limits | None = None) -> Found:
    """Own images, 0 to 1, [n, 1 or 3, rows, columns]; classes are the folders' names in order. Raises DataUnavailable."""
    folder, limits = Path(folder), limits or Limits()
    inside = _folders(folder)
    split = "train" in [path.name for path in inside]
    roots = {name: folder / name for name in _PARTS if (folder / name).is_dir()} if split else {"train": folder}
    classes = tuple(dict.fromkeys(path.name for root in roots.values() for path in _folders(root)))
    if len(classes) < 2:
        raise DataUnavailable(
            f"{folder.name}/ holds {len(classes) or 'no'} {'folder' if len(classes) == 1 else 'folders'} of images. "
            "Give one folder for each class, at least two."
        )
    said: list[str] = []
    sets = {name: _listed(root, classes) for name, root in roots.items()}
    files = [path for found in sets.values() for path, _ in found]
    if len(files) > limits.files:
        raise DataUnavailable(f"{folder.name}/ holds {len(files):,} images; at most {limits.files:,} are read.")
    total = sum(path.stat().st_size for path in files)
    if total > limits.bytes_in_all:
        raise DataUnavailable(
            f"{folder.name}/ holds {total / 2**20:,.0f} MB of images; at most {limits.bytes_in_all / 2**20:,.0f} MB are read."
        )
    if not files:
        raise DataUnavailable(
            f"{folder.name}/ holds no images ({', '.join(ENDINGS)}). Give one folder of them for each class."
        )
    colours, size = _looked(folder, files)
    held = int(len(files) * size[0] * size[1] * (3 if any(colours.values()) else 1) * 4)
    if held > limits.bytes_in_all:
        raise DataUnavailable(
            f"{folder.name}/ takes {held / 2**20:,.0f} MB once read; at most {limits.bytes_in_all / 2**20:,.0f} MB are."
        )
    coloured = any(colours.values())
    if coloured and not all(colours.values()):
        said.append(f"{sum(not c for c in colours.values())} grey images among colours are read as colours.")
    said.append("Bytes (0 to 255) are scaled to 0 to 1.")
    parts: dict[str, Part] = {
        name: (
            np.stack([_pixels(path, coloured) for path, _ in found])
            if found
            else np.empty((0, 3 if coloured else 1, size[1], size[0]), np.float32),
            np.array([label for _, label in found], np.int64),
        )
        for name, found in sets.items()
    }
    return completed(f"{folder.name}/", parts, classes, said)


def _folders(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataUnavailable(f"The folder {folder} cannot be read ({error.strerror}). Allow it to be read.") from None
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _listed(root: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image with its class, in the order of their names."""
    return [
        (path, classes.index(place.name))
        for place in _folders(root)
        for path in sorted(place.iterdir())
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file() and not path.is_symlink()
    ]


def _looked(folder: Path, files: list[Path]) -> tuple[dict[Path, bool], tuple[int, int]]:
    """Whether each image has colours, and the size that all have: told from their headers."""
    from PIL import Image, UnidentifiedImageError

    colours: dict[Path, bool] = {}
    sizes: dict[tuple[int, int], Path] = {}
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=_FORMATS) as image:
                    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                    (columns, rows), mode = image.size, image.mode
                    size = (rows, columns) if turned else (columns, rows)
                    palette = image.getpalette() if mode == "P" else None
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataUnavailable(
                f"{path.relative_to(folder)} is no image that can be read ({_short(error)}). Replace it."
            ) from None
        if size[0] * size[1] > _PIXELS:
            raise DataUnavailable(
                f"{path.relative_to(folder)} has {size[0]:,} x {size[1]:,} pixels; at most {_PIXELS:,} are read. Make it smaller."
            )
        grey = mode in ("1", "L", "LA", "I", "I;16", "F") or (
            palette is not None and palette[0::3] == palette[1::3] == palette[2::3]
        )
        colours[path] = not grey
        sizes.setdefault(size, path)
        if len(sizes) > 1:
            (a, first), (b, second) = list(sizes.items())[:2]
            raise DataUnavailable(
                f"{first.relative_to(folder)} has {a[0]} x {a[1]} pixels and {second.relative_to(folder)} {b[0]} x {b[1]}. Make all images "
                "of one size first."
            )
    return colours, next(iter(sizes))


def _pixels(path: Path, coloured: bool) -> np.ndarray:
    """One image [channels, rows, columns] from 0 to 1: turned as its camera says, transparent parts on black."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_FORMATS) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode in ("I", "I;16", "F"):
                grey = np.asarray(image, np.float32) / np.float32(65535)
                return np.repeat(grey[None], 3, 0) if coloured else grey[None]
            if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            pixels = np.asarray(image.convert("RGB" if coloured else "L"), np.float32) / np.float32(255)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataUnavailable(f"{path.name} is cut short or damaged ({_short(error)}). Replace it.") from None
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if coloured else pixels[None]


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
