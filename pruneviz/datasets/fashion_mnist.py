"""Fashion-MNIST."""

from __future__ import annotations

from pruneviz.datasets._idx import read
from pruneviz.datasets.base import DataCard, File

ORDER = 30
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

CARDS = (
    DataCard(
        key="fashion-mnist",
        title="Fashion-MNIST",
        idea="70,000 grey pictures of clothes of 28 x 28 pixels: as small as MNIST, and harder.",
        shape=(1, 28, 28),
        classes=(
            "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
        ),
        sizes=(55_000, 5_000, 10_000),
        read=read,
        licence="MIT",
        source=_URL,
        epochs=6,
        tune_epochs=2,
        megabytes=30.9,
        folders=("/usr/share/datasets/fashion-mnist",),
        files=tuple(
            File(f"{name}.gz", f"{_URL}{name}.gz", sha256)
            for name, sha256 in (
                ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
                ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
                ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
                ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
            )
        ),
    ),
)  # fmt: skip
