"""References: told apart, found without running anything, part of the id by what they hold, and code only where it was named."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import own
import pytest
import torch

import pruneviz as pv
from pruneviz.basics.errors import DataUnavailable, InvalidSetting, PrunevizError, UnknownName, Unsuitable
from pruneviz.basics.events import Done, Failed, Metric
from pruneviz.basics.reference import Kind, found, is_reference, name_in_ids, portable
from pruneviz.plan.arguments import command
from pruneviz.plan.config import ID
from pruneviz.store import Store

QUICK = {"rounds": 1, "sparsities": (0.5,), "tune": {"epochs": 1}, "train": {"epochs": 2}, "probes": ()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = own.project(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def ran(*configs, **how):
    events = list(pv.execute(configs, device="cpu", **how))
    failed = [e.message for e in events if isinstance(e, Failed)]
    numbers = {
        (e.sparsity, e.stage, e.metric): e.value for e in events if isinstance(e, Metric) and e.split in ("test", "")
    }
    return numbers, failed


# words


@pytest.mark.parametrize(
    ("text", "kind", "in_id"),
    [
        ("file:My_Net.py:build", Kind.FILE, "my-net"),
        ("file:nets.py:Small", Kind.FILE, "nets-small"),
        ("my.package.nets:Wide", Kind.MODULE, "nets-wide"),
        ("transformers:tiny-bert", Kind.TRANSFORMERS, "tiny-bert"),
        ("timm:resnet18.a1_in1k", Kind.LIBRARY, "resnet18.a1-in1k"),
        ("torchvision:vgg11", Kind.LIBRARY, "vgg11"),
        ("Mine 2.npz", Kind.ARRAYS, "mine-2"),
        ("photos/", Kind.IMAGES, "photos"),
        ("数据.npz", Kind.ARRAYS, "own"),
        ("python:net", Kind.OBJECT, "net"),
    ],
)
def test_references_are_told_apart_and_give_a_word_for_ids(text, kind, in_id):
    assert is_reference(text)
    assert portable(text).kind is kind
    assert name_in_ids(text) == in_id
    assert ID.fullmatch(f"magnitude-{in_id}-{in_id}-0123456789ab")


@pytest.mark.parametrize(
    "text", ["file:my_net.py", "file:my_net:build", "file:net.py:a b", ":", "a b:c", "x/y", "timm:"]
)
def test_what_is_none_is_refused_with_the_forms_there_are(text):
    with pytest.raises(InvalidSetting) as caught:
        portable(text)
    assert "file:" in str(caught.value)


def test_a_key_that_is_nearly_right_is_still_told_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'lenet-300-100'"):
        pv.RunConfig(method="magnitude", model="lenet-300")


# content


def test_an_id_follows_from_content_and_not_from_places(here, tmp_path):
    asked = dict(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", weights="w.safetensors", **QUICK)
    first = pv.RunConfig(**asked)
    elsewhere = own.project(tmp_path / "elsewhere")
    moved = {
        "model": f"file:{elsewhere / 'my_net.py'}:build",
        "dataset": str(elsewhere / "mine.npz"),
        "weights": str(elsewhere / "w.safetensors"),
    }
    assert pv.RunConfig(**{**asked, **moved}).id == first.id
    assert pv.RunConfig(**{**asked, **moved}).places != first.places
    assert set(first.content) == {"model", "dataset", "weights"}
    assert first.model_dump_json() == pv.RunConfig(**json.loads(first.model_dump_json())).model_dump_json()
    ids = {first.id}
    (here / "parts.py").write_text(own.PARTS + "\n# another line in a file that my_net.py imports\n")
    ids.add(pv.RunConfig(**asked).id)
    x, y = own.samples()
    np.savez(here / "mine.npz", x=x + 1, y=y)
    ids.add(pv.RunConfig(**asked).id)
    ids.add(pv.RunConfig(**{**asked, "weights": "first.safetensors"}).id)
    ids.add(pv.RunConfig(**{**asked, "loss": "squared"}).id)
    assert len(ids) == 5
    (here / "unrelated.py").write_text("x = 1\n")
    assert pv.RunConfig(**asked).id in ids


def test_finding_runs_no_code(here):
    (here / "my_net.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    config = pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz")
    assert config.data.sizes == (105, 15, 30)
    assert not (here / "ran").exists()
    with pytest.raises(InvalidSetting, match="a configuration does not run"):
        pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="file:my_data.py:load")
    assert not (here / "ran").exists()


def test_a_package_is_digested_whole_without_importing_it(here, monkeypatch):
    (here / "nets").mkdir()
    (here / "nets" / "__init__.py").write_text("raise SystemExit('imported')")
    (here / "nets" / "small.py").write_text("def build(): ...")
    monkeypatch.syspath_prepend(str(here))
    before = found("nets.small:build").digest()
    assert "nets" not in sys.modules
    (here / "nets" / "other.py").write_text("# new")
    assert found("nets.small:build").digest() != before
    with pytest.raises(DataUnavailable, match="no package 'nowhere'"):
        found("nowhere.at:all").digest()


@pytest.mark.parametrize("what", ["model", "dataset", "weights"])
def test_a_file_that_changed_or_went_is_told_when_the_run_begins(here, what):
    config = pv.RunConfig(
        method="magnitude", model="file:my_net.py:build", dataset="mine.npz", weights="w.safetensors", **QUICK
    )
    path = {"model": here / "parts.py", "dataset": here / "mine.npz", "weights": here / "w.safetensors"}[what]
    path.write_bytes(path.read_bytes() + b"\n")
    _, failed = ran(config)
    assert len(failed) == 1
    assert "has changed since this run was asked for" in failed[0]
    if what != "model":
        path.unlink()
        assert "nothing is there any more" in ran(config)[1][0]


# meaning


def test_given_weights_are_the_trained_network_and_are_not_trained(here):
    config = pv.RunConfig(
        method="magnitude",
        model="file:my_net.py:build",
        dataset="mine.npz",
        weights="w.safetensors",
        **{**QUICK, "train": None},
    )
    assert config.train.epochs == 0
    assert config.epochs == 1  # fine-tuning alone
    numbers, failed = ran(config)
    assert failed == []
    _, net = own.trained()
    from pruneviz.run.given import Given

    x, y = Given().data(config).test
    assert numbers[0.0, "dense", "accuracy"] == pytest.approx(float((net(x).argmax(1) == y).float().mean()))
    assert numbers[0.0, "dense", "epochs"] == 0


def test_methods_at_initialisation_train_fresh_weights_by_the_budget_and_keep_the_given_ones_beside(here):
    asked = dict(model="file:my_net.py:build", dataset="mine.npz", weights="w.safetensors", **{**QUICK, "train": None})
    config = pv.RunConfig(method="snip", **asked)
    assert config.train.epochs == config.data.epochs > 0
    assert config.dense_epochs == 0
    given, failed = ran(config)
    assert failed == []
    fresh, _ = ran(pv.RunConfig(method="snip", **{**asked, "weights": "", "train": {"epochs": config.train.epochs}}))
    assert given[0.5, "pruned", "accuracy"] == fresh[0.5, "pruned", "accuracy"]
    assert given[0.5, "tuned", "loss"] == fresh[0.5, "tuned", "loss"]
    assert given[0.0, "dense", "loss"] != fresh[0.0, "dense", "loss"]
    other, _ = ran(pv.RunConfig(method="snip", seed=1, **asked))
    assert other[0.5, "tuned", "loss"] != given[0.5, "tuned", "loss"]


def test_a_method_that_goes_back_needs_the_initial_weights(here):
    asked = dict(model="file:my_net.py:build", dataset="mine.npz", weights="w.safetensors", **QUICK)
    with pytest.raises(Unsuitable, match="Name them by --initial FILE"):
        pv.RunConfig(method="lottery-ticket", **asked)
    with pytest.raises(InvalidSetting, match="rewind_step counts steps"):
        pv.RunConfig(method="lottery-ticket", **asked, initial="first.safetensors", rewind_step=3)
    numbers, failed = ran(pv.RunConfig(method="lottery-ticket", **asked, initial="first.safetensors"))
    assert failed == []
    assert numbers[0.5, "tuned", "accuracy"] > 0.5


def test_a_registered_network_takes_weights_and_samples_of_ones_own(here):
    from safetensors.torch import save_file

    net = pv.build("lenet-300-100", shape=(1, 4, 4), classes=3, seed=4)
    save_file(net.state_dict(), here / "lenet.safetensors")
    config = pv.RunConfig(
        method="magnitude", model="lenet-300-100", dataset="mine.npz", weights="lenet.safetensors", **QUICK
    )
    assert config.id.startswith("magnitude-lenet-300-100-mine-")
    _, failed = ran(config)
    assert failed == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def build():\n    raise RuntimeError('no GPU here')", "(line 2 of my_net.py): RuntimeError: no GPU here"),
        ("def build(depth):\n    ...", "wants the argument 'depth'"),
        ("def build():\n    return 3", "gave a int, not a network"),
        ("def build():\n    pass", "gave nothing (None), not a network"),
        ("def other():\n    pass", "there is no 'build' in it. It has other"),
        ("def build(:", "SyntaxError"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)", "SystemExit"),
        ("from torch import nn\ndef build():\n    return nn.Linear(16, 3)", "does not run on these samples"),
        (
            "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5))",
            "have 3 classes",
        ),
        ("from torch import nn\ndef build():\n    return nn.Flatten()", "nothing to prune"),
    ],
)
def test_code_that_gives_no_network_is_told_in_one_sentence(here, body, words):
    (here / "my_net.py").write_text(body)
    _, failed = ran(pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", **QUICK))
    assert len(failed) == 1
    assert words in failed[0]
    assert "\n" not in failed[0]


def test_a_build_function_may_ask_for_shape_and_classes(here):
    (here / "my_net.py").write_text(
        "from math import prod\nfrom torch import nn\n"
        "def build(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 7), nn.Linear(7, classes))\n"
    )
    assert ran(pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", **QUICK))[1] == []


def test_two_folders_with_files_of_the_same_names_do_not_mix(here, tmp_path):
    other = own.project(tmp_path / "other")
    (other / "parts.py").write_text(own.PARTS.replace("nn.ReLU()", "nn.Tanh()"))
    asked = dict(method="magnitude", dataset="mine.npz", **QUICK)
    configs = [pv.RunConfig(model=f"file:{folder / 'my_net.py'}:build", **asked) for folder in (here, other)]
    losses = [ran(config)[0][0.0, "dense", "loss"] for config in configs]
    assert losses[0] != losses[1]
    assert [e.run for e in pv.execute(configs) if isinstance(e, Done)] == [c.id for c in configs]


# who may run code


def test_code_runs_only_where_it_was_named_and_the_sentence_holds_the_command(here, store):
    config = pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", **QUICK)
    with pytest.raises(InvalidSetting) as caught:
        store.queue([config])
    assert command(config) in str(caught.value)
    assert str(here / "my_net.py") in command(config)
    assert len(store.runs()) == 0
    store.allow([config])
    assert store.queue([config]) == [config.id]
    (here / "my_net.py").write_text(own.CODE + "\n# changed\n")
    changed = pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", **QUICK)
    with pytest.raises(InvalidSetting, match="the command line of this machine named it"):
        store.queue([changed])


def test_a_worker_refuses_code_that_was_never_allowed_here(here, store):
    from pruneviz.jobs.recording import config_of

    config = pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", **QUICK)
    store.allow([config])
    store.queue([config])
    with store._write() as db:
        db.execute("delete from allowed")
    with pytest.raises(InvalidSetting, match="such code runs only where"):
        config_of(store, config.id)
    store.cancel(config.id)
    with pytest.raises(InvalidSetting, match="such code runs only where"):
        store.resume(config.id)


def test_unpickled_weights_count_as_code_and_safetensors_do_not(here, store):
    asked = dict(method="magnitude", model="lenet-300-100", dataset="mine.npz", **QUICK)
    with pytest.raises(InvalidSetting, match=r"stands on w\.pt"):
        store.queue([pv.RunConfig(**asked, weights="w.pt")])
    store.queue([pv.RunConfig(**asked, weights="w.safetensors")])


def test_places_leave_with_no_export_and_come_with_no_import(here, store, tmp_path):
    from pruneviz.jobs.recording import record

    config = pv.RunConfig(method="magnitude", model="file:my_net.py:build", dataset="mine.npz", **QUICK)
    store.allow([config])
    store.queue([config])
    record(store, [config.id], device="cpu")
    assert store.status(config.id)["state"] == "succeeded"
    store.export([config.id], tmp_path / "out")
    said = (tmp_path / "out" / config.id / "run.json").read_text()
    assert str(here) not in said
    content = json.loads(said)
    content["config"]["places"] = {"model": "/etc/passwd"}
    (tmp_path / "out" / config.id / "run.json").write_text(json.dumps(content))
    other = Store(tmp_path / "other", samples=None)
    taken, _ = other.take_in(tmp_path / "out")
    assert taken == [config.id]
    run = other.run(config.id)
    assert run.config.places == {}
    assert run.about.network == "my-net"
    assert run.about.sizes == (105, 15, 30)
    with pytest.raises(PrunevizError, match="the command line of this machine named it"):
        other.queue([run.config], again=True)
    other.close()


def test_an_import_that_names_a_file_without_its_content_opens_nothing(here, store, tmp_path, monkeypatch):
    from pruneviz.jobs.recording import record

    store.queue([config := pv.RunConfig(method="magnitude", dataset="mine.npz", **QUICK)])
    record(store, [config.id], device="cpu")
    store.export([config.id], tmp_path / "out")
    path = tmp_path / "out" / config.id / "run.json"
    content = json.loads(path.read_text())
    content["config"] |= {"content": {}, "dataset": str(here / "mine.npz")}
    path.write_text(json.dumps(content))
    read = []
    monkeypatch.setattr("pruneviz.plan.own.read_own", lambda *a: read.append(a))
    monkeypatch.setattr("pruneviz.basics.reference.digest_of", lambda *a: read.append(a))
    other = Store(tmp_path / "other", samples=None)
    with pytest.raises(PrunevizError):
        other.take_in(tmp_path / "out")
    assert read == []
    other.close()


def test_a_folder_of_transformers_is_network_and_weights_wherever_it_lies(here, tmp_path):
    import families

    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    with families.transformers() as library:
        torch.manual_seed(0)
        settings = library.BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, num_labels=2,
            max_position_embeddings=8,
        )  # fmt: skip
        net = library.BertForSequenceClassification(settings).eval()
        net.save_pretrained(tmp_path / "away" / "tiny-bert")
    x = torch.randint(0, 20, (60, 6))
    np.savez(here / "tokens.npz", x=x.numpy(), y=(x[:, 0] > 9).long().numpy())
    asked = dict(
        model=f"transformers:{tmp_path / 'away' / 'tiny-bert'}", dataset="tokens.npz", **{**QUICK, "train": None}
    )
    config = pv.RunConfig(method="magnitude", **asked)
    assert config.id.startswith("magnitude-tiny-bert-tokens-")
    assert (config.weights, config.train.epochs) == ("transformers:tiny-bert", 0)
    numbers, failed = ran(config)
    assert failed == []
    from pruneviz.run.given import Given

    x, y = Given().data(config).test
    assert x.dtype == torch.int64
    with torch.no_grad():
        wanted = float((net(x).logits.argmax(1) == y).float().mean())
    assert numbers[0.0, "dense", "accuracy"] == pytest.approx(wanted)
    fresh, failed = ran(pv.RunConfig(method="snip", **{**asked, "train": {"epochs": 1}}))
    assert failed == []
    assert fresh[0.0, "dense", "accuracy"] == pytest.approx(wanted)
