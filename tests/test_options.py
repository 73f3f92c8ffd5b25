"""Options come from a mapping, then the environment, then defaults."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import pytest

from fusec.errors import OptionError
from fusec.options import NAMES, Options, variable


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(variable(name), raising=False)


def test_every_option_can_be_read() -> None:
    assert tuple(field.name for field in fields(Options)) == NAMES


def test_defaults() -> None:
    options = Options.from_mapping(None)
    assert options == Options()
    assert (options.numerics, options.verify, options.fallback) == (
        "eager",
        False,
        True,
    )
    assert (options.threads, options.target, options.logs) == (None, None, ())


def test_a_mapping_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEC_NUMERICS", "fast")
    monkeypatch.setenv("FUSEC_THREADS", "3")
    assert Options.from_mapping({}).numerics == "fast"
    options = Options.from_mapping({"numerics": "eager"})
    assert (options.numerics, options.threads) == ("eager", 3)


def test_an_empty_variable_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(variable(name), "")
    assert Options.from_mapping() == Options()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("verify", "1", True),
        ("verify", "TRUE", True),
        ("fallback", "off", False),
        ("threads", "8", 8),
        ("target", "x86-64-v3", "x86-64-v3"),
        ("cache", "0", False),
        ("tune", "1", True),
        ("tune_seconds", "2.5", 2.5),
        ("cache_dir", "/somewhere", Path("/somewhere")),
        ("logs", "fusion, kernels,", ("fusion", "kernels")),
    ],
)
def test_text_is_read_alike_from_both_sources(
    name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert getattr(Options.from_mapping({name: text}), name) == value
    monkeypatch.setenv(variable(name), text)
    assert getattr(Options.from_mapping(), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("numerics", "exact"),
        ("verify", "perhaps"),
        ("verify", 1),
        ("threads", 0),
        ("threads", -1),
        ("threads", "two"),
        ("threads", True),
        ("threads", 1.5),
        ("target", ""),
        ("tune_seconds", -1),
        ("tune_seconds", "nan"),
        ("tune_seconds", "soon"),
        ("tune_seconds", True),
        ("target", 3),
        ("cache_dir", 3),
        ("cache_dir", ""),
        ("logs", "fuson"),
        ("logs", 3),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_it_should_be(
    name: str, value: object
) -> None:
    with pytest.raises(
        OptionError, match=f"^{name}=.* not allowed\n  help: give "
    ) as error:
        Options.from_mapping({name: value})
    assert repr(value) in str(error.value)


def test_a_bad_variable_is_named_as_the_user_wrote_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FUSEC_NUMERICS", "quick")
    with pytest.raises(OptionError, match="FUSEC_NUMERICS='quick'"):
        Options.from_mapping()


def test_a_variable_that_no_option_reads_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FUSEC_NUMERIC", "fast")
    for _ in range(2):
        assert Options.from_mapping() == Options()
    (record,) = caplog.records
    message = record.getMessage()
    assert "no environment variable 'FUSEC_NUMERIC'" in message
    assert "did you mean 'FUSEC_NUMERICS'?" in message


def test_the_constructor_refuses_what_only_text_may_say() -> None:
    with pytest.raises(OptionError, match="wrong type"):
        Options(verify="0")  # type: ignore[arg-type]


def test_an_unknown_option_names_close_matches_and_lists_all() -> None:
    with pytest.raises(OptionError) as error:
        Options.from_mapping({"numeric": "fast"})
    message = str(error.value)
    assert "no option 'numeric'" in message
    assert "did you mean 'numerics'?" in message
    assert all(name in message for name in NAMES)


def test_modes() -> None:
    assert Options.from_mapping(None, "default") == Options()
    with pytest.raises(OptionError, match="did you mean 'default'"):
        Options.from_mapping(None, "defualt")


@pytest.mark.parametrize(
    ("mode", "stands_for"),
    [
        ("reduce-overhead", {"cudagraphs"}),
        ("max-autotune", {"cudagraphs", "tune"}),
        ("max-autotune-no-cudagraphs", {"tune"}),
    ],
)
def test_a_mode_stands_for_options_that_others_win_over(
    mode: str, stands_for: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Options.from_mapping(None, mode)
    assert chosen == Options(**dict.fromkeys(stands_for, True))
    for name in stands_for:
        assert not getattr(Options.from_mapping({name: False}, mode), name)
        monkeypatch.setenv(f"FUSEC_{name.upper()}", "0")
        assert not getattr(Options.from_mapping(None, mode), name)
        assert getattr(Options.from_mapping({name: True}, mode), name)


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert Options().cache_dir == Path("/xdg/fusec")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert Options().cache_dir == Path.home() / ".cache" / "fusec"


def test_a_user_without_a_home_caches_in_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert Options().cache_dir == Path(tempfile.gettempdir(), f"fusec-{os.getuid()}")
