"""The architecture, as tables, and the proof that fusec keeps to it.

A module may import from layers above its own in `LAYERS`, and from its own part. Parts
that share a layer are siblings: they never import each other. What has to call against
this order is passed in as an argument.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    "errors files lazy logs",
    "options target counters",
    "calibration",
    "ir",
    "analysis frontend runtime",
    "passes codegen",
    "build measuring",
    "tuning fitting",
    "compiler stages explain",
    "api jitted",
    "cli",
)

# The files that may import each third-party package. All others are out.
OWNERS = {
    "lark": ["fusec/ir/parser.py"],
    "llvmlite": ["fusec/runtime/llvm.py"],
    "numpy": ["fusec/ir/*"],
    "sympy": ["fusec/frontend/*"],
    "torch": [
        "fusec/frontend/*",
        "fusec/api.py",
        "fusec/jitted.py",
        "fusec/measuring/*",
        "fusec/runtime/extern.py",
        "fusec/runtime/arrays.py",
        "fusec/runtime/cuda.py",
        "fusec/runtime/devices.py",
        "fusec/runtime/gpus.py",
        "fusec/runtime/launcher_*.py",
        "fusec/runtime/measure_worker.py",
        "fusec/runtime/tensors.py",
        "fusec/runtime/verified.py",
    ],
    "triton": ["fusec/runtime/triton_worker.py"],
}

# The files that may do what all others may not.
READS_ENVIRONMENT = ["fusec/options.py"]
IMPORTS_BY_NAME = [
    "fusec/__init__.py",
    "fusec/cli/loading.py",
    "fusec/codegen/backend.py",
    "fusec/lazy.py",
]


@dataclass(frozen=True)
class Source:
    """One parsed file; `path` is relative to the repository."""

    path: str
    tree: ast.Module

    @property
    def part(self) -> str:
        """`fusec/ir/ops/view.py` -> "ir"; `fusec/__init__.py` -> ""."""
        name = self.path.removesuffix(".py").split("/")[1]
        return "" if name == "__init__" else name

    def may(self, patterns: list[str]) -> bool:
        return any(fnmatch(self.path, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Import:
    """`module` is dotted and absolute; `local` inside a function."""

    line: int
    module: str
    local: bool

    @property
    def top(self) -> str:
        return self.module.split(".")[0]


Violation = tuple[int, str]
Rule = Callable[[Source], Iterator[Violation]]


# What a file imports.


def imports(source: Source) -> Iterator[Import]:
    local = {
        id(node)
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, id(node) in local)
        elif isinstance(node, ast.ImportFrom):
            for module in imported_from(source, node):
                yield Import(node.lineno, module, id(node) in local)


def imported_from(source: Source, node: ast.ImportFrom) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        package = source.path.split("/")[: -node.level]
        base = ".".join([*package, base] if base else package)
    if base != "fusec":
        yield base
        return
    # `from fusec import ir` imports fusec.ir: each name may be a module.
    for alias in node.names:
        yield f"fusec.{alias.name}"


# The rules.


def layers(source: Source) -> Iterator[Violation]:
    """Imports point up the table of layers, or stay within a part."""
    depth = {part: n for n, names in enumerate(LAYERS) for part in names.split()}
    depth[""] = len(LAYERS)  # the public names, lazily
    if source.part not in depth:
        yield 1, f"'{source.part}' stands in no layer; add it to LAYERS"
        return
    for each in imports(source):
        if each.top != "fusec" or each.module == "fusec.__version__":
            continue
        part = each.module.partition(".")[2].partition(".")[0]
        if part != source.part and depth.get(part, 0) >= depth[source.part]:
            yield each.line, f"'{source.part}' may not import '{each.module}'"


def owners(source: Source) -> Iterator[Violation]:
    """Each third-party package is imported by its owners alone."""
    for each in imports(source):
        if each.top == "fusec" or each.top in sys.stdlib_module_names:
            continue
        if not source.may(OWNERS.get(each.top, [])):
            allowed = ", ".join(OWNERS.get(each.top, [])) or "nobody"
            yield each.line, f"'{each.top}' may be imported by {allowed} only"


def no_local_imports(source: Source) -> Iterator[Violation]:
    """No import of fusec hides inside a function."""
    for each in imports(source):
        if each.local and each.top == "fusec":
            yield each.line, f"'{each.module}' is imported inside a function"


def environment(source: Source) -> Iterator[Violation]:
    """Environment variables are read in one file."""
    if source.may(READS_ENVIRONMENT):
        return
    names = {"environ", "environb", "getenv", "getenvb"}
    for line in uses(source, "os", names):
        yield line, f"only {READS_ENVIRONMENT[0]} reads environment variables"


def imports_by_name(source: Source) -> Iterator[Violation]:
    """Modules are loaded by a dotted string in the registries alone."""
    if source.may(IMPORTS_BY_NAME):
        return
    lines = {*uses(source, "importlib", {"import_module", "__import__"})}
    lines |= {
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name) and node.id == "__import__"
    }
    for line in sorted(lines):
        yield line, f"only {', '.join(IMPORTS_BY_NAME)} import by name"


def uses(source: Source, module: str, names: set[str]) -> Iterator[int]:
    """The lines with `module.name`, or `from module import name`."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=name):
                found = base == module and name in names
            case ast.ImportFrom(module=base, names=aliases):
                found = base == module and any(each.name in names for each in aliases)
            case _:
                found = False
        if found:
            yield node.lineno


