"""What an array that a probe writes is: fields with dtype and shape, a name, and one way to write and read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

from pruneviz.basics.errors import StoreError
from pruneviz.records.about import plain_text
from pruneviz.records.stages import Stage

Arrays = dict[str, np.ndarray]


def array(dtype: str, *shape: str | int, optional: bool = False) -> Any:
    """A field that is one array; ``shape`` names its sides, and equal names are equal lengths ("layers": their number)."""
    metadata = {"dtype": dtype, "shape": shape}
    return field(metadata=metadata, default=None) if optional else field(metadata=metadata)


def number(dtype: str) -> Any:
    """A field that is one number, kept as an array [1]."""
    return field(metadata={"dtype": dtype, "shape": None})


def each(dtype: str, sides: int) -> Any:
    """A field with an array of so many ``sides`` for each layer, or None where a layer has none: kept as name0, name1, …"""
    return field(metadata={"dtype": dtype, "sides": sides})


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """The arrays of one probe at one moment; ``layers`` are the names along their first side, or of the numbered arrays."""

    prefix: ClassVar[str]
    stages: ClassVar[tuple[Stage | None, ...]] = (None,)  # at which it is recorded; None: once for each sparsity
    layers: tuple[str, ...]

    @classmethod
    def name(cls, sparsity: float | None = None, stage: Stage | None = None) -> str:
        """Its name in a run: ``saliency-0.9``, ``spectra-start``, ``spectra-tuned-0.9``."""
        stage = cls.stages[0] if stage is None else stage
        if stage in (Stage.START, Stage.DENSE):
            return f"{cls.prefix}-{stage}"
        assert sparsity is not None
        return f"{cls.prefix}-{sparsity:g}" if stage is None else f"{cls.prefix}-{stage}-{sparsity:g}"

    @classmethod
    def sparsities(cls, names: Iterable[str], stage: Stage | None = None) -> list[float]:
        """The sparsities at which these names hold it, rising."""
        head = cls.name(0, stage).removesuffix("0")
        rest = [name.removeprefix(head) for name in names if name.startswith(head)]
        return sorted(float(text) for text in rest if _is_number(text))

    def write(self) -> tuple[Arrays, dict[str, str]]:
        """Plain arrays by name, and the layers as metadata. Raises TypeError where a field has another shape than declared."""
        found: Arrays = {}
        sides: dict[str, int] = {"layers": len(self.layers)}
        for f in fields(self)[1:]:
            value, dtype = getattr(self, f.name), f.metadata["dtype"]
            if "sides" in f.metadata:
                if len(value) != len(self.layers):
                    raise TypeError(
                        f"{type(self).__name__}.{f.name}: {len(value)} arrays for {len(self.layers)} layers"
                    )
                parts = {f"{f.name}{i}": np.asarray(v, dtype) for i, v in enumerate(value) if v is not None}
                wrong = [name for name, v in parts.items() if v.ndim != f.metadata["sides"]]
                if wrong:
                    raise TypeError(f"{type(self).__name__}.{wrong[0]}: shape {parts[wrong[0]].shape}")
                found |= parts
            elif f.metadata["shape"] is None:
                found[f.name] = np.array([value], dtype)
            elif value is not None:
                found[f.name] = made = np.asarray(value, dtype)
                wanted = f.metadata["shape"]
                agree = made.ndim == len(wanted) and all(
                    (side if isinstance(side, int) else sides.setdefault(side, n)) == n
                    for side, n in zip(wanted, made.shape, strict=True)
                )
                if not agree:
                    raise TypeError(f"{type(self).__name__}.{f.name}: shape {made.shape}, declared {wanted}")
        return found, {"layers": "\n".join(self.layers)}

    @classmethod
    def read(cls, arrays: Mapping[str, np.ndarray], layers: Iterable[str]) -> Self:
        """The inverse of :meth:`write`; names of layers are a stranger's words. Raises StoreError where an array is missing."""
        layers, found = tuple(map(plain_text, layers)), {}
        for f in fields(cls)[1:]:
            if "sides" in f.metadata:
                found[f.name] = tuple(arrays.get(f"{f.name}{i}") for i in range(len(layers)))
            elif f.name in arrays:
                found[f.name] = arrays[f.name] if f.metadata["shape"] is not None else arrays[f.name].item()
            elif f.metadata["shape"] is None or f.default is not None:
                raise StoreError(f"The recorded {cls.prefix} lack {f.name!r}. Delete the run and run it again.")
        return cls(layers=layers, **found)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
