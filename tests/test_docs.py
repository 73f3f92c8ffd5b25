"""README and architecture.md are true: commands print what is shown, names exist.

`make golden` rewrites what the README shows of each command.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_architecture import LAYERS

from fusec import options

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

_CONSOLE = re.compile(r"^```console\n\$ (?P<command>.*)\n(?P<output>[^`]*)^```$", re.M)
_FILE = re.compile(r"^```python (?P<file>\S+)\n(?P<code>.*?)^```$", re.M | re.S)


def fusec(command: str, folder: Path) -> str:
    """What `fusec …` prints in a folder."""
    program = "import sys; from fusec.cli import main; sys.exit(main())"
    name, *argv = shlex.split(command)
    assert name == "fusec"
    done = subprocess.run(
        [sys.executable, "-c", program, *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_shows_what_commands_print(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = README.read_text()
    for file in _FILE.finditer(text):
        (tmp_path / file["file"]).write_text(file["code"])
    shown = list(_CONSOLE.finditer(text))
    printed = [fusec(each["command"], tmp_path) for each in shown]
    assert shown
    if request.config.getoption("--update-golden"):
        outputs = iter(printed)
        text = _CONSOLE.sub(
            lambda m: f"```console\n$ {m['command']}\n{next(outputs)}```", text
        )
        README.write_text(text)
    else:
        assert [each["output"] for each in shown] == printed


def test_the_readme_names_every_option() -> None:
    text = README.read_text()
    table = text.partition("## Options")[2].partition("##")[0]
    named = set(re.findall(r"^\| (.*?) \|", table, re.M))
    found = {name for cell in named for name in re.findall(r"`(\w+)`", cell)}
    assert found == set(options.NAMES)


def test_the_architecture_draws_the_layers_that_are_enforced() -> None:
    together = {"errors files lazy logs", "options target counters"}
    drawn = [
        names.replace(" ", ", " if names in together else " | ") for names in LAYERS
    ]
    assert " → ".join(drawn) in ARCHITECTURE.read_text()


@pytest.mark.parametrize("page", [README, ARCHITECTURE], ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    files = re.findall(r"`((?:fusec|tests|docs|benchmarks)/[\w/.]+)`", text)
    links = re.findall(r"\]\(([\w/.-]+\.md)\)", text)
    missing = [name for name in files if not (ROOT / name).exists()]
    missing += [name for name in links if not (page.parent / name).exists()]
    assert links
    assert not missing
