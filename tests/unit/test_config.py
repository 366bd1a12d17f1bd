"""Settings: which source wins, and that a mistake names its source and key."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from gateway import settings
from gateway.cli.serve import serve
from gateway.errors import SettingsError


def _numbers(tree: Any, prefix: str = "") -> list[str]:  # Any: nested options as plain values
    """The dotted names of all numbers among the options."""
    names = []
    for name, value in tree.items():
        if isinstance(value, dict):
            names += _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            names.append(f"{prefix}{name}")
    return names


NUMBERS = _numbers(msgspec.to_builtins(settings.Settings()))


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('store = "a"\ntimeout_s = 3.0\n[server]\nport = 1000\nbody_bytes_max = 5\n')
    environ = {
        "STEELYARD_SERVER__PORT": "2000",
        "STEELYARD_STORE": "b",
        "HOME": "/x",
        "STEELYARD_SERVER__KEEP_ALIVE_S": "9",
    }
    loaded = settings.load(file, environ=environ, overrides={"server.port": 3000, "server.host": None})
    assert (loaded.server.port, loaded.server.keep_alive_s, loaded.server.body_bytes_max) == (3000, 9, 5)
    assert (loaded.server.host, loaded.timeout_s) == ("127.0.0.1", 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 80\n", r"gateway.toml: .*prot"),
        ("[server]\nport = 'eighty'\n", r"gateway.toml: .*server\.port"),
        ("store = \n", "gateway.toml: "),
        ("srever = 1\n", "srever"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        settings.load(file, environ={})


def test_a_list_is_split_at_commas_wherever_it_is() -> None:
    environ = {"STEELYARD_PRELOAD": "a,b", "STEELYARD_REPOSITORY__PUBLIC_KEYS": "/keys/old.pub,/keys/new.pub"}
    loaded = settings.load(environ=environ)
    assert loaded.preload == ("a", "b")
    assert loaded.repository.public_keys == ("/keys/old.pub", "/keys/new.pub")


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    with pytest.raises(SettingsError, match="STEELYARD_SERVER__PORT"):
        settings.load(environ={"STEELYARD_SERVER__PORT": "many"})
    with pytest.raises(SettingsError, match="STEELYARD_SERVER__PROT"):
        settings.load(environ={"STEELYARD_SERVER__PROT": "80"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no\.toml: No such file"):
        settings.load(tmp_path / "no.toml", environ={})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.example", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_are_loopback(host: str, expected: bool) -> None:
    assert settings.is_loopback(host) is expected


def test_the_command_leaves_the_store_to_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[settings.Settings] = []
    monkeypatch.setattr("gateway.server.serve", lambda loaded, _: seen.append(loaded))
    file = tmp_path / "gateway.toml"
    file.write_text('store = "s3://from-file/x"\n')
    monkeypatch.delenv("STEELYARD_STORE", raising=False)
    CliRunner().invoke(serve, ["--config", str(file)], catch_exceptions=False)
    monkeypatch.setenv("STEELYARD_STORE", "from-environment")
    CliRunner().invoke(serve, ["--config", str(file)], catch_exceptions=False)
    CliRunner().invoke(serve, ["--config", str(file), "--store", "from-flag"], catch_exceptions=False)
    assert [loaded.store for loaded in seen] == ["s3://from-file/x", "from-environment", "from-flag"]


@pytest.mark.parametrize("value", ["-1", "1" + "0" * 26, "nan", "inf"])
@pytest.mark.parametrize("dotted", NUMBERS)
def test_no_option_takes_a_number_that_makes_no_sense(dotted: str, value: str) -> None:
    """Every number among the options, by walking them: a new one is bounded or this fails."""
    name = "STEELYARD_" + dotted.upper().replace(".", "__")
    with pytest.raises(SettingsError, match=name):
        settings.load(None, environ={name: value})
