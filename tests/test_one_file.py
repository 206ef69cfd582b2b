"""CONTRIBUTING says that a thing is one file. Here each is added to a copy of the package, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pruneviz

NEW = {
    "curvature/input_peaks.py": '''
from dataclasses import dataclass
from typing import ClassVar
from pruneviz.curvature.layers import Gatherer
from pruneviz.curvature.statistic import Statistic

@dataclass(frozen=True)
class InputPeaks(Statistic):
    """The largest size of what each weight is multiplied with."""
    gathered_by: ClassVar = "pruneviz.curvature.input_peaks:Peaks"

class Peaks(Gatherer):
    def __init__(self, wanted, model):
        self._found = {}
    def inputs(self, recorder, name, x):
        peaks = x.detach().abs().flatten(0, -2).amax(0)
        self._found[name] = peaks.maximum(self._found[name]) if name in self._found else peaks
    def found(self, seen):
        return self._found
''',
    "methods/peaks.py": '''
from typing import ClassVar
from pruneviz.methods.base import Card, Method, Start

class Peaks(Method):
    """Size times the largest input that it meets."""
    card: ClassVar = Card(key="peaks", title="Peaks", idea="A weight that meets large inputs stays.", formula="s = |w| x",
                          criterion="a word that nobody knows", starts=Start.INIT)
    def needs(self):
        from pruneviz.curvature.input_peaks import InputPeaks  # brings torch
        return (InputPeaks(),)
    def score(self, model, task, mask):
        from pruneviz.units.masks import Scores
        peaks, params = task.statistic(model, self.needs()[0]), dict(model.named_parameters())
        return Scores.of_weights({n: params[n].abs() * peaks[n] for n in mask})
''',
    "models/thin.py": '''
from math import prod
from pruneviz.models.base import ModelCard

def _build(shape, classes):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 6), nn.Tanh(), nn.Linear(6, classes))

CARDS = (ModelCard("thin", "Thin", "Six hidden units.", "6 hidden units, tanh", _build),)
''',
    "datasets/signs.py": '''
import numpy as np
from pruneviz.datasets.base import DataCard

def _read(card):
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    part = (x, (x[:, 0] > 0).astype(np.int64))
    return part, part, part

CARDS = (DataCard(key="signs", title="Signs", idea="Is the first number positive?", shape=(3,), classes=("no", "yes"),
                  sizes=(40, 40, 40), read=_read, licence="none needed", source="NumPy", epochs=5, tune_epochs=2,
                  model="thin", content="1"),)
''',
    "figures/sizes.py": '''
import pandas as pd
import plotly.graph_objects as go
from pruneviz.figures import base
from pruneviz.records.arrays import Saliency

def data(runs):
    return pd.DataFrame([{"run": run.id, "units": int(run.read(Saliency, s).sizes.sum())} for run in runs for s in run.at(Saliency)])

def plot(table):
    return base.finish(go.Figure(go.Bar(x=table["run"], y=table["units"])), "Sizes", "How many units each run has.")

FIGURE = base.Figure("sizes", "Sizes", "Units of each run.", "n", data, plot)
''',
}  # fmt: skip
ASK = """
import json, sys, tempfile
import pruneviz as pv
assert "torch" not in sys.modules
mine = pv.METHODS["peaks"]
others = [card for key, card in pv.METHODS.items() if key != "peaks"]
config = pv.RunConfig(dataset="signs", method="peaks", sparsities=(0.25, 0.5))
from pruneviz.jobs import backend
def main():
    store = pv.Store(tempfile.mkdtemp(), samples=None)
    ids = store.queue([config])
    backend(store).carry_out(ids, device="cpu", on_event=lambda event: None)
    run = store.run(ids[0])
    chart = pv.figures.FIGURES["sizes"]([run])
    print(json.dumps({"model": config.model, "state": run.state, "error": run.row["error"], "units": int(chart.data[0].y[0]),
                      "free": mine.colour not in {c.colour for c in others} and mine.mark not in {c.mark for c in others},
                      "title": run.about.method, "reached": sorted(run.metrics.query("metric == 'reached' and stage == 'tuned'").value)}))
if __name__ == "__main__":
    main()
"""


def test_a_method_a_statistic_a_network_a_data_set_and_a_figure_are_one_file_each(tmp_path):
    package = Path(pruneviz.__file__).parent
    shutil.copytree(package, tmp_path / "pruneviz", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in NEW.items():
        path = tmp_path / "pruneviz" / name
        assert not path.exists()
        path.write_text(text)
    (tmp_path / "ask.py").write_text(ASK)
    done = subprocess.run([sys.executable, "ask.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        "model": "thin", "state": "succeeded", "error": "", "units": 30, "free": True, "title": "Peaks",
        "reached": [8 / 30, 15 / 30],
    }  # fmt: skip
    listed = subprocess.run(
        [sys.executable, "-m", "pruneviz", "methods"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "meets large inputs" in " ".join(listed.stdout.split())
