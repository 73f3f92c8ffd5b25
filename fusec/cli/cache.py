"""`fusec cache`: the compiled code on disk."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime, timezone

from fusec.cli.arguments import chosen
from fusec.cli.output import Output, table
from fusec.options import Options
from fusec.runtime.cache import Cache, Entry


def run(arguments: Namespace) -> Output:
    """List, verify or clear."""
    cache = Cache(Options.from_mapping(chosen(arguments)).cache_dir)
    return {"ls": _ls, "verify": _verify, "clear": _clear}[arguments.action](cache)


def _ls(cache: Cache) -> Output:
    entries = cache.ls()
    total = sum(entry.size for entry in entries)
    rows = [(e.key[:16], e.kind, f"{e.size:,} bytes", _when(e)) for e in entries]
    head = f"{cache.root}: {len(entries)} entries, {total:,} bytes"
    data = {
        "folder": str(cache.root),
        "bytes": total,
        "entries": [
            {"key": e.key, "kind": e.kind, "size": e.size, "used": e.used}
            for e in entries
        ],
    }
    return Output("\n".join([head, table(rows, "  ")]), data)


def _when(entry: Entry) -> str:
    used = datetime.fromtimestamp(entry.used, timezone.utc)
    return f"used {used:%Y-%m-%d %H:%M} UTC"


def _verify(cache: Cache) -> Output:
    before = len(cache.ls())
    failed = cache.verify()
    text = f"{cache.root}: {before} entries checked, {len(failed)} dropped"
    return Output(
        "\n".join([text, *(f"  {key}" for key in failed)]), {"dropped": failed}
    )


def _clear(cache: Cache) -> Output:
    count = cache.clear()
    return Output(f"{cache.root}: {count} entries removed", {"removed": count})
