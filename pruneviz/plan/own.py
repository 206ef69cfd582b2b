"""What a run stands on that is not registered: one's own network, weights and data, found once and told by its content.

A configuration carries the text of each reference, a digest of its content, the facts that follow from it (shape, classes,
sizes) and its place on this machine. Places are in no id, and leave with no export.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruneviz.basics.errors import InvalidSetting
from pruneviz.basics.reference import Kind, Reference, found, is_reference, portable
from pruneviz.datasets import DATASETS
from pruneviz.datasets._given import Found
from pruneviz.datasets._own import card_of, facts_of, read_own
from pruneviz.datasets.base import DataCard
from pruneviz.models import MODELS
from pruneviz.models.base import ModelCard

FIELDS = ("model", "dataset", "weights", "initial")
_NETWORKS = {Kind.FILE, Kind.MODULE, Kind.TRANSFORMERS, Kind.LIBRARY, Kind.OBJECT}
_KINDS = {
    "model": _NETWORKS,
    "dataset": {Kind.ARRAYS, Kind.IMAGES, Kind.FILE, Kind.MODULE, Kind.OBJECT},
    "weights": {Kind.WEIGHTS, Kind.OBJECT, Kind.TRANSFORMERS},
    "initial": {Kind.WEIGHTS, Kind.OBJECT},
}
_WANTED = {
    "model": "a network is a registered key, file:PATH.py:NAME, PACKAGE.MODULE:NAME, transformers:FOLDER, timm:NAME or torchvision:NAME",
    "dataset": "data are a registered key, a file .npz, a folder with one folder of images for each class, or file:PATH.py:NAME",
    "weights": "weights are a file .safetensors (or .pt, on the command line)",
    "initial": "initial weights are a file .safetensors (or .pt, on the command line)",
}


def own(field: str, text: Any) -> bool:
    """Whether a setting is a reference and not a registered key."""
    if not isinstance(text, str) or not text:
        return False
    if field in ("weights", "initial"):
        return True
    known = MODELS if field == "model" else DATASETS
    return text not in known and (is_reference(text) or (field == "dataset" and Path(text).expanduser().is_dir()))


def references(values: Mapping[str, Any]) -> dict[str, Reference]:
    """Field -> reference of everything in settings that is one; without places."""
    return {name: portable(values[name]) for name in FIELDS if own(name, values.get(name))}


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose references are all found: portable texts, with their content, facts and places beside them.

    What is digested already stays as it was recorded. Runs nobody's code: facts of data that code makes must be there.
    Raises InvalidSetting, DataUnavailable.
    """
    values = dict(values)
    beside = {name: dict(values.get(name) or {}) for name in ("content", "facts", "places")}
    for field in FIELDS:
        if not own(field, values.get(field)) or field in beside["content"]:
            continue
        at = found(values[field])
        if at.kind not in _KINDS[field]:
            raise InvalidSetting(f"{values[field]!r} is no {field} that is known here: {_WANTED[field]}.")
        values[field], beside["content"][field] = at.text, at.digest()
        if at.place is not None:
            beside["places"][field] = str(at.place)
        if field == "dataset" and "dataset" not in beside["facts"]:
            beside["facts"]["dataset"] = facts_of(read_given(at))
        if at.kind is Kind.TRANSFORMERS and field == "model" and not values.get("weights"):
            values["weights"], beside["content"]["weights"] = (
                at.text,
                beside["content"]["model"],
            )  # its folder holds both
            beside["places"]["weights"] = str(at.place)
    values |= {name: given for name, given in beside.items() if given}
    return values


def code_of(config: Any) -> dict[str, str]:
    """Digest -> reference of everything that opening a configuration would run."""
    return {
        config.content.get(name, ""): at.text
        for name, at in references({field: getattr(config, field) for field in FIELDS}).items()
        if at.runs_code
    }


def made_elsewhere(config: Any) -> bool:
    """Whether it stands on objects of a Python process."""
    found = references({field: getattr(config, field) for field in FIELDS})
    return any(at.kind is Kind.OBJECT for at in found.values())


def read_given(at: Reference) -> Found:
    """Own data from files. Raises InvalidSetting where only running code would tell."""
    if at.kind not in (Kind.ARRAYS, Kind.IMAGES):
        raise InvalidSetting(
            f"{at.text!r} is code, which a configuration does not run. Ask for it on the command line (--data), or through pv.explore."
        )
    assert at.place is not None
    path = at.place
    newest = path.stat() if path.is_file() else None
    return _read(path, newest and (newest.st_mtime_ns, newest.st_size)) if newest else read_own(path)


@lru_cache(maxsize=2)
def _read(path: Path, _: Any) -> Found:
    return read_own(path)


def network_card(model: str, facts: Mapping[str, Any]) -> ModelCard:
    """The card of a registered network, or of one's own. Raises UnknownName."""
    if not own("model", model):
        return MODELS[model]
    from pruneviz.models._own import card_of as network_of

    return network_of(portable(model), facts.get("model") or {})


def data_card(dataset: str, facts: Mapping[str, Any], content: Mapping[str, str]) -> DataCard:
    """The card of registered data, or of one's own. Raises UnknownName, InvalidSetting."""
    if not own("dataset", dataset):
        return DATASETS[dataset]
    try:
        return card_of(portable(dataset), facts["dataset"], content.get("dataset", ""))
    except (KeyError, TypeError, ValueError):
        raise InvalidSetting(f"Nothing is known of the data {dataset!r}: name them again by --data.") from None
