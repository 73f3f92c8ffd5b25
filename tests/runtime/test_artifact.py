"""What tells the artifacts in torch's cache apart."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch

from fusec import api
from fusec.frontend.torch_private import aot_cache_dir
from fusec.logs import forget_warnings
from fusec.options import Options
from fusec.runtime import artifact
from fusec.runtime.artifact import salt
from fusec.runtime.cache import Cache, cache_at


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torchs = tmp_path / "torch"
    torchs.mkdir(mode=0o700)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(torchs))
    assert aot_cache_dir() == str(torchs)
    cache_at.cache_clear()
    return tmp_path


def options(folder: Path, **chosen: object) -> Options:
    return Options(cache_dir=folder / "fusec", **chosen)  # type: ignore[arg-type]


def test_a_salt_is_the_same_each_time(folder: Path) -> None:
    first = api._salt(options(folder))
    cache_at.cache_clear()
    assert first is not None
    assert api._salt(options(folder)) == first


def test_a_salt_changes_with_what_code_depends_on(folder: Path) -> None:
    choices = [
        {},
        {"numerics": "fast"},
        {"fallback": False},
        {"threads": 1},
        {"target": "x86-64"},
        {"tune": True},
        {"tune": True, "tune_seconds": 5.0},
    ]
    salts = [api._salt(options(folder, **chosen)) for chosen in choices]
    torch.set_default_dtype(torch.float64)
    try:
        salts.append(api._salt(options(folder)))
    finally:
        torch.set_default_dtype(torch.float32)
    assert None not in salts
    assert len(set(salts)) == len(choices) + 1


def test_a_salt_changes_with_fusec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Cache(tmp_path / "fusec")
    before = salt(kept)
    monkeypatch.setattr(artifact, "sources", lambda: b"other")
    assert salt(kept) != before


def test_a_salt_changes_with_what_makes_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = api._salt(options(folder))
    monkeypatch.setattr(metadata, "version", lambda name: f"another {name}")
    assert api._salt(options(folder)) not in (before, None)


def test_to_clear_the_cache_is_to_forget(folder: Path) -> None:
    before = api._salt(options(folder))
    cache_at(folder / "fusec").clear()
    assert api._salt(options(folder)) not in (before, None)


@pytest.mark.parametrize("chosen", [{"cache": False}, {"verify": True}])
def test_options_that_do_without(folder: Path, chosen: dict[str, object]) -> None:
    assert api._salt(options(folder, **chosen)) is None


def test_nothing_is_read_where_others_may_write(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """torch unpickles what lies in its folder: who can write there can run code."""
    forget_warnings()
    (folder / "torch").chmod(0o777)
    for _ in range(2):
        assert api._salt(options(folder)) is None
    (said,) = caplog.messages
    assert "every process compiles anew" in said
    assert "chmod go-w" in said


def test_a_folder_that_keeps_nothing_has_no_salt(folder: Path) -> None:
    (folder / "fusec").write_text("not a folder")
    assert api._salt(options(folder)) is None