RULES: tuple[Rule, ...] = (
    layers,
    owners,
    no_local_imports,
    environment,
    imports_by_name,
)


# fusec keeps to them.


@cache
def sources() -> list[Source]:
    paths = sorted((ROOT / "fusec").rglob("*.py"))
    return [
        Source(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text()))
        for path in paths
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_fusec_keeps_to_the_rule(rule: Rule) -> None:
    found = [
        f"{source.path}:{line}: {message}"
        for source in sources()
        for line, message in rule(source)
    ]
    assert not found, "\n".join([str(rule.__doc__), *found])


def test_every_folder_of_modules_is_a_package() -> None:
    # Without __init__.py a folder is a namespace, open to other distributions.
    folders = {path.parent for path in (ROOT / "fusec").rglob("*.py")}
    missing = [str(f) for f in sorted(folders) if not (f / "__init__.py").exists()]
    assert not missing, f"no __init__.py in {', '.join(missing)}"


# The rules see what they should: a file, one line of it, and what is said of it.


@pytest.mark.parametrize(
    ("rule", "path", "line"),
    [
        (layers, "fusec/ir/core.py", "from fusec.passes.fuse import fuse"),
        (layers, "fusec/ir/core.py", "import fusec.codegen"),
        (layers, "fusec/ir/core.py", "from fusec import api"),
        (layers, "fusec/ir/core.py", "from .. import api"),
        (layers, "fusec/ir/core.py", "from ..passes import fuse"),
        (layers, "fusec/ir/core.py", "import fusec"),
        (layers, "fusec/analysis/cost.py", "from fusec.runtime.cache import Cache"),
        (layers, "fusec/options.py", "from fusec.target import host"),
        (layers, "fusec/api.py", "from fusec.cli import main"),
        (layers, "fusec/utilities.py", ""),
        (owners, "fusec/ir/core.py", "import torch"),
        (owners, "fusec/passes/fuse.py", "from networkx import DiGraph"),
        (owners, "fusec/api.py", "def f():\n  import numpy.linalg"),
        (owners, "fusec/api.py", "import requests"),
        (no_local_imports, "fusec/api.py", "def f():\n  import fusec.compiler"),
        (no_local_imports, "fusec/ir/core.py", "def f():\n  from .types import Type"),
        (environment, "fusec/api.py", "import os; os.environ['HOME']"),
        (environment, "fusec/api.py", "import os; os.getenv('HOME')"),
        (environment, "fusec/api.py", "from os import environ"),
        (imports_by_name, "fusec/api.py", "import importlib; importlib.import_module"),
        (imports_by_name, "fusec/api.py", "from importlib import import_module"),
        (imports_by_name, "fusec/api.py", "__import__('torch')"),
    ],
)
def test_a_rule_finds_what_breaks_it(rule: Rule, path: str, line: str) -> None:
    assert list(rule(Source(path, ast.parse(line))))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("fusec/passes/fuse.py", "from fusec.analysis.cost import price"),
        ("fusec/ir/core.py", "from fusec.ir.ops import view"),
        ("fusec/ir/core.py", "from . import ops"),
        ("fusec/ir/ops/view.py", "from ..core import Op"),
        ("fusec/compiler.py", "from fusec import __version__, codegen"),
        ("fusec/api.py", "import torch.fx"),
        ("fusec/runtime/launcher_steps.py", "def f():\n  import torch"),
        ("fusec/options.py", "import os; os.environ['HOME']"),
        ("fusec/api.py", "import os; os.path"),
        ("fusec/__init__.py", "from fusec.api import jit"),
    ],
)
def test_the_rules_allow_what_is_right(path: str, line: str) -> None:
    source = Source(path, ast.parse(line))
    assert [violation for rule in RULES for violation in rule(source)] == []


def test_owners_import_what_they_own() -> None:
    importing = {
        (each.top, source.path) for source in sources() for each in imports(source)
    }
    idle = [
        (package, pattern)
        for package, patterns in OWNERS.items()
        for pattern in patterns
        if not any(top == package and fnmatch(p, pattern) for top, p in importing)
    ]
    assert idle == []


# Importing fusec costs nothing.


def run(program: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter makes of `program`."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import fusec",
        "import fusec; fusec.Options; dir(fusec)",
        "import fusec.target, fusec.runtime.cache",
    ],
)
def test_import_is_light(statement: str) -> None:
    done = run(f"import sys; {statement}; print(*sys.modules)")
    assert done.stderr == ""
    assert "fusec" in done.stdout.split()
    assert OWNERS.keys() & set(done.stdout.split()) == set()


def test_the_ir_works_without_torch() -> None:
    modules = [
        source.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for source in sources()
        if source.part == "ir"
    ]
    done = run(f"import sys; sys.modules['torch'] = None; import {', '.join(modules)}")
    assert done.stderr == ""


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    done = run("import fusec; fusec.jitt")
    assert "AttributeError: module 'fusec' has no attribute 'jitt'" in done.stderr
