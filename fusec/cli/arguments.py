"""The command line on one page: every command and every option.

Nothing heavy is imported here, so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fusec import __version__

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

STAGES = (
    "graph",
    "loop",
    "fused",
    "recomputed",
    "called",
    "split",
    "owned",
    "frozen",
    "tile",
    "host",
    "llvm",
    "asm",
    "triton",
)

TARGET_HELP = """\
TARGET is `file.py:name` or `module:name`, and names what to call and with what:

  a function, beside it `name_inputs`      def f(x): …      f_inputs = (torch.rand(8),)
  an object with `example_inputs`          an attribute, or a method without arguments
  a tuple                                  (callable, inputs)

Inputs are a tuple of arguments, a dict of named ones, a single tensor, or a function
that returns one of these. The call really runs, on the CPU.
"""

FILE_HELP = """\
FILE is IR in its text form, as `fusec dump` prints it; `-` is standard input.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="fusec",
        description="Look at what fusec makes of a program, at every stage, and why.",
        epilog="`fusec COMMAND --help` tells more about each.",
    )
    top.add_argument("--version", action="version", version=f"fusec {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for declare in (_dump, _opt, _run, _explain, _layout, _doctor, _calibrate, _cache):
        declare(commands)
    return top


def _command(
    commands: _Commands, name: str, summary: str, text: str = ""
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument(
        "--traceback", action="store_true", help="show the stack of an error"
    )
    return made


def _dump(commands: _Commands) -> None:
    text = TARGET_HELP + _examples(
        "fusec dump model.py:mlp --stage fused",
        "fusec dump model.py:mlp --inputs in.npz > k.fir && fusec run k.fir "
        "--inputs in.npz",
    )
    made = _command(commands, "dump", "print a program at one stage", text)
    _target(made, several="the first")
    made.add_argument(
        "--stage",
        choices=STAGES,
        default="host",
        help="graph: what torch said; loop: loop nests; fused: after fusion; "
        "recomputed: with what is cheap computed in each kernel that reads it; called: "
        "with calls for the products that torch's library does faster; split: "
        "long reductions in parts; owned: with copies of what is updated and read; "
        "frozen: with what is made of frozen parameters once "
        "apart; tile: the kernels; host: the program that runs, "
        "kernels included (the default); llvm, asm: the code of the kernels for a CPU;"
        " triton: for a GPU",
    )
    made.add_argument("--kernel", metavar="NAME", help="this kernel only")
    made.add_argument(
        "--save", metavar="NPZ", help="write all arguments, weights too, to this file"
    )
    made.add_argument(
        "--locations", action="store_true", help="end each op with its source line"
    )
    _output(made)
    _options(made)


def _opt(commands: _Commands) -> None:
    text = FILE_HELP + _examples(
        "fusec opt graph.fir --passes lower_to_loops,fuse",
        "fusec dump model.py:mlp --stage graph | fusec opt - --passes lower_to_loops",
        "fusec opt --list",
    )
    made = _command(commands, "opt", "run passes on a file of IR", text)
    made.add_argument("file", metavar="FILE", nargs="?", help="the IR, or -")
    made.add_argument(
        "--passes", metavar="NAME,…", default="", help="passes, in order; none: check"
    )
    made.add_argument("--list", action="store_true", help="list the passes")
    _sizes(made, "the likely value of a symbol, to choose schedules by")
    _output(made)
    _options(made)


def _run(commands: _Commands) -> None:
    text = FILE_HELP + (
        "\nA host function is compiled and run on the machine; one of another level, "
        "or\nany with --interpret, runs in the reference interpreter. With --option "
        "verify=1\na graph is compiled, and each stage compared with the one before.\n"
    )
    text += _examples(
        "fusec run k.fir --inputs in.npz --save out.npz",
        "fusec run graph.fir --inputs in.npz --option verify=1",
    )
    made = _command(commands, "run", "run a file of IR and print its results", text)
    made.add_argument("file", metavar="FILE", help="the IR, or -")
    made.add_argument(
        "--inputs",
        metavar="NPZ",
        help="arguments by parameter name; without names (arr_0, …) in order; default: "
        "random data",
    )
    made.add_argument(
        "--seed", type=int, default=0, help="of the random data (default: 0)"
    )
    _sizes(made, "the value of a symbol, for random data")
    made.add_argument(
        "--interpret", action="store_true", help="interpret a host function too"
    )
    made.add_argument(
        "--grid",
        metavar="N",
        type=_count,
        default=1,
        help="programs to run of a tile function (default: 1)",
    )
    made.add_argument("--save", metavar="NPZ", help="write the results to this file")
    _options(made)


def _explain(commands: _Commands) -> None:
    text = TARGET_HELP + _examples("fusec explain model.py:mlp")
    made = _command(
        commands, "explain", "tell what runs, what it costs, what did not fuse", text
    )
    _target(made, several="all")
    _options(made)


def _layout(commands: _Commands) -> None:
    text = (
        "EXPR is a layout in its one-line form: for each dimension digits EXTENT:AXIS, "
        "major\nto minor. Axes are grid, time, warp, lane, reg and mem (in bits).\n"
    )
    text += _examples(
        "fusec layout '(4:time 4:reg 16:lane)'",
        "fusec layout '(2:reg@2, 2:reg 2:lane)'",
    )
    made = _command(commands, "layout", "draw a layout as a table", text)
    made.add_argument("expr", metavar="EXPR", help="the layout")


def _doctor(commands: _Commands) -> None:
    _options(_command(commands, "doctor", "check that fusec can work on this machine"))


def _calibrate(commands: _Commands) -> None:
    text = (
        "Takes some ten seconds, in which better nothing else runs. Processes that "
        "start from\nthen on reckon with what was measured, and may choose other "
        "schedules. A target that\nis named keeps its own figures.\n"
    )
    made = _command(
        commands,
        "calibrate",
        "measure how fast this machine is, for the cost model",
        text,
    )
    either = made.add_mutually_exclusive_group()
    either.add_argument(
        "--dry-run", action="store_true", help="print, and keep nothing"
    )
    either.add_argument(
        "--forget",
        action="store_true",
        help="remove what was measured: use the defaults",
    )
    _options(made)


def _cache(commands: _Commands) -> None:
    made = _command(
        commands, "cache", "list, check or empty the cache of compiled code"
    )
    made.add_argument(
        "action",
        choices=("ls", "verify", "clear"),
        help="ls: list entries; verify: check each, drop those that fail; clear: "
        "remove all",
    )
    _options(made)


def _target(made: argparse.ArgumentParser, several: str) -> None:
    made.add_argument("target", metavar="TARGET", help="what to call")
    made.add_argument(
        "--inputs",
        metavar="NPZ",
        help="arrays in place of the tensors among the inputs, by name; without names "
        "(arr_0, …) in order",
    )
    made.add_argument("--dynamic", action="store_true", help="leave sizes open")
    made.add_argument(
        "--backward", action="store_true", help="run the gradient of the results too"
    )
    made.add_argument(
        "--graph",
        metavar="N",
        type=int,
        help=f"which graph, where the call has several (default: {several})",
    )


def _output(made: argparse.ArgumentParser) -> None:
    made.add_argument("-o", "--output", metavar="FILE", help="write to this file")


def _sizes(made: argparse.ArgumentParser, text: str) -> None:
    made.add_argument(
        "--size",
        metavar="NAME=N",
        action="append",
        default=[],
        type=_pair("size", _count),
        help=text,
    )


def _options(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_pair("option", str),
        help="an option, as in torch.compile(options={NAME: VALUE}); for example "
        "numerics=fast, target=x86-64-v3, threads=1, cache=0",
    )
    made.add_argument(
        "--target",
        metavar="NAME",
        help="the same as --option target=NAME: a processor or a GPU, here or not; for "
        "example x86-64-v4, sm_90",
        dest="target_name",
    )


def chosen(arguments: argparse.Namespace) -> Mapping[str, object]:
    """The options that were given, for `Options.from_mapping`."""
    given = {"target": arguments.target_name} if arguments.target_name else {}
    return {**dict(arguments.option), **given}


def _examples(*lines: str) -> str:
    return "\nexamples:\n" + "\n".join(f"  {line}" for line in lines)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return int(text)


def _pair(kind: str, read: Callable[[str], object]) -> Callable[[str], object]:
    def parse(text: str) -> tuple[str, object]:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind}: write NAME=VALUE")
        return name, read(value)

    return parse
