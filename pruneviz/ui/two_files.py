"""Two uploaded files of weights: their headers looked at first, and their comparison, in a process of its own where they are large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import streamlit as st

from pruneviz.basics.errors import InvalidSetting, PrunevizError, WorkerError
from pruneviz.basics.tensors import File
from pruneviz.difference import Diff, diff
from pruneviz.ui.server.uploads import place
from pruneviz.ui.stores import SHARED
from pruneviz.ui.text import plain

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

MEGABYTE = 2**20
MOST = 64 if SHARED else 450  # megabytes of one file
AT_ONCE, FEW = 64, 2000  # megabytes of both, and tensors, that are compared while the page waits
_KEPT = "two-files"
_PATH = str(Path(__file__).resolve().parents[2])  # where pruneviz is imported from


class Apart:
    """A comparison that goes on in another process; it ends, and its files go, with this object."""

    def __init__(self, files: list[File]):
        folder = TemporaryDirectory(prefix="pruneviz-diff-")
        self._folder = Path(folder.name)
        for name, file in zip(("before", "after"), files, strict=True):
            file.buffer.tofile(self._folder / name)
        paths = os.pathsep.join([_PATH, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pruneviz.difference", str(self._folder), *(file.name for file in files)],
            env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._finalizer = weakref.finalize(self, _end, self._process, folder)

    @property
    def progress(self) -> tuple[float, str]:
        """The share that is done, and what is looked at."""
        try:
            told = json.loads((self._folder / "progress.json").read_text(encoding="utf-8"))
        except OSError:
            return 0.0, "starting"
        return told["share"], told["what"]

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._process.poll() is not None

    def result(self) -> Diff:
        """What was found. Raises PrunevizError where nothing was, in its own words."""
        try:
            found = json.loads((self._folder / "found.json").read_text(encoding="utf-8"))
        except OSError:
            raise WorkerError(
                f"The comparison ended before its time (status {self._process.returncode}). Compare the files on the command line."
            ) from None
        finally:
            self._finalizer()
        if "error" in found:
            raise InvalidSetting(found["error"])
        return Diff.from_dict(found["diff"])


def _end(process: subprocess.Popen, folder: TemporaryDirectory) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    folder.cleanup()


def taken(label: str, key: str, hint: str) -> File | None:
    """A place to put a file, and the file once its header fits; what is wrong with it is said there."""
    uploaded = place(label, ["safetensors"], key=key, most=MOST, hint=hint)
    if uploaded is None:
        return None
    try:
        file = _file(uploaded)
    except PrunevizError as error:
        st.error(plain(error), icon=":material/error:")
        return None
    count = len(file.entries)
    st.caption(plain(f"{file.name}: {count:,} tensor{'s' if count != 1 else ''}, {_size(file)}."))
    return file


def _file(uploaded: UploadedFile) -> File:
    if uploaded.size > MOST * MEGABYTE:  # the browser was told, but need not listen
        raise InvalidSetting(
            f"{uploaded.name} is larger than {MOST} MB, the most that is taken here. Use the command line."
        )
    return File.of(uploaded.name, uploaded.getvalue())


def _size(file: File) -> str:
    size = file.buffer.size
    return f"{size / MEGABYTE:.1f} MB" if size >= MEGABYTE / 10 else f"{size / 1024:.1f} kB"


def compared(files: list[File], which: tuple[Any, ...]) -> Diff:
    """The comparison of two files, made once for ``which``. Where there is none (yet), it says so, and the page ends here."""
    kept = st.session_state.get(_KEPT)
    if kept is None or kept["which"] != which:
        large = sum(file.buffer.size for file in files) > AT_ONCE * MEGABYTE or len(files[0].entries) > FEW
        kept = {"which": which, "apart": Apart(files) if large else None, "found": None}
        if not large:
            with st.spinner("Comparing …"):
                kept["found"] = _caught(lambda: diff(*files))
        st.session_state[_KEPT] = kept
    if kept["apart"] is not None and kept["apart"].done:
        kept |= {"found": _caught(kept["apart"].result), "apart": None}
    if kept["apart"] is not None:
        _watch(kept["apart"])
        st.stop()
    if isinstance(kept["found"], str):
        st.error(plain(kept["found"]), icon=":material/error:")
        st.stop()
    return kept["found"]


def _caught(make: Any) -> Diff | str:
    try:
        return make()
    except PrunevizError as error:
        return str(error)


@st.fragment(run_every=0.5)
def _watch(apart: Apart) -> None:
    share, what = apart.progress
    st.progress(min(share, 1.0), plain(f"Comparing in a process of its own: {what}"))
    if apart.done:
        st.rerun()


def forget() -> None:
    """Let go of what was compared."""
    st.session_state.pop(_KEPT, None)
