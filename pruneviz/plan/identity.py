"""What a run's id follows from, written down beside the run, so that it can be checked whatever later defaults are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pruneviz.basics.errors import PrunevizError, StoreError, UnknownName
from pruneviz.basics.reference import name_in_ids
from pruneviz.plan.config import RunConfig

# Of the runs whose ids hashed the whole configuration: the loop's schema, and what the cards said then
_FIRST = 3
_SCHEMAS = {"obd": 2, "kron-obd": 2, "kron-obs": 2, "eigendamage": 2}
_DATA = {
    "digits": "eb6be5f0b448c19e98187453e7609ebc7dedd1163e7c2b1ab2a4da8717c3c92b",
    "mnist": "cad9333f6df74eb2d53121845243b65ea62b350d97e39161a5bb89763c380743",
    "fashion-mnist": "ca21b402df5fae4132e7fe31c3c0902bddabd14958f09d9df4c0a1d40e61d20f",
    "cifar-10": "f3e8aabaa4af3dfe2daae3b2de3d5e0642d53b38cb90c53f2bfe5fd687d0dc35",
    "cifar-100": "fef0da154171c0faaf4790b2adb9347cadd655e3a568b5221ad7ea0bf68ef556",
    "mnist-1d": "2c33663695d3a418d4cfb53b6e8ca20bd33b233d1cabf5e03d5351d140dca2a6",
    "monks-1": "8a5b3082d64f929f07594b3df0f89aa7bfa30d5c237c0f0901d62a9e5ac2637b",
    "monks-2": "b043d51171f01e24d41ce998cc859a3e23390fa338e7654cd4de9f062c5b4249",
    "monks-3": "716a541e23b4b509bd4ab4225ca0d14e9fab49e7a58e3c1648994960ae43b94a",
    "xor": "1b6be89a2f9e083beae29e4ad80694343baacdd5177a4570ac7e1aede4283b48",
}


def identity(config: RunConfig) -> dict[str, Any]:
    """What the id hashes: all that was said, the digest of the data, and the schemas of loop, network and method."""
    data, schemas = config.stands_on
    return {"given": json.loads(config.canonical), "data": data, "schemas": list(schemas)}


def first_id(values: Mapping[str, Any]) -> str | None:
    """The id of a configuration as runs of the first format had it; None where that format knew no such data."""
    method, dataset = str(values.get("method")), str(values.get("dataset"))
    if dataset not in _DATA:
        return None
    whole = json.dumps({k: v for k, v in values.items() if k != "note"}, sort_keys=True, separators=(",", ":"))
    parts = [whole, _DATA[dataset], str((_FIRST, 1, _SCHEMAS.get(method, 1)))]
    return f"{_name(values)}-{_hash(parts)}"


def check(id_: str, values: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> None:
    """Raises StoreError where a run's id is not that of its configuration ``values``; ``recorded``: its :func:`identity`, None
    of a run of the first format."""
    if not id_.startswith(_name(values) + "-") or not (
        _first(id_, values) if recorded is None else _follows(id_, values, recorded)
    ):
        raise StoreError(
            f"{id_} is not the id of the configuration beside it: one of them was changed. Export the run again."
        )


def _first(id_: str, values: Mapping[str, Any]) -> bool:
    """Whether an id is the one that the first format gave; of a method, network or data not known here nobody can say."""
    try:
        RunConfig(**values)
    except UnknownName:
        return True
    except (PrunevizError, TypeError):
        pass
    return id_ == first_id(values)


def _follows(id_: str, values: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    """Whether an id follows from what was recorded, and that from the configuration: where this version would record the same,
    nothing else may stand in it either."""
    try:
        config = RunConfig(**values)
        today = identity(config)
    except (PrunevizError, TypeError):
        return id_ == _recorded_id(values, recorded)
    if isinstance(recorded, dict) and all(recorded.get(key) == today[key] for key in ("data", "schemas")):
        return id_ == config.id and recorded == today
    return id_ == _recorded_id(values, recorded)


def _recorded_id(values: Mapping[str, Any], recorded: Mapping[str, Any]) -> str | None:
    """The id that follows from what was recorded, where that says no other thing than the configuration."""
    match recorded:
        case {"given": dict(given), "data": str(data), "schemas": list(schemas)}:
            if not {"method", "model", "dataset", "seed"} <= set(given) or not _agrees(given, values):
                return None
            text = json.dumps(given, sort_keys=True, separators=(",", ":"))
            return f"{_name(values)}-{_hash([text, data, str(tuple(schemas))])}"
    return None


def _agrees(given: Any, values: Any) -> bool:
    """Whether all that was said stands in the configuration."""
    if isinstance(given, dict):
        return isinstance(values, Mapping) and all(k in values and _agrees(v, values[k]) for k, v in given.items())
    return given == values


def _name(values: Mapping[str, Any]) -> str:
    try:
        return "-".join(
            [str(values.get("method")), *(name_in_ids(str(values.get(key))) for key in ("model", "dataset"))]
        )
    except PrunevizError:
        return "-"


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
