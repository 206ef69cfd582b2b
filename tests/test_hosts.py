"""Whom the server answers, and to whom it gives a reason."""

from __future__ import annotations

import socket

import pytest

from pruneviz.basics.errors import InvalidSetting
from pruneviz.cli import main
from pruneviz.ui.server import hosts

HERE = ("localhost", "127.0.0.1", "::1", "[::1]", "unix:///run/pruneviz.sock")
BEYOND = (None, "", "0.0.0.0", "::", "192.0.2.7", "pruning.lan")


@pytest.mark.parametrize("address", [*HERE, *BEYOND])
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8501", "localhost.:80", "127.0.0.1:8501", "127.3.2.1", "[::1]:8501"]
)
def test_names_of_this_machine_pass_everywhere(host, address):
    assert hosts.allowed(host, address)


@pytest.mark.parametrize("address", [*HERE, *BEYOND])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8501", "localhost.evil.example", "127.0.0.1.evil.example", "", " ", "localhost:x",
        "user@localhost", "localhost/evil", "evil.example#localhost", "[::1", "::1", "localhost; evil.example", "a b",
        "localhost:8501:8501", "127.1", "2130706433", "*", "localhost\u0000",
    ],
)  # fmt: skip
def test_no_other_name_passes_unless_it_is_given(host, address):
    assert not hosts.allowed(host, address)


def test_addresses_and_this_machine_s_name_pass_where_one_listens_beyond_it():
    mine = [f"{name}:8501" for name in ("192.0.2.7", "[2001:db8::7]", socket.gethostname())]
    assert all(hosts.allowed(host, address) for host in mine for address in BEYOND)
    assert not any(hosts.allowed(host, address) for host in mine[:2] for address in HERE)


def test_the_name_that_one_listens_on_passes():
    assert hosts.allowed("pruning.lan:8501", "pruning.lan")
    assert not hosts.allowed("pruning.lan:8501", "other.lan")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_name_that_is_given_passes_also_behind_a_proxy(monkeypatch, address):
    monkeypatch.setenv(hosts.ALLOWED, ",".join(hosts.checked(["Pruning.Example.org", "b.example"])))
    assert hosts.allowed("pruning.example.org", address)
    assert hosts.allowed("PRUNING.example.org:443", address)
    assert not hosts.allowed("www.pruning.example.org", address)
    assert not hosts.allowed("", address)


@pytest.mark.parametrize("given", ["http://a.example", "a.example:80", "a.example/x", "", "*", "a,b", "a b"])
def test_what_is_no_name_is_refused_with_an_example(given):
    with pytest.raises(InvalidSetting, match=r"such as pruning\.example\.org"):
        hosts.checked([given])


def test_a_page_elsewhere_is_another_origin_also_on_this_machine():
    assert hosts.same_origin("http://localhost:8501", "localhost:8501")
    assert hosts.same_origin("https://pruning.example.org", "pruning.example.org")
    assert hosts.same_origin(None, "localhost:8501")
    for origin in ("http://localhost:3000", "http://127.0.0.1:8501", "https://evil.example", "null", ""):
        assert not hosts.same_origin(origin, "localhost:8501")


def test_a_refusal_says_what_was_asked_and_what_to_do():
    assert "--allow-host pruning.example.org" in hosts.refusal("pruning.example.org:8501", None)
    assert "--allow-host NAME" in hosts.refusal("<script>", "localhost")
    assert "<script>" not in hosts.refusal("<script>", "localhost")


def test_serve_refuses_what_is_no_name(capsys):
    assert main(["serve", "--allow-host", "http://a.example"]) == 2
    assert "without http://" in capsys.readouterr().err
