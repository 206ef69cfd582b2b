"""Networks of other libraries, imported only when they are asked for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from pruneviz.basics.errors import DataUnavailable, Unsuitable

_MEND = {
    "transformers": "pip install transformers",
    "timm": "pip install timm",
    "torchvision": "pip install torchvision, the build that goes with this torch",
}
_TASKS = ("ForSequenceClassification", "ForImageClassification", "ForAudioClassification")


class Logits(nn.Module):
    """A network of ``transformers`` that gives its logits [n, classes] alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).logits


def library(name: str) -> ModuleType:
    """A library, imported. Raises DataUnavailable, naming what is missing, where it is not here or does not start."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        raise DataUnavailable(
            f"{name} cannot be imported: there is no {missing} here. Install it: {_MEND[name]}."
        ) from None
    except (ImportError, RuntimeError, AttributeError) as error:
        said = (str(error).splitlines() or [""])[0][:160]
        raise DataUnavailable(
            f"{name} is installed and cannot be imported ({said}). Install it anew: {_MEND[name]}."
        ) from None


def from_library(text: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """``timm:NAME`` or ``torchvision:NAME`` with fresh weights, for so many classes. Raises DataUnavailable, Unsuitable."""
    name, _, key = text.partition(":")
    module = library(name)
    try:
        if name == "timm":
            return module.create_model(key, pretrained=False, num_classes=classes, in_chans=shape[0])
        return library("torchvision").models.get_model(key, weights=None, num_classes=classes)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise Unsuitable(
            f"{text} cannot be built ({said}). Look up its name in {name}, or write file:PATH.py:NAME."
        ) from None


def from_transformers(text: str, folder: Path | None, *, trained: bool) -> nn.Module:
    """The network for classification that a folder describes, with its weights or with fresh ones; none of its own code runs.

    Raises DataUnavailable, Unsuitable.
    """
    transformers: Any = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        (name, *_) = config.architectures or ["none"]
        if not name.endswith(_TASKS) or not hasattr(transformers, name):
            raise Unsuitable(
                f"{text} holds {name}, and runs need a network for classification, e.g. BertForSequenceClassification."
            )
        kind = getattr(transformers, name)
        if not trained:
            return Logits(kind(config)).float()
        return Logits(kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)).float()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise DataUnavailable(
            f"{text} is no folder that transformers can open ({said}). Save one by save_pretrained."
        ) from None


def _transformers() -> ModuleType:
    """``transformers``, without torchvision where that is installed and does not start."""
    if "torchvision" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except ModuleNotFoundError:
            pass
        except (ImportError, RuntimeError, AttributeError):
            sys.modules["torchvision"] = None  # type: ignore[assignment]
    return library("transformers")
