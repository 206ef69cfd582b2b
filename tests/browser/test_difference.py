"""Two files of weights given to the browser: a comparison, a sentence, or a refusal."""

from __future__ import annotations

import os
import pickle
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
from safetensors.numpy import save_file
from served import STREAMLIT, serve

pytestmark = pytest.mark.browser
HOSTILE = "[x](http://evil.example) <a href='http://evil.example'>y</a> $z$.weight"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network, the same 2:4, a pickle called safetensors, and two of 36 MB each."""
    folder, random = tmp_path_factory.mktemp("weights"), np.random.default_rng(0)
    dense = {"fc.weight": random.normal(size=(32, 64)).astype("f4"), HOSTILE: random.normal(size=(8, 8)).astype("f4")}
    keep = (np.abs(dense["fc.weight"]).reshape(32, 16, 4).argsort(2).argsort(2) >= 2).reshape(32, 64)
    large = random.normal(size=(3000, 3000)).astype("f4")
    save_file(dense, folder / "dense.safetensors")
    save_file({**dense, "fc.weight": dense["fc.weight"] * keep}, folder / "pruned.safetensors")
    (folder / "bad.safetensors").write_bytes(pickle.dumps({"fc.weight": [1.0] * 100}))
    save_file({"large": large}, folder / "large.safetensors")
    save_file({"large": np.where(np.abs(large) > 1, large, 0)}, folder / "sparse.safetensors")
    return folder


def give(visitor, *paths) -> None:
    """Put files into the two places."""
    for place, path in enumerate(paths):
        visitor.page.get_by_test_id("stFileUploaderDropzoneInput").nth(place).set_input_files(path)
        visitor.page.get_by_text(re.compile(rf"{path.name}: \d+ tensor|{path.name} is no")).first.wait_for(
            timeout=20_000
        )
    visitor.settle()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_two_files_to_a_comparison(visit, files, tmp_path, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    me = visit(width, scheme)
    me.go("diff")
    give(me, files / "dense.safetensors", files / "pruned.safetensors")
    me.page.get_by_text("1 of 2 tensors that both have differ: 1,024 numbers are gone").wait_for(timeout=20_000)
    me.page.locator(".st-key-histograms-plot .js-plotly-plot").wait_for(timeout=20_000)
    me.page.wait_for_timeout(800)
    main = me.page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    assert not me.page.locator("a[href*=evil]").count()
    found = axe.Axe().run(me.page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []
    with me.page.expect_download() as waiting:
        me.page.get_by_role("button", name="Everything (HTML)").click()
    page = me.page.context.new_page()
    waiting.value.save_as(tmp_path / "diff.html")
    page.goto(f"file://{tmp_path}/diff.html")
    page.get_by_role("cell", name="2:4", exact=True).wait_for(timeout=20_000)
    page.locator(".js-plotly-plot").first.wait_for(timeout=20_000)
    assert not page.locator("a[href*=evil]").count()
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []


def test_a_bad_file_is_answered_with_a_sentence_and_another_may_be_given(visit, files):
    me = visit()
    me.go("diff")
    give(me, files / "bad.safetensors", files / "pruned.safetensors")
    assert "is no safetensors file but a pickle" in me.page.get_by_test_id("stAlert").inner_text()
    assert not me.page.get_by_test_id("stException").count()
    give(me, files / "dense.safetensors")
    me.page.get_by_text("1 of 2 tensors that both have differ").wait_for(timeout=20_000)


def test_networks_without_a_common_tensor_say_so(visit, files):
    me = visit()
    me.go("diff")
    give(me, files / "dense.safetensors", files / "large.safetensors")
    me.page.get_by_text("have no tensor of the same name").wait_for(timeout=20_000)


def test_large_files_are_compared_in_a_process_of_their_own(visit, files):
    me = visit()
    me.go("diff")
    give(me, files / "large.safetensors", files / "sparse.safetensors")
    me.page.get_by_text("Comparing in a process of its own").or_(me.page.get_by_text("What was found")).first.wait_for(
        timeout=20_000
    )
    me.page.get_by_text(re.compile("68.[0-9]%")).first.wait_for(timeout=60_000)


def test_where_uploads_are_not_allowed_none_is_taken(chromium, tmp_path):
    server = serve(tmp_path / "store", STREAMLIT, environment={**os.environ, "PRUNEVIZ_UPLOADS": "no"})
    try:
        page = chromium.new_context().new_page()
        page.goto(f"{server.url}/diff")
        page.get_by_text("does not take files from the browser").wait_for(timeout=30_000)
        page.get_by_text("pruneviz diff dense.safetensors pruned.safetensors").wait_for(timeout=10_000)
        assert not page.locator("input[type=file]").count()
        page.context.close()
        asked = urllib.request.Request(f"{server.url}/_stcore/upload_file/session/file", b"x", method="PUT")
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(asked)
        assert b"--uploads yes" in refused.value.read()
    finally:
        server.stop()
