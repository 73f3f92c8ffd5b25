"""The recipes in docs are true: each is a program, and it runs as it stands.

A block marked `python` is a part of the program, one marked `python name.py` a file
beside it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "docs").glob("add-*.md"))

_BLOCK = re.compile(r"^```python(?: (?P<file>\S+))?\n(?P<code>.*?)^```$", re.M | re.S)


def test_there_is_a_recipe_for_each_kind_of_addition() -> None:
    names = [path.stem for path in RECIPES]
    kinds = "backend", "dot-instruction", "dtype", "pass"
    assert names == [*(f"add-a-{kind}" for kind in kinds), "add-an-op"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_works_touching_what_it_says(recipe: Path, tmp_path: Path) -> None:
    blocks = list(_BLOCK.finditer(recipe.read_text()))
    program = "\n".join(block["code"] for block in blocks if not block["file"])
    assert "assert" in program
    for block in blocks:
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["code"])
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "fusec" not in done.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_files_that_there_are(recipe: Path) -> None:
    text = _BLOCK.sub("", recipe.read_text())
    named = re.findall(r"`((?:fusec|tests)/[\w/]+(?:\.py)?)`", text)
    new = {"fusec/passes/contract.py", "fusec/codegen/listing.py"}
    missing = [name for name in named if name not in new and not (ROOT / name).exists()]
    assert named
    assert not missing
