"""Figures: the numbers in the tables, what is drawn of them, and how much of it goes to a browser."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from handmade import (
    EDGES,
    LAYERS,
    SIZES,
    SPARSITIES,
    HandMade,
    binned,
    change,
    long_run,
    repairs,
    run,
    signed_run,
    structured,
)
from handmasks import with_masks

from pruneviz import figures
from pruneviz.basics.errors import UnknownName
from pruneviz.figures import FIGURES, base, saliency, spectra
from pruneviz.figures.change import spearman
from pruneviz.figures.jacobians import END, MARKS
from pruneviz.figures.saliency import cut, folded, place, score_at
from pruneviz.figures.spectra import condition, effective_rank, product, summary
from pruneviz.methods import FREE_COLOURS, METHODS
from pruneviz.plan.config import RunConfig


@pytest.fixture
def four() -> list[Any]:
    return [run(method) for method in ("random", "magnitude", "lottery-ticket", "snip")]


def suited(key: str, runs: list[Any]) -> list[Any]:
    """The runs, for figures of masks with masks, and for the figure that compares repairs each with its three repairs."""
    if key in ("agreement", "first", "inputs"):
        return [with_masks(made) for made in (runs if len(runs) > 1 else [*runs, run("obd")])]
    if key != "repair":
        return runs
    return [each for made in runs for each in repairs(made.config.method, seed=made.config.seed)]


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_is_its_data_then_its_plot(key, four):
    figure, four = FIGURES[key], suited(key, four)
    assert figure(four) == figure.plot(figure.data(four))
    assert getattr(figures, key) is figure
    assert figure.caption.endswith(".")
    assert figure.formula


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_says_what_its_axes_are_and_tells_its_numbers_in_a_sentence(key, four):
    drawn = FIGURES[key](suited(key, four))
    assert any(axis.title.text for axis in drawn.select_yaxes())
    assert any(axis.title.text for axis in drawn.select_xaxes())
    assert any(c.isdigit() for c in base.alt(drawn))


@pytest.mark.parametrize("key", FIGURES)
@pytest.mark.parametrize(
    "runs", [[], [HandMade(RunConfig(method="snip"), state="running")]], ids=["none", "just begun"]
)
def test_nothing_to_show_draws_an_empty_figure_that_says_what_to_do(key, runs):
    drawn = FIGURES[key](runs)
    assert len(drawn.data) == 0
    assert drawn.layout.title.text
    lines = drawn.layout.annotations[0].text.split("<br>")
    assert lines[0].startswith("Choose")
    assert " ".join(lines) in base.alt(drawn)
    assert max(map(len, lines)) <= 36  # fits a phone


@pytest.mark.parametrize("key", FIGURES)
@pytest.mark.parametrize("runs", [1, 4, 9, "deep", "repaired"])
def test_a_figure_stays_within_its_budget(key, runs):
    many = range(runs) if isinstance(runs, int) else ()
    made = {"deep": [long_run()], "repaired": [run("snip", repair="isometry", seed=seed) for seed in range(6)]}
    drawn = FIGURES[key](suited(key, made.get(runs) or [run("magnitude", seed=seed) for seed in many]))
    assert 0 < len(drawn.data) <= base.MAX_TRACES
    assert max(len(trace.x) for trace in drawn.data) <= base.MAX_POINTS
    assert len(drawn.to_json()) < 150_000


@pytest.mark.parametrize("key", ["spectra", "importance", "sensitivity"])
@pytest.mark.parametrize("method", ["l1-filters", "eigendamage"])
def test_six_deep_runs_stay_within_the_budget_too(key, method):
    runs = [long_run(20, 1500, method, seed=seed) for seed in range(6)]
    for made in runs:
        halves = np.arange(600) % 2
        sides = {f"{part}{factor}0": halves[::-1] for part in ("", "kept") for factor in "AS"}
        made.probes["directions-pruned-0.9"] = sides, ["features.0"]
    drawn = FIGURES[key](runs, **({} if key == "sensitivity" else {"layer": "features.0"}))
    assert 0 < len(drawn.data) <= base.MAX_TRACES
    assert max(len(trace.x) for trace in drawn.data) <= base.MAX_POINTS
    assert len(drawn.to_json()) < 150_000


@pytest.mark.parametrize("key", FIGURES)
def test_no_raw_values_and_no_colour_of_a_theme_reach_the_browser(key, four):
    drawn = FIGURES[key](suited(key, four))
    assert not {trace.type for trace in drawn.data} & {"histogram", "violin"}
    assert drawn.layout.paper_bgcolor == drawn.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert drawn.layout.font.color is None
    assert all(trace.y is None for trace in drawn.data if trace.type == "box")


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [*(card.colour for card in METHODS.values()), *FREE_COLOURS, base.NEUTRAL, base.RED])
def test_a_colour_has_contrast_on_white_and_on_near_black(colour):
    dark = _luminance("#0e1117")
    assert 1.05 / (_luminance(colour) + 0.05) >= 3
    assert (_luminance(colour) + 0.05) / (dark + 0.05) >= 3


def test_every_method_has_a_colour_and_a_marker_of_its_own():
    looks = [(figures.colour(key), base.symbol(key)) for key in METHODS]
    assert len({colour for colour, _ in looks}) == len({mark for _, mark in looks}) == len(METHODS)
    with pytest.raises(UnknownName, match="someone-elses"):
        figures.colour("someone-elses")


def test_a_mark_that_plotly_does_not_have_is_a_circle_and_one_without_dots_has_none():
    assert [base.marked("no-such", kind) for kind in ("", "-open")] == ["circle", "circle-open"]
    assert [base.marked("hourglass", kind) for kind in ("", "-open", "-dot")] == [
        "hourglass", "hourglass-open", "hourglass",
    ]  # fmt: skip


def test_a_name_says_no_more_than_it_takes_to_tell_runs_apart():
    plain, second = run("snip"), run("snip", seed=1)
    assert base.label(plain) == "SNIP"
    assert base.label(second, [plain]) == "SNIP · seed 1"
    assert base.label(second, [run("random")]) == "SNIP"
    assert base.label(run("random", start="trained")) == "Random · from trained"
    assert base.label(run("lottery-ticket", survivors="reinit")) == "Lottery ticket · reinitialised"
    assert base.label(run("magnitude", rounds=1)) == "Magnitude · one shot"
    assert base.label(run("snip", repair="isometry")) == "SNIP · made isometric"
    assert base.label(run("snip", params={"include_bias": True, "batches": 4})) == "SNIP · batches 4 · biases too"


def test_two_runs_never_share_a_name():
    runs = [
        run("snip", **settings)
        for settings in (
            {}, {"seed": 1}, {"model": "digits-cnn"}, {"model": "digits-cnn", "seed": 1}, {"train": {"epochs": 3}},
            {"params": {"batches": 2}}, {"start": "trained"}, {"control": "shuffle"}, {"probes": ("saliency",)},
        )
    ]  # fmt: skip
    names = base.labels(runs)
    assert len(set(names.values())) == len(runs)
    assert len(set(base.labels(runs[:2], seeds=False).values())) == 1


def test_histogram_counts_add_up_to_the_layer(four):
    table = saliency.data([four[0]], 0.9)
    for layer, part in table.groupby("layer"):
        size = dict(zip(LAYERS, SIZES, strict=True))[layer]
        assert (part["kept"] + part["removed"]).sum() == part["size"].iloc[0] == size
        assert part["kept"].sum() == part["alive"].iloc[0]
        assert part["removed"].sum() == round(0.9 * size)


def test_many_runs_show_the_layer_with_most_weights_and_one_run_its_layers(four):
    assert set(saliency.data(four)["layer"]) == {"1"}  # 10 inputs x 100 outputs against 10 x 20
    assert set(saliency.data(four, layer="3")["layer"]) == {"3"}
    assert set(saliency.data(four)["run"]) == {made.id for made in four}
    assert saliency.data(four[:1])["layer"].unique().tolist() == LAYERS


def test_the_threshold_is_drawn_where_the_kept_weights_begin():
    drawn = figures.saliency([run()], sparsity=0.9)
    assert [shape.x0 for shape in drawn.layout.shapes] == pytest.approx([-0.3, -0.3])  # log10 of 10 ** (3 * 0.9 - 3)
    assert {trace.name for trace in drawn.data} >= {"kept", "removed"}
    assert "10⁻¹" in drawn.layout.xaxis.ticktext


def test_a_threshold_of_each_layer_is_read_from_its_histogram():
    kept = np.array([[0, 0, 5, 8, 8, 0], [0, 0, 0, 0, 3, 9]])
    removed = np.array([[4, 6, 5, 0, 0, 0], [1, 2, 3, 9, 4, 0]])
    found = replace(binned(0.5), edges=np.arange(7.0), kept=kept, removed=removed, log=0, threshold=4.5)
    assert cut(found, 0) == pytest.approx(2.5)  # half of the bin from 2 to 3 was removed
    assert cut(found, 1) == 4.5  # here the run's highest removed score lies in the layer's own last bin


def test_scores_of_exactly_zero_are_counted_beside_a_log_axis():
    made = run()
    made.probes["saliency-0.9"][0]["zeros"] = np.array([[0, 12], [1, 2]])
    drawn = figures.saliency([made], sparsity=0.9)
    assert any("12 are 0" in note.text for note in drawn.layout.annotations)
    assert figures.note(drawn).startswith("15 scores of exactly 0 (14 of them removed)")


def test_a_sparsity_that_was_not_recorded_shows_its_nearest_and_says_so():
    drawn = figures.saliency([run()], sparsity=0.97)
    assert "no 97%" in figures.note(drawn)
    assert "98%" in drawn.layout.title.text


def test_a_layer_that_lost_everything_is_red():
    made = run()
    made.probes["saliency-0.9"][0]["alive"] = np.array([100, 0])
    table = figures.layers.data([made], 0.9)
    assert table["removed"].tolist() == pytest.approx([0.9, 1])
    drawn = figures.layers.plot(table)
    assert drawn.data[0].marker.color == (base.colour("snip"), base.RED)
    assert drawn.data[0].text == ("", "empty")
    assert "1 layers lost everything" in base.alt(drawn)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_the_effective_rank_of_equal_eigenvalues_is_their_number(n):
    assert effective_rank(np.full(n, 0.3)) == pytest.approx(n)
    assert effective_rank(np.r_[np.full(n, 0.3), np.zeros(5)]) == pytest.approx(n)
    assert effective_rank(np.zeros(n)) == 0


def test_the_condition_number_is_infinite_where_rounding_hides_the_smallest_eigenvalue():
    assert condition(np.array([8.0, 4.0, 2.0])) == 4
    assert condition(np.array([8.0, 4.0, 0.0])) == condition(np.array([1.0, 1e-9])) == np.inf


def test_spectra_are_descending_and_long_ones_are_thinned(four):
    table = spectra.data([long_run(layers=1)])
    for _, part in table.groupby(["factor", "when"]):
        assert part["eigenvalue"].is_monotonic_decreasing
        assert part["index"].iloc[[0, -1]].tolist() == [1, part["of"].iloc[0]]
        assert len(part) <= base.MAX_POINTS
    assert set(spectra.data(four, layer="1")["when"]) == {"before", "after"}
    assert spectra.data(four, layer="1").query("factor == 'A'")["rank"].unique() == pytest.approx([10])


def test_boxes_are_the_quantiles_of_the_recorded_values():
    row = figures.jacobians.data([run()], 0.9).iloc[0]
    assert [row[key] for key in ("low", "q1", "median", "q3", "high")] == pytest.approx([0.1, 0.5, 1, 1.5, 1.9])


def test_the_trend_averages_layers_and_begins_before_pruning():
    table = figures.trend.data([run()])
    assert table["mean"].unique() == pytest.approx([0.8])
    assert sorted(table["sparsity"].unique()) == [0, *SPARSITIES]
    assert figures.trend.data([run()], layer="3")["spread"].unique() == pytest.approx([0.3])


def test_a_point_is_the_mean_over_seeds_with_its_range():
    runs = [run("snip", {0.9: value}, seed=i) for i, value in enumerate((0.80, 0.86, 0.95))]
    table = figures.curves.data(runs)
    point = table[table["stage"] == "tuned"].iloc[0]
    assert (point["mean"], point["low"], point["high"]) == pytest.approx((0.87, 0.80, 0.95))
    assert (point["seeds"], point["label"], point["x"]) == (3, "SNIP", 0.9)
    dense = table[table["stage"] == "dense"].iloc[0]
    assert (dense["mean"], dense["seeds"]) == (pytest.approx(0.97), 3)
    drawn = figures.curves(runs)
    line = next(trace for trace in drawn.data if trace.mode == "lines+markers")
    assert line.y == pytest.approx([87])
    assert drawn.layout.shapes[0].y0 == pytest.approx(97)
    assert "80.0% to 95.0% over 3 seeds" in line.customdata[0]


def test_start_and_departure_make_a_line_of_their_own():
    runs = [run("random"), run("random", start="trained"), run("random", seed=1)]
    drawn = figures.curves(runs)
    names = [trace.name for trace in drawn.data if trace.mode == "lines+markers"]
    assert sorted(names) == ["Random", "Random · from trained"]
    assert len({trace.line.dash for trace in drawn.data if trace.name in names}) == 2
    assert len({trace.line.color for trace in drawn.data if trace.name in names}) == 1


def test_the_sparsity_axis_does_not_squeeze_its_end():
    ticks = base.sparsity_axis([0.5, 0.9, 0.95, 0.98])
    gaps = np.diff(ticks["tickvals"])
    assert ticks["ticktext"] == ["50%", "90%", "95%", "98%"]
    assert gaps.min() > 0.4 * gaps.max()


@pytest.mark.parametrize(("x", "expected"), [("parameters", 120), ("epochs", 45), ("sparsity", 0.9)])
def test_the_x_axis_is_what_was_asked_for(x, expected):
    table = figures.curves.data([run("snip", {0.9: 0.8})], x=x)
    assert table[table["stage"] == "tuned"]["x"].tolist() == [expected]
    assert figures.curves([run()], x=x).layout.xaxis.title.text


def test_epochs_right_after_pruning_leave_out_those_of_the_training_again():
    made = run("snip", {0.9: 0.8})
    table = figures.curves.data([made], x="epochs", stage="both").set_index("stage")["x"]
    assert table["tuned"] - table["pruned"] == made.config.after_pruning.epochs


def test_the_error_scale_spreads_accuracies_near_one_hundred():
    drawn = figures.curves([run()], scale="error")
    line = next(trace for trace in drawn.data if trace.mode == "lines+markers")
    assert line.y == pytest.approx([-np.log10(0.04), -np.log10(0.1), -np.log10(0.5)])


def test_the_grid_has_a_column_a_run_and_marks_the_sparsity(four):
    table = figures.compare.data(four, 0.9)
    assert list(table["run"].unique()) == [made.id for made in four]
    marked = table[(table["view"] == "curve") & (table["mark"] == 1)]
    assert marked["x"].tolist() == [0.9] * 4
    bars = table[(table["view"] == "saliency") & (table["run"] == four[0].id)]
    assert bars["y"].sum() == SIZES[0]


def test_a_signed_logarithm_is_odd_linear_near_zero_and_a_power_of_ten_is_one_further():
    values = np.array([-3.0, -1e-3, 0, 1e-9, 2e-3, 50])
    assert base.unsigned(base.signed(values, 1e-3), 1e-3) == pytest.approx(values)
    assert base.signed(-values, 1e-3) == pytest.approx(-base.signed(values, 1e-3))
    assert base.signed(1e-6, 1e-3) == pytest.approx(1e-3 / np.log(10), rel=1e-5)
    assert base.signed(10, 1e-3) - base.signed(1, 1e-3) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "linear"), [(-2, 3, 1e-5), (0, 4, 1e-6), (-4, 0, 1e-3), (-0.3, 0.2, 3e-3), (-6, 6, 1e-9)]
)
def test_signed_ticks_lie_on_the_axis_and_one_of_them_is_zero(low, high, linear):
    places, texts = base.signed_ticks(low, high, linear)
    assert 2 <= len(places) <= 5
    assert places == sorted(places)
    assert low <= places[0]
    assert places[-1] <= high
    assert texts[places.index(0)] == "0"
    assert all(text.startswith("−") == (at < 0) for at, text in zip(places, texts, strict=True))


@pytest.mark.parametrize("log", [0, 1, 2])
def test_a_place_on_a_histogram_s_axis_leads_back_to_the_score(log):
    assert score_at(place(0.02, log, 1e-3), log, 1e-3) == pytest.approx(0.02)
    assert np.isnan(place(-1, 1, 1))
    assert place(-1, 2, 0.1) == pytest.approx(-place(1, 2, 0.1))


def test_scores_with_a_sign_stand_on_both_sides_of_zero():
    drawn = figures.saliency([signed_run()], sparsity=0.5)
    assert "0" in drawn.layout.xaxis.ticktext
    assert any(text.startswith("−") for text in drawn.layout.xaxis.ticktext)
    assert [shape.x0 for shape in drawn.layout.shapes] == pytest.approx([0, 0])
    assert "both sides of 0" in figures.note(drawn)
    static = figures.compare([signed_run(), run()], sparsity=0.5)
    assert "0" in static.layout.xaxis.ticktext
    assert "0" not in static.layout.xaxis2.ticktext


def test_weights_kept_below_the_cut_are_counted():
    made = run("obs")
    bars = made.probes["saliency-0.9"][0]
    bars["kept"][:, 0], bars["removed"][:, 59] = 7, 1  # seven of the lowest stay though one of the highest leaves
    bars["threshold"] = np.array([0.99])
    assert "keeps 14 weights that score below its cut" not in figures.note(figures.saliency([run("obs")], sparsity=0.9))
    counted = int(bars["kept"][:, :59].sum())
    assert f"keeps {counted} weights that score below its cut" in figures.note(figures.saliency([made], sparsity=0.9))


def measured(method: str = "obd", **arrays: Any) -> HandMade:
    made = run(method)
    made.probes["change-start"] = change(**arrays)
    return made


def test_a_removal_is_a_point_with_its_score_across_and_its_rise_up():
    made = measured(predicted=[1e-4, 1e-3, 1e-2, 1e-1], measured=[2e-4, -1e-3, 2e-2, 2e-1])
    table = figures.change.data([made])
    assert table["predicted"].tolist() == [1e-4, 1e-3, 1e-2, 1e-1]
    assert table["layer"].tolist() == ["1", "1", "3", "3"]
    assert (table["correlation"].iloc[0], table["of"].iloc[0], table["every"].iloc[0]) == (pytest.approx(0.8), 4, False)
    drawn = figures.change.plot(table)
    points = drawn.data[0]
    order = np.argsort(points.x)
    assert order.tolist() == [0, 1, 2, 3]
    assert np.sign(points.y).tolist() == [1, -1, 1, 1]
    assert "rank correlation <b>0.80</b>" in drawn.layout.annotations[0].text
    assert f"{METHODS['obd'].title} 25%" in figures.note(drawn)


def test_a_score_in_nats_has_a_diagonal_and_others_have_none():
    def diagonals(method: str) -> list[Any]:
        return [s for s in figures.change([measured(method)]).layout.shapes if s.line.dash == "dash"]

    found = diagonals("obd")
    assert len(found) == 1
    assert (found[0].x0, found[0].x1) == (found[0].y0, found[0].y1)
    assert diagonals("magnitude") == []


def test_an_update_of_the_survivors_is_drawn_beside_zeroing_and_its_saving_told():
    drawn = figures.change([measured("obs", measured=[1e-4] * 4, zeroed=[15e-4] * 4)])
    named = [trace.name for trace in drawn.data]
    assert "removed by zeroing alone" in named
    assert sum(trace.x[0] is not None for trace in drawn.data if trace.mode == "markers") == 2
    assert "15 times as much" in figures.note(drawn)
    assert "removed by zeroing alone" not in [t.name for t in figures.change([measured("obs")]).data]


def test_the_size_of_the_change_is_compared_where_the_score_hides_its_sign():
    up_and_down = {"predicted": [1e-4, 2e-4, 3e-4, 4e-4], "measured": [-1e-4, 2e-4, -3e-4, 4e-4]}
    assert "with its size 1.00" in figures.change([measured("snip", **up_and_down)]).layout.annotations[0].text
    assert "with its size" not in figures.change([measured("snip")]).layout.annotations[0].text


def test_the_rank_correlation_is_spearman_s():
    x, y = np.array([1.0, 2, 2, 9]), np.array([0.0, 5, 6, 7])
    ranks = np.array([1, 2.5, 2.5, 4]), np.array([1.0, 2, 3, 4])
    assert spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert spearman(x, x**3) == pytest.approx(1)
    assert np.isnan(spearman(x, np.ones(4)))


def test_a_repair_is_a_moment_of_its_own_between_pruned_and_trained():
    table = figures.jacobians.data([run("snip", repair="isometry")], 0.9)
    first = table[table["layer"] == "1"].set_index("when")["median"]
    assert first.to_dict() == pytest.approx({"start": 1, "pruned": 0.1, "repaired": 1, "tuned": 1})
    assert set(figures.jacobians.data([run("snip")], 0.9)["when"]) == {"start", "pruned", "tuned"}
    trend = figures.trend.data([run("snip", repair="isometry")]).set_index(["when", "sparsity"])["mean"]
    assert trend["pruned", 0.9] == pytest.approx(trend["repaired", 0.9] / 10)
    named = {trace.name for trace in figures.jacobians([run("snip", repair="isometry")]).data}
    assert {"before pruning", "pruned", "repaired", "trained again"} <= named


def test_the_whole_network_s_jacobian_is_a_layer_of_its_own():
    runs = [run("snip", repair="isometry"), run("obd")]
    rows = figures.jacobians.data(runs, 0.9)
    assert rows[(rows["layer"] == END) & (rows["when"] == "tuned")]["median"].tolist() == [2, 2]
    assert END not in [x for trace in figures.jacobians(runs).data for x in trace.x]
    drawn = figures.ends(runs)
    boxes = [trace for trace in drawn.data if trace.type == "box"]
    assert len(boxes) == 4 + 3
    assert boxes[0].median[0] == pytest.approx(np.log10(2))
    old = run("snip")
    for arrays, _ in (old.probes[name] for name in old.names("jacobians")):
        arrays.pop("end", None)
    assert figures.ends.data([old]).empty
    assert len(figures.jacobians.data([old])) == 3 * len(LAYERS)


def test_repairs_stand_side_by_side_with_their_seeds():
    accuracy = {"none": 0.5, "rescale": 0.7, "isometry": 0.8}
    runs = [
        run("snip", {0.9: value + 0.1 * seed}, repair=kind, seed=seed) for kind, value in accuracy.items() for seed in (0, 1)
    ]  # fmt: skip
    table = figures.repair.data([*runs, run("magnitude")])
    assert table["repair"].tolist() == ["none", "rescale", "isometry"]
    assert table["mean"].tolist() == pytest.approx([0.55, 0.75, 0.85])
    assert (table["low"].iloc[1], table["high"].iloc[1], table["seeds"].iloc[1]) == (
        pytest.approx(0.7),
        pytest.approx(0.8),
        2,
    )
    assert set(table["label"]) == {"SNIP"}
    drawn = figures.repair.plot(table)
    assert [trace.y[0] for trace in drawn.data if trace.y[0] is not None] == pytest.approx([55, 75, 85])
    assert "SNIP at 90%: 55.0% not repaired, 75.0% layers rescaled, 85.0% made isometric" in base.alt(drawn)


def test_a_method_s_own_repair_is_compared_with_itself_without():
    runs = [run("isometry"), run("isometry", params={"repair": False})]
    assert [base.repair(made.config) for made in runs] == ["isometry", "none"]
    assert figures.repair.data(runs).groupby("sparsity")["repair"].apply(list).tolist() == [["none", "isometry"]] * 3
    assert figures.repair.data([run("snip"), run("snip", seed=1)]).empty


def test_zeroing_alone_is_a_stage_and_stands_for_pruning_where_nothing_moves():
    runs = [run("obs", {0.9: 0.8}), run("obd", {0.9: 0.8})]
    alone = figures.curves.data(runs, stage="zeroed").query("stage == 'zeroed'").set_index("method")["mean"]
    assert alone.to_dict() == pytest.approx({"obs": 0.2, "obd": 0.4})
    both = figures.curves.data(runs, stage=["zeroed", "pruned"])
    assert both[both["method"] == "obd"]["stage"].tolist() == ["pruned"]
    assert sorted(both[both["method"] == "obs"]["stage"]) == ["pruned", "zeroed"]
    drawn = figures.curves.plot(both)
    assert [t.name for t in drawn.data if t.showlegend is not False][:2] == [
        "Optimal Brain Surgeon",
        "Optimal Brain Damage",
    ]


def test_a_loss_stands_on_a_logarithmic_axis():
    drawn = figures.curves([run("obs", {0.9: 0.8})], metric="loss", stage=["zeroed", "pruned", "tuned"])
    heights = {trace.line.dash: trace.y[0] for trace in drawn.data if trace.mode == "lines+markers"}
    assert sorted(heights.values()) == pytest.approx([np.log10(0.2), np.log10(2), np.log10(20)])
    assert drawn.layout.shapes[0].y0 == pytest.approx(-1)  # the dense network's loss is 0.1
    assert "log scale" in drawn.layout.yaxis.title.text


def test_facets_ask_for_room():
    assert base.least(figures.saliency([run(seed=i) for i in range(6)])) >= 700
    assert base.least(figures.layers([run()])) == 0


def test_scores_with_a_sign_are_binned_on_both_sides_of_zero():
    import torch

    from pruneviz.run.probes import BINS
    from pruneviz.run.probes import saliency as binned
    from pruneviz.units.masks import Mask, Scores

    values = torch.cat([-torch.logspace(-9, -3, 40), torch.zeros(5), torch.logspace(-9, -1, 55)]).double()
    before = Mask({"w": torch.ones(100, dtype=torch.bool)})
    found = binned(Scores.of_weights({"w": values}), before, Mask({"w": values > 0}), 0.0)
    edges = found.edges
    assert found.layers == ("w",)
    assert (found.log, found.zeros.tolist(), len(edges)) == (2, [[0, 5]], BINS + 1)
    assert np.abs(edges).min() == pytest.approx(0, abs=1e-12)  # an edge at 0: no bin mixes the signs
    low, high = base.unsigned(edges[[0, -1]], found.linthresh)
    assert low <= -1e-3
    assert high >= 1e-1
    assert (found.removed[0][edges[1:] < 1e-9].sum(), found.kept[0][edges[:-1] > -1e-9].sum()) == (40, 55)
    assert (found.removed.sum(), found.kept.sum()) == (40, 55)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "magnitude", "rounds": 1}, "**rounds** 1 instead of 5: prunes in one shot"),
        ({"method": "snip", "params": {"batches": 4}}, "**batches** 4 instead of 1: Mini-batches"),
        ({"method": "snip", "repair": "rescale"}, "**repair** rescale instead of none: each layer is multiplied"),
        ({"method": "obs", "params": {"blocks": "rows"}}, "**blocks** rows instead of auto: look only at"),
    ],
)
def test_a_departure_is_told_with_what_it_changes(settings, said):
    [(what, rest)] = base.changes(run(settings.pop("method"), **settings).about)
    assert f"**{what}** {rest}"[: len(said)] == said


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_marker_has_all_the_variants_that_the_trend_draws(method: str):
    import plotly.graph_objects as go

    for mark in MARKS:
        assert go.Scatter(marker={"symbol": base.symbol(method) + mark}).marker.symbol == base.symbol(method) + mark


# Whole units: filters and directions


@pytest.mark.parametrize(
    ("method", "noun"), [("obd", "weights"), ("kron-obd", "filters"), ("eigendamage", "directions")]
)
def test_axes_and_captions_count_what_the_method_removes(method: str, noun: str):
    made = structured(method) if noun != "weights" else run(method)
    drawn = figures.saliency([made], sparsity=0.9)
    assert drawn.layout.yaxis.title.text == f"{noun} per bin"
    assert f" of 1,000 {noun} removed" in base.alt(drawn)
    assert figures.layers([made], sparsity=0.9).layout.yaxis.title.text == f"{noun} removed (%)"
    assert f"4 {noun} at random" in figures.change([made]).layout.annotations[0].text
    static = figures.compare([made, run("snip")], sparsity=0.9)
    assert static.layout.yaxis.title.text == ("weights per bin" if noun == "weights" else "per bin")
    assert static.layout.xaxis.title.text == f"score of {noun} (log)"


def test_bins_beyond_a_layer_s_own_scores_are_folded_away():
    made = structured()
    bars = made.probes["saliency-0.9"][0]
    bars["kept"], bars["removed"] = np.zeros((2, 1, 60), int)
    bars["removed"][0, [0, 30]], bars["kept"][0, [30, 40]] = (5, 400), (200, 395)
    table = saliency.data([made], 0.9)
    assert len(table) == 60
    inside = folded(table)
    assert (inside["lower"].iloc[0], inside["upper"].iloc[-1]) == pytest.approx((EDGES[30], EDGES[41]))
    assert (inside["removed"].iloc[0], inside["kept"].sum()) == (405, 595)


def test_layers_of_filters_and_of_weights_stand_in_one_column():
    table = figures.layers.data([structured(), run("snip")], 0.9)
    assert table.groupby("unit", sort=False)["layer"].agg(list).to_dict() == {"filters": ["1"], "weights": ["1", "3"]}
    drawn = figures.layers.plot(table)
    assert drawn.layout.xaxis.categoryarray == ("1", "3")
    assert drawn.layout.yaxis.title.text == "units removed (%)"
    assert "filters of Kron-OBD; weights of SNIP" in figures.note(drawn)


def test_the_sides_of_a_layer_are_one_layer():
    made = structured("eigendamage")
    made.probes["change-start"] = change()[0], ["1 in", "1 out"]
    assert figures.change.data([made])["layer"].unique().tolist() == ["1"]
    assert [base.module(name) for name in ("1.weight", "1", "1 in", "block.1 out", "1.bias")] == [
        "1",
        "1",
        "1",
        "block.1",
        "1.bias",
    ]


def test_a_sparsity_that_was_not_reached_is_none_of_the_run_s():
    made = structured()
    assert base.sparsities(made) == [0.5, 0.9]
    assert base.beyond(made) == {0.98: 0.93}
    assert figures.curves.data([made]).query("stage == 'tuned'")["sparsity"].tolist() == [0.5, 0.9]


@pytest.mark.parametrize("settings", [{}, {"seed": 1}])
def test_zeroed_weights_stand_at_the_dense_network_s_latency(settings):
    table = figures.curves.data([structured(), run("magnitude", **settings)], x="latency_256")
    places = table.groupby("method", sort=False)["x"].agg(list)
    assert places["kron-obd"] == pytest.approx([2, 5])
    assert places["magnitude"] == pytest.approx([4, 4, 4])
    assert places[""] == pytest.approx([4])
    drawn = figures.curves.plot(table)
    assert "Magnitude: single zeroed weights speed nothing up" in figures.note(drawn)
    assert "Kron-OBD: slower than the dense network, 0.80 times as fast at 90% sparsity" in figures.note(drawn)
    assert drawn.layout.xaxis.title.text == "latency of 256 samples (ms)"
    assert figures.curves.data([run("magnitude")], x="latency_256").query("stage == 'tuned'").empty


def test_three_layers_that_are_slower_than_one_are_told():
    drawn = figures.curves([structured("eigendamage")], x="latency_256")
    assert "three layers in place of one are slower than the dense ones, 0.80 times as fast at 90%" in figures.note(
        drawn
    )
    quick = structured("eigendamage")
    quick.extra[0.9, "pruned", "speedup_256"] = 1.01
    assert "slower" not in figures.note(figures.curves([quick], x="latency_256"))


def test_sparsity_is_counted_with_rotations_and_without():
    made = structured("eigendamage")
    made.extra |= {
        (s, "pruned", f"reached_{kind}"): s - less
        for s in (0.5, 0.9)
        for kind, less in (("compacted", 0.1), ("core", -0.05))
    }

    def places(x: str) -> list[float]:
        table = figures.curves.data([made, run("snip")], x=x)
        return table[table["method"] == "eigendamage"]["x"].tolist() + table[table["method"] == "snip"]["x"].tolist()

    assert places("sparsity") == pytest.approx([0.4, 0.8, *SPARSITIES])
    assert places("core") == pytest.approx([0.55, 0.95, *SPARSITIES])
    assert "rotations not counted" in figures.curves([made], x="core").layout.xaxis.title.text


def test_the_product_of_two_spectra_is_that_of_the_kronecker_product(monkeypatch):
    A, S = np.array([4.0, 1.0, 0.25]), np.array([2.0, 1.0])
    index, values = product(A, S)
    assert values == pytest.approx(np.linalg.eigvalsh(np.kron(np.diag(S), np.diag(A)))[::-1])
    assert index.tolist() == [0, 1, 2, 3, 4, 5]
    monkeypatch.setitem(product.__globals__, "PAIRS", 4)  # the first and last eigenvalue of A
    index, values = product(A, S)
    assert (index.tolist(), values.tolist()) == ([0, 2, 3, 5], [8, 4, 0.5, 0.25])


def test_condition_and_effective_rank_of_the_product_multiply():
    made = run()
    made.probes["spectra-start"] = {"A0": np.array([3.0, 1.0]), "S0": np.array([4.0, 2.0, 1.0])}, ["1"]
    table = spectra.data([made], layer="1")
    told = table[table["when"] == "before"].drop_duplicates("factor").set_index("factor")
    whole = np.multiply.outer([3.0, 1.0], [4.0, 2.0, 1.0]).ravel()
    assert told.loc["A ⊗ S", ["of", "condition", "rank"]].tolist() == pytest.approx([6, 12, effective_rank(whole)])
    rows = summary(table).set_index("factor")
    assert rows.loc["S", "condition before"] == 4
    assert rows.loc["A", "rank before"] == pytest.approx(effective_rank(np.array([3.0, 1.0])))


def test_directions_that_were_cut_are_marked_as_kept_or_removed():
    made = structured("eigendamage")
    arrays = {
        "A0": np.array([3.0, 2.0, 1.0]),
        "keptA0": np.array([1, 0, 1]),
        "S0": np.array([5.0, 1.0]),
        "keptS0": np.array([1, 0]),
    }
    made.probes["directions-pruned-0.9"] = arrays, ["1"]
    table = spectra.data([made], 0.9, "1")
    marks = table[table["when"].isin(["kept", "removed"])]
    assert marks[marks["factor"] == "A"]["when"].tolist() == ["kept", "removed", "kept"]
    assert marks[marks["factor"] == "S"]["eigenvalue"].tolist() == [5, 1]
    drawn = spectra.plot(table)
    assert [trace.marker.symbol for trace in drawn.data if trace.mode == "markers" and trace.x[0] is not None] == [
        ("circle", "circle-open", "circle"), ("circle", "circle-open"),
    ]  # fmt: skip
    assert {"direction kept", "direction removed"} <= {trace.name for trace in drawn.data}
    assert "direction kept" not in {trace.name for trace in spectra.plot(spectra.data([run()], 0.9)).data}


def test_runs_of_one_dense_network_share_its_spectra():
    drawn = figures.spectra([run("magnitude"), run("obd")])
    before = [trace for trace in drawn.data if trace.line.dash == "dot" and trace.x[0] is not None]
    assert len(before) == 3
    assert {trace.line.color for trace in before} == {base.NEUTRAL}


def test_a_block_of_the_importance_matrix_knows_its_directions_and_its_sum():
    table = figures.importance.data([run("kron-obd"), run("l1-filters", model="digits-cnn")], 0.9, "1")
    assert table.groupby(["when", "run"], sort=False).ngroups == 3  # before once, after for each run
    first, second = table.iloc[0], table.iloc[10]
    assert (first["row"], first["rows"], first["column"], first["columns"], first["importance"]) == (1, 4, 1, 1, 100)
    assert (second["row"], second["of_rows"], second["of_columns"]) == (5, 100, 10)
    drawn = figures.importance.plot(table)
    heat = drawn.data[0]
    assert (heat.x[0], heat.x[-1], heat.y[0], heat.y[-1]) == (0.5, 10.5, 0.5, 100.5)
    assert (heat.z[0][0], heat.z[1][1]) == (pytest.approx(2), 0)
    assert drawn.layout.coloraxis.colorbar.title.text == "nats"
    assert "419 nats in all" in base.alt(drawn)
    nothing = figures.importance([run("kron-obd")], layer="3")
    assert np.isnan(nothing.data[0].z).all()


def test_runs_that_read_the_same_inputs_have_one_row_of_eigenvectors():
    flipped = structured("eigendamage")
    arrays, names = flipped.probes["directions-start"]
    flipped.probes["directions-start"] = {**arrays, "vectors0": -arrays["vectors0"]}, names  # a sign means nothing
    table = figures.eigenvectors.data([run("kron-obd"), flipped])
    assert table["run"].nunique() == 1
    assert len(table) == 2 * 9
    assert table.drop_duplicates("vector")["share"].tolist() == pytest.approx([0.1, 0.1])
    drawn = figures.eigenvectors.plot(table)
    assert len(drawn.data) == 2
    assert drawn.data[0].z.tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert drawn.layout.yaxis.scaleanchor == "x"  # square pixels


def test_images_in_colour_have_a_row_for_each_channel():
    drawn = figures.eigenvectors([long_run(1)])
    assert len(drawn.data) == 18
    assert [axis.title.text for axis in drawn.select_yaxes(col=1)] == ["red, row", "green, row", "blue, row"]


def test_the_sensitivity_of_layers_is_a_line_each():
    table = figures.sensitivity.data([run("l1-filters", model="digits-cnn")])
    assert table[table["layer"] == "3"]["accuracy"].tolist() == pytest.approx([0.9, 0.4, 0.1])
    drawn = figures.sensitivity.plot(table)
    assert [trace.name for trace in drawn.data] == ["layer 1", "layer 3"]
    assert drawn.data[1].y == pytest.approx([90, 40, 10])
    assert drawn.data[1].x == pytest.approx([0, 50, 90])
    assert "most sensitive layer 3 (40% without half of it)" in base.alt(drawn)
    assert "360 validation samples" in figures.note(drawn)


def test_many_layers_are_told_apart_by_a_colour_bar():
    drawn = figures.sensitivity([long_run(16)])
    assert len(drawn.data) == 17
    assert drawn.data[-1].marker.colorbar.ticktext == ("first", "last")
    assert not any(trace.showlegend for trace in drawn.data)


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("l1-filters", {"mode": "greedy"}, "L1 filters · greedy"),
        ("l1-filters", {"per_stage": "1=0.5,2=0.3", "skip": 2}, "L1 filters · stages 1=0.5, 2=0.3 · 2 left whole"),
        ("kron-obs", {"joint": False, "quadratic": "row-sum"}, "Kron-OBS · row sums · single moves"),
        ("eigendamage", {"basis": "patches", "count": "core"}, "EigenDamage · patch basis · cores counted"),
        ("eigendamage", {"eigenvalues": "corrected", "fisher": "exact"}, "EigenDamage · exact Fisher · corrected eigenvalues"),
    ],
)  # fmt: skip
def test_switches_of_structured_methods_have_short_names(method: str, params: dict[str, Any], name: str):
    assert sorted(base.label(run(method, model="digits-cnn", params=params)).split(" · ")) == sorted(name.split(" · "))


@pytest.mark.parametrize(
    "first", ["pruneviz.figures.compare", "pruneviz.figures.saliency", "pruneviz.figures.report", "pruneviz.figures.grid.masks", "pruneviz"]
)  # fmt: skip
def test_a_figure_is_a_figure_and_no_module_whatever_was_imported_before(first):
    code = (
        f"import {first}, pruneviz.figures.spectra\n"
        "from pruneviz.figures import FIGURES, Figure, first, layers, report, saliency, spectra, trend\n"
        "import pruneviz as pv\n"
        "assert all(type(found) is Figure for found in (saliency, spectra, layers, first, trend, pv.figures.curves))\n"
        "assert pv.figures.saliency is FIGURES['saliency'] and callable(report) and pv.figures.report is report\n"
        "print(*FIGURES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "saliency", "layers", "agreement", "first", "inputs", "change", "spectra", "importance", "eigenvectors", "jacobians",
        "ends", "trend", "repair", "curves", "sensitivity", "compare",
    ]  # fmt: skip
