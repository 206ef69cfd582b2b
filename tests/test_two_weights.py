"""One neuron with two weights: everything exact, and what the Methods page shows of it."""

import numpy as np
import pytest

from pruneviz.figures import two_weights
from pruneviz.figures._neuron import Neuron

CASES = [Neuron(r, s) for r in (-0.9, 0.0, 0.8, 0.95) for s in (0.3, 1.0, 3.0)]


@pytest.mark.parametrize("neuron", CASES)
def test_the_trained_weights_are_the_minimum_and_the_curvature_is_its_second_derivative(neuron: Neuron):
    w, step = neuron.trained, 1e-4
    assert np.abs(neuron.slope(w)).max() < 1e-12
    eye = step * np.eye(2)
    slopes = np.stack([(neuron.slope(w + e) - neuron.slope(w - e)) / (2 * step) for e in eye])
    assert np.allclose(neuron.curvature(w), slopes, rtol=1e-5)
    losses = [(neuron.loss(w + e) - neuron.loss(w - e)) / (2 * step) for e in eye]
    assert np.allclose(losses, neuron.slope(w), atol=1e-7)


@pytest.mark.parametrize("neuron", CASES)
def test_each_method_does_what_its_paper_says(neuron: Neuron):
    w, H, found = neuron.trained, neuron.curvature(neuron.trained), neuron.removals()
    assert found["magnitude"].removed == np.argmin(np.abs(w))
    assert found["magnitude"].predicted is None
    q = found["obd"].removed
    assert found["obd"].predicted == pytest.approx(min(H[i, i] * w[i] ** 2 / 2 for i in (0, 1)))
    assert found["obd"].end.tolist() == [0 if i == q else w[i] for i in (0, 1)]
    # OBS: the least of the quadratic model on the axis where the weight is gone
    q, end = found["obs"].removed, found["obs"].end
    at = np.linspace(end[1 - q] - 1, end[1 - q] + 1, 2001)
    away = np.zeros((2001, 2)) - w
    away[:, 1 - q] += at
    model = np.einsum("ni,ij,nj->n", away, H, away) / 2
    assert at[model.argmin()] == pytest.approx(end[1 - q], abs=2e-3)
    assert found["obs"].predicted == pytest.approx(model.min(), rel=1e-5)
    for removal in found.values():
        assert removal.end[removal.removed] == 0
        assert removal.real == pytest.approx(float(neuron.loss(removal.end) - neuron.loss(w)))
        assert removal.real > 0


def test_inputs_that_go_together_make_the_others_help_and_apart_they_do_not():
    together, apart = Neuron(0.95).removals(), Neuron(0.0).removals()
    assert together["obs"].real < 0.35 * together["obd"].real
    assert apart["obs"].real == pytest.approx(apart["obd"].real, rel=0.15)


def test_magnitude_is_fooled_by_the_size_of_an_input_and_curvature_is_not():
    small = Neuron(0.0, size=0.3).removals()
    assert (small["magnitude"].removed, small["obd"].removed) == (0, 1)
    assert small["magnitude"].real > 1.5 * small["obd"].real


@pytest.mark.parametrize("neuron", [Neuron(), Neuron(-0.9, 3.0)])
def test_the_figure_draws_the_paths_and_both_climbs(neuron: Neuron):
    table = two_weights.data(neuron)
    assert list(table.columns) == two_weights.COLUMNS
    surface = table[table["kind"] == "surface"]
    assert len(surface) == two_weights.SIDE**2 <= 512
    assert np.allclose(surface["real"], neuron.loss(surface[["w1", "w2"]].to_numpy()) - neuron.loss(neuron.trained))
    fig = two_weights.plot(table)
    ends = table[table["kind"] == "removal"].set_index("method")
    for trace in fig.data:
        if trace.type == "scatter" and trace.name:
            key = {name: key for key, name in two_weights.NAMES.items()}[trace.name]
            assert (trace.x[1], trace.y[1]) == (ends.loc[key, "w1"], ends.loc[key, "w2"])
    bars = {trace.name: list(trace.x) for trace in fig.data if trace.type == "bar"}
    assert bars["real"] == list(ends["real"])
    assert np.isnan(bars["predicted"][0]) or bars["predicted"][0] is None
    assert "OBS removes weight" in fig.layout.meta["alt"]
