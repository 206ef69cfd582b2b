"""MNIST."""

from __future__ import annotations

from pruneviz.datasets._idx import read
from pruneviz.datasets.base import DataCard, File

ORDER = 20
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

CARDS = (
    DataCard(
        key="mnist",
        title="MNIST",
        idea="70,000 handwritten digits of 28 x 28 pixels: the data of most pruning papers.",
        shape=(1, 28, 28),
        classes=tuple("0123456789"),
        sizes=(55_000, 5_000, 10_000),
        read=read,
        licence="CC BY-SA 3.0",
        source=_URL,
        epochs=6,
        tune_epochs=2,
        megabytes=11.6,
        files=tuple(
            File(f"{name}.gz", f"{_URL}{name}.gz", sha256)
            for name, sha256 in (
                ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
                ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
                ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
                ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
            )
        ),
    ),
)
