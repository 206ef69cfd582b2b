"""The three MONK's problems."""

from __future__ import annotations

import numpy as np

from pruneviz.basics.citation import Paper
from pruneviz.datasets.base import Arrays, DataCard, File, obtain

ORDER = 50
ATTRIBUTES = (3, 3, 2, 3, 4, 2)  # how many values each of the six has, counted from 1
_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/monks-problems/"

_THRUN = Paper(
    "thrun1991monks",
    "S. B. Thrun, J. Bala, E. Bloedorn, I. Bratko, B. Cestnik, J. Cheng, K. De Jong, S. Džeroski, S. E. Fahlman, D. Fisher, "
    "R. Hamann, K. Kaufman, S. Keller, I. Kononenko, J. Kreuziger, R. S. Michalski, T. Mitchell, P. Pachowicz, Y. Reich, "
    "H. Vafaie, W. Van de Welde, W. Wenzel, J. Wnek, J. Zhang",
    "The MONK's Problems: A Performance Comparison of Different Learning Algorithms",
    1991,
    "Technical report CMU-CS-91-197, Carnegie Mellon University",
    "https://archive.ics.uci.edu/dataset/70/monk+s+problems",
)


def parse(content: bytes) -> Arrays:
    """Lines ``class a1 a2 a3 a4 a5 a6 id``: x [n, 17], a one at the value of each attribute; y [n]."""
    table = np.array([line.split()[:-1] for line in content.decode().splitlines() if line.strip()], np.int64)
    codes = [np.eye(size, dtype=np.float32)[values - 1] for size, values in zip(ATTRIBUTES, table.T[1:], strict=True)]
    return np.concatenate(codes, 1), table[:, 0]


def _read(card: DataCard) -> tuple[Arrays, Arrays, Arrays]:
    train, test = (parse(obtain(card, file)) for file in card.files)
    return train, train, test


def _card(number: int, model: str, samples: int, train: str, test: str, rule: str) -> DataCard:
    key = f"monks-{number}"
    return DataCard(
        key=key,
        title=f"MONK's problem {number}",
        idea=f"{rule} {samples} training samples, too few to spare any: they are the validation set too.",
        shape=(sum(ATTRIBUTES),),
        classes=("no", "yes"),
        sizes=(samples, samples, 432),
        read=_read,
        licence="CC BY 4.0",
        source=_URL,
        epochs=200,
        tune_epochs=50,
        model=model,
        paper=_THRUN,
        folder="monks",
        megabytes=0.013,
        files=(File(f"{key}.train", f"{_URL}{key}.train", train), File(f"{key}.test", f"{_URL}{key}.test", test)),
    )


CARDS = (
    _card(
        1, "mlp-17-3-1", 124,
        "d9c328b6f0e095ab10f7bc8468f1d2141f3d08be73e665c3bf0a62994c922606",
        "e501ada3b21d876ab86f3e1614747bd2edc443a685f229a25e480aa1dea629f6",
        "Robots whose head and body have the same shape, or whose jacket is red.",
    ),
    _card(
        2, "mlp-17-2-1", 169,
        "7ebcc278005737caad0cd52e6aa31256a2c3174da8047faf4ac3a9d35edbdaa8",
        "945650affde377c27f6218c8b17893e339ea831f4bee9f9d7123020699cfbf40",
        "Robots of which exactly two of six attributes have their first value.",
    ),
    _card(
        3, "mlp-17-2-1", 122,
        "726f258f80be06af4bb2d8831789514a663f5813e47429211fe19dcd367966f8",
        "1d816ae7347afaf895050667adc3f382904c6ed2332d0a2d09353f5e6cb54612",
        "Robots with a sword and a green jacket, or neither a blue jacket nor an octagonal body; 6 training labels are wrong.",
    ),
)  # fmt: skip
