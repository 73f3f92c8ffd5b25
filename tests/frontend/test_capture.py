"""What happens around a graph: options, bugs, devices, the boxed calling convention."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fusec.errors import InternalError
from fusec.frontend.aten_graph import compile_aten_graph
from fusec.frontend.compiled import Made
from fusec.frontend.intake import Imported
from fusec.logs import forget_warnings
from fusec.options import Options


def graph(*args: torch.Tensor) -> torch.fx.GraphModule:
    return make_fx(lambda x: (x.exp() + 1,), tracing_mode="fake")(*args)


def broken(imported: Imported) -> Any:
    raise ZeroDivisionError("broken on purpose")


def options(folder: Path, **chosen: Any) -> Options:
    return Options.from_mapping({"cache_dir": folder, **chosen})


def test_arguments_are_handed_over(tmp_path: Path) -> None:
    def compile(imported: Imported) -> Any:
        def run(arguments: list[Any]) -> list[Any]:
            (x,) = arguments
            arguments.clear()
            return [x * 2]

        return Made(run)

    x = torch.ones(3)
    run = compile_aten_graph(
        graph(x), [x], compile=compile, options=options(tmp_path), role="inference"
    )
    arguments = [x]
    assert run(arguments)[0].tolist() == [2, 2, 2]
    assert arguments == []
    assert vars(run)["_boxed_call"] is True


def test_a_bug_of_ours_leaves_a_reproducer_and_the_graph_runs(
    tmp_path: Path, caplog: Any
) -> None:
    x = torch.ones(3)
    run = compile_aten_graph(
        graph(x), [x], compile=broken, options=options(tmp_path), role="inference"
    )
    torch.testing.assert_close(run([x])[0], x.exp() + 1)
    (path,) = tmp_path.glob("reproducers/*.py")
    assert str(path) in caplog.text
    assert "broken on purpose" in path.read_text()


def test_a_bug_of_ours_is_raised_without_fallback(tmp_path: Path) -> None:
    x = torch.ones(3)
    strict = options(tmp_path, fallback=False)
    with pytest.raises(InternalError, match="broken on purpose"):
        compile_aten_graph(
            graph(x), [x], compile=broken, options=strict, role="inference"
        )


def test_reproducers_run(tmp_path: Path) -> None:
    """With the failing compiler replaced, the program gets to its end."""
    x = torch.ones(4, 3).t()
    compile_aten_graph(
        graph(x), [x], compile=broken, options=options(tmp_path), role="inference"
    )
    (path,) = tmp_path.glob("reproducers/*.py")
    text = path.read_text().replace('backend="fusec"', 'backend="aot_eager"')
    text = text.replace(', options={"fallback": False}', "").replace("import fusec", "")
    path.write_text(text)
    subprocess.run([sys.executable, str(path)], check=True, timeout=120)


def test_other_devices_run_as_traced_and_say_so_once(
    tmp_path: Path, caplog: Any
) -> None:
    forget_warnings()
    x = torch.ones(3, device="meta")
    for _ in range(2):
        run = compile_aten_graph(
            graph(x), [x], compile=broken, options=options(tmp_path), role="inference"
        )
        assert run([x])[0].device.type == "meta"
    assert caplog.text.count("a tensor on meta") == 1
    assert not list(tmp_path.glob("reproducers/*"))
