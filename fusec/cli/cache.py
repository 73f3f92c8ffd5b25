"""`fusec cache`: the compiled code on disk."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from datetime import datetime, timezone

from fusec.cli.arguments import chosen
from fusec.cli.output import Output, note, table
from fusec.logs import counted
from fusec.options import Options
from fusec.runtime.cache import Cache, Entry
from fusec.runtime.elf import functions


def run(arguments: Namespace) -> Output:
    """List, verify or clear."""
    options = Options.from_mapping(chosen(arguments))
    cache = Cache(options.cache_dir)
    if not options.cache:
        note("the cache is off (cache=0): nothing is read from it or added to it")
    if not cache.root.is_dir():
        note(f"there is no folder {cache.root}: nothing has been cached there")
    return {"ls": _ls, "verify": _verify, "clear": _clear}[arguments.action](cache)


def _ls(cache: Cache) -> Output:
    entries = cache.ls()
    total = sum(entry.size for entry in entries)
    names = [_functions(cache, entry) for entry in entries]
    rows = [
        (e.key[:16], e.kind, f"{e.size:,} bytes", _when(e), ", ".join(held))
        for e, held in zip(entries, names, strict=True)
    ]
    data = {
        "folder": str(cache.root),
        "bytes": total,
        "entries": [
            {**asdict(entry), "names": held}
            for entry, held in zip(entries, names, strict=True)
        ],
    }
    head = f"{cache.root}: {_entries(len(entries))}, {total:,} bytes"
    return Output("\n".join([head, table(rows, "  ")]), data)


def _functions(cache: Cache, entry: Entry) -> list[str]:
    """The kernels, and other functions, that are in an entry."""
    payload = cache.peek(entry.key) if entry.kind == "object" else None
    return functions(payload) if payload else []


def _when(entry: Entry) -> str:
    used = datetime.fromtimestamp(entry.used, timezone.utc)
    return f"used {used:%Y-%m-%d %H:%M} UTC"


def _verify(cache: Cache) -> Output:
    before = len(cache.ls())
    failed = cache.verify()
    text = f"{cache.root}: {_entries(before)} checked, {len(failed)} dropped"
    return Output(
        "\n".join([text, *(f"  {key}" for key in failed)]), {"dropped": failed}
    )


def _clear(cache: Cache) -> Output:
    count = cache.clear()
    return Output(f"{cache.root}: {_entries(count)} removed", {"removed": count})


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")
