"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from math import prod

import numpy as np

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets._pickled import parse
from pruneviz.datasets.base import Archive, Arrays, DataCard, members, split_off

ORDER = 35
_URL = "https://www.cs.toronto.edu/~kriz/"
_SHAPE = (3, 32, 32)
_HUNDRED = (
    "apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus, butterfly, "
    "camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, "
    "cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn "
    "mower, leopard, lion, lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange, "
    "orchid, otter, palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, "
    "raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, "
    "streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger, tractor, train, trout, tulip, "
    "turtle, wardrobe, whale, willow tree, wolf, woman, worm"
)

_KRIZHEVSKY = Paper(
    "krizhevsky2009learning",
    "Alex Krizhevsky",
    "Learning Multiple Layers of Features from Tiny Images",
    2009,
    "Technical report, University of Toronto",
    "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
)


def batch(content: bytes, name: str = "file") -> Arrays:
    """One published batch: x uint8 [n, 3072], red before green before blue, row by row; y int64 [n], the fine labels.

    Raises DataUnavailable, where it is another thing.
    """
    found = parse(content, name)
    found = found if isinstance(found, dict) else {}
    x, y = found.get(b"data"), found.get(b"labels", found.get(b"fine_labels"))
    if (
        not isinstance(x, np.ndarray) or x.shape[1:] != (prod(_SHAPE),)
        or not isinstance(y, list) or not all(type(label) is int for label in y) or len(x) != len(y)
    ):  # fmt: skip
        raise DataUnavailable(
            f"{name} is not a batch of CIFAR: it needs an image of 3,072 bytes and a label for each sample. "
            "Put the published file in its place."
        )
    return x, np.array(y, np.int64)


def _read(card: DataCard) -> tuple[Arrays, Arrays, Arrays]:
    """45,000 training, 5,000 validation and 10,000 test images; pixels in [0, 1]. The last member is the test set."""
    (archive,) = card.files
    assert isinstance(archive, Archive)
    *batches, test = (batch(content, member) for member, content in members(card, archive).items())
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    found, wanted = (len(x), len(test[0])), (sum(card.sizes[:2]), card.sizes[2])
    if found != wanted:
        raise DataUnavailable(
            f"{card.title}: expected {wanted[0]:,} training and {wanted[1]:,} test images; found {found[0]:,} and {found[1]:,}. "
            f"Put {archive.wanted} of {card.source} into {card.home}."
        )
    train, val = split_off(x, y, *card.sizes[:2])

    def pixels(x: np.ndarray, y: np.ndarray) -> Arrays:
        return np.divide(x, 255, dtype=np.float32), y

    return pixels(*train), pixels(*val), pixels(*test)


def _card(key: str, idea: str, classes: tuple[str, ...], megabytes: float, archive: Archive) -> DataCard:
    return DataCard(
        key=key,
        title=key.upper(),
        idea=idea,
        shape=_SHAPE,
        classes=classes,
        sizes=(45_000, 5_000, 10_000),
        read=_read,
        licence="none stated; its report is to be cited",
        source=f"{_URL}cifar.html",
        epochs=40,
        tune_epochs=10,
        model="resnet-20",
        paper=_KRIZHEVSKY,
        megabytes=megabytes,
        files=(archive,),
    )


CARDS = (
    _card(
        "cifar-10",
        "60,000 colour photographs of 32 x 32 pixels in ten classes: where filters are pruned from VGG and ResNet.",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        170.5,
        Archive(
            "cifar-10-python.tar.gz",
            f"{_URL}cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            (
                ("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
                ("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
                ("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
                ("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
                ("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
                ("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
            ),
        ),
    ),
    _card(
        "cifar-100",
        "60,000 colour photographs of 32 x 32 pixels in a hundred classes: 450 to learn each from.",
        tuple(_HUNDRED.split(", ")),
        169.0,
        Archive(
            "cifar-100-python.tar.gz",
            f"{_URL}cifar-100-python.tar.gz",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            (
                ("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
                ("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
            ),
        ),
    ),
)
