"""MNIST-1D: ten digits drawn as curves of 40 points, made by the authors' own package."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets.base import Arrays, DataCard, split_off

ORDER = 40


@cache
def _made() -> tuple[Arrays, Arrays]:
    """The package's training and test part; it seeds the global generators, so their state is put back."""
    import random

    from mnist1d.data import get_dataset_args, make_dataset

    drawn, drawn_by_numpy = random.getstate(), np.random.get_state()
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)
    return (made["x"], made["y"]), (made["x_test"], made["y_test"])


def content(*parts: Arrays) -> str:
    """sha256 of the values in whole thousandths and of the labels.

    No value lies within 1e-9 of where its rounding changes, and versions of NumPy differ by some 1e-14.
    """
    digest = hashlib.sha256()
    for x, y in parts:
        digest.update(np.rint(x * 1000).astype("<i2").tobytes() + y.astype(np.uint8).tobytes())
    return digest.hexdigest()


def _read(card: DataCard) -> tuple[Arrays, Arrays, Arrays]:
    made, test = _made()
    if content(made, test) != card.content:
        raise DataUnavailable(
            "The samples that the installed package mnist1d makes are not the published ones. "
            "Install the version that requirements.txt names."
        )
    train, val = split_off(*made, *card.sizes[:2])
    return train, val, test


CARDS = (
    DataCard(
        key="mnist-1d",
        title="MNIST-1D",
        idea="5,000 curves of 40 points, shaped like digits: as telling as MNIST at a hundredth of the cost.",
        shape=(40,),
        classes=tuple("0123456789"),
        sizes=(3600, 400, 1000),
        read=_read,
        licence="Apache 2.0",
        source="https://github.com/greydanus/mnist1d",
        epochs=30,
        tune_epochs=10,
        model="mlp-1d",
        paper=Paper(
            "greydanus2024scaling",
            "Sam Greydanus, Dmitry Kobak",
            "Scaling Down Deep Learning with MNIST-1D",
            2024,
            "International Conference on Machine Learning",
            "https://proceedings.mlr.press/v235/greydanus24a.html",
        ),
        content="2fd3750d013395c59cf3ae1b32dfb4791e052cdfa9c0e7ac02bd4bf5fe9885df",
    ),
)
