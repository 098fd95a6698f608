"""The written forms of the schema: etc/pepperbus.conf, etc/queues.d/orders.conf and docs/CONFIG.md.

Floor 1. `python -m pepperbus.config.reference --write` makes them, `--check` says (and exits 1) when one is stale.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from pepperbus.config.spec import MANY, Option, Spec, schema

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 118

#: Lines of the samples that are not commented out: what one really sets. `[storages]`' NAME is `local`, and so on.
UNUSED = ("params", "headers", "environment", "schedule", "intakes", "channels")
NAMES = {"storages": "local", "fastcgi": "php", "topics": "mail", "schedule": "nightly"}
SET = {
    "queue_files": "queues.d/*.conf",
    "[bus] data_dir": "../var/data",
    "[bus] run_dir": "../var/run",
    "[gateway] listen": "127.0.0.1:12017",
    "[web] listen": "127.0.0.1:19840",
    "[storages] [[NAME]] type": "embedded",
    "[fastcgi] [[NAME]] address": "unix:/run/php/pepperbus.sock",
    "password": "change-me",
    "[topics] [[NAME]] run": "fastcgi",
    "[topics] [[NAME]] pool": "php",
    "[topics] [[NAME]] script": "/data/app/consume.php",
    "[topics] [[NAME]] concurrency": "4",
}
EXAMPLES = {
    "[bus] node": "node-1",
    "[bus] tags": "live, passport",
    "[bus] user": "pepperbus",
    "[bus] group": "www-data",
    "[gateway] cert": "/etc/pepperbus/tls.pem",
    "[gateway] key": "/etc/pepperbus/tls.key",
    "[log] errors": "/var/log/pepperbus/errors.log",
    "[storages] [[NAME]] url": "redis://127.0.0.1:6379/0",
    "[fastcgi] [[NAME]] status": "127.0.0.1:9001/status",
    "[logins] __many__": 's3cret, push, "orders*", mail',
    "keys": "laravel_database_orders",
    "system": "live",
    "process_group": "quiet",
    "[schedule] [[NAME]] expression": "30 3 * * 1-5",
    "[schedule] [[NAME]] zone": "Asia/Shanghai",
    "[schedule] [[NAME]] payload": '\'{"report": "daily"}\'',
    "[topics] [[NAME]] url": "http://127.0.0.1:8080/jobs",
    "[topics] [[NAME]] host": "www.example.com",
    "[topics] [[NAME]] command": '"php /data/app/worker.php"',
    "[topics] [[NAME]] entry": "Worker,handle",
    "[topics] [[NAME]] directory": "/data/app",
    "[topics] [[NAME]] user": "www-data",
    "[topics] [[NAME]] [[[environment]]] __many__": "production",
    "[topics] [[NAME]] sign": '"a long secret"',
    "[topics] [[NAME]] password": "another secret",
    "[topics] [[NAME]] tags": "live",
    "[topics] [[NAME]] storage": "local",
    "[topics] [[NAME]] [[[params]]] __many__": "production",
    "[topics] [[NAME]] [[[headers]]] __many__": '"Bearer …"',
}
KEYS = {
    "[logins]": "shop",
    "[topics] [[NAME]] [[[params]]]": "APP_ENV",
    "[topics] [[NAME]] [[[headers]]]": "Authorization",
    "[topics] [[NAME]] [[[environment]]]": "APP_ENV",
}

NODE_HEAD = """\
# Pepperbus: the node's file. Every option is here; one that is commented out shows its default (or an example).
# Values with , # " or ' in them, and passwords, are best put in quotes. `pepperbus check` finds every mistake.
# Relative paths are relative to this file. Durations: 500ms 30s 5m 1h30m 3d. Sizes: 1024 64KiB 8MiB 2GiB.
# Made from pepperbus/config/schema.ini.
"""
QUEUE_HEAD = """\
# Pepperbus: a queue's file; its name (orders.conf) is the queue's. Producers: AUTH orders:change-me, LPUSH orders VALUE
# A key of a topic may stand before [topics] too: it is then the default of all its topics.
# Made from pepperbus/config/schema.ini.
"""
DOC_HEAD = """\
# Configuration

The node's file is `pepperbus.conf`; each queue has a file of its own, and the file's name is the queue's. The node's
file is the one named by `-c FILE`, else by `$PEPPERBUS_CONF`, else `./etc/pepperbus.conf`, else
`/etc/pepperbus/pepperbus.conf`. Relative paths are relative to the file they stand in.

- `pepperbus check` reads everything and names every mistake with file, line, key, what was found and what is allowed.
  Nothing unknown is ignored. A file that does not validate changes nothing in a running bus.
- `pepperbus reload` (or HUP) takes a changed configuration; only what changed is touched.
- The syntax is ConfigObj's: `key = value`, sections in brackets, sections inside them in double brackets. Global keys
  stand before the first section. A value with a comma is a list; a value with `,` `#` or quotes in it belongs in quotes,
  as passwords do. There is no interpolation: `%` and `$` are ordinary characters.
- Durations: `500ms`, `30s`, `5m`, `1h30m`, `3d`. Sizes: `1024`, `64KiB`, `8MiB`, `2GiB` (K, M and G count in 1024s).
  Yes and no: `yes no on off true false 1 0`. Names: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.

`etc/minimal.conf` holds the few lines one really needs, `etc/pepperbus.conf` and `etc/queues.d/orders.conf` every option.
This page is made from `pepperbus/config/schema.ini`.
"""


def node_sample() -> str:
    """etc/pepperbus.conf: loads as it is."""
    return NODE_HEAD + "\n".join(_sample(schema()["node"], "", 0)) + "\n"


def queue_sample() -> str:
    """etc/queues.d/orders.conf: loads as it is beside the node's sample."""
    return QUEUE_HEAD + "\n".join(_sample(schema()["queue"], "", 0)) + "\n"


def document() -> str:
    """docs/CONFIG.md."""
    lines = [DOC_HEAD, "## The node's file", "", *_doc(schema()["node"], "")]
    return "\n".join([*lines, "## A queue's file", "", *_doc(schema()["queue"], "")]).rstrip() + "\n"


def _sample(spec: Spec, where: str, depth: int) -> Iterator[str]:
    indent = "    " * depth
    for number, option in enumerate(spec.options.values() if not spec.any_option else [spec.any_option]):
        if not option.later:
            yield from [""] if number or not depth else []
            yield from _comment(option.help, indent)
            yield indent + _line(option, f"{where} {option.key}".strip(), where)
    for inner in (*spec.sections.values(), *((spec.any_section,) if spec.any_section else ())):
        if inner.later:
            continue
        key = "NAME" if inner.name == MANY else inner.name
        shown = NAMES.get(spec.name, key) if key == "NAME" else key
        yield from [""] if inner.help else []
        yield from _comment(inner.help, indent)
        mark = "# " if inner.name in UNUSED or spec.name in UNUSED else ""
        yield f"{indent}{mark}{'[' * (depth + 1)}{shown}{']' * (depth + 1)}"
        yield from _sample(inner, f"{where} {'[' * (depth + 1)}{key}{']' * (depth + 1)}".strip(), depth + 1)


def _comment(help: str, indent: str) -> list[str]:
    return textwrap.wrap(help, WIDTH, initial_indent=indent + "# ", subsequent_indent=indent + "# ")


def _line(option: Option, name: str, where: str) -> str:
    key = KEYS.get(where, option.key) if option.key == MANY else option.key
    if name in SET:
        return f"{key} = {SET[name]}"
    return f"# {key} = {EXAMPLES.get(name) or option.default or ''}".rstrip()


def _doc(spec: Spec, where: str) -> Iterator[str]:
    rows = [option for option in spec.options.values() if not option.later]
    rows += [spec.any_option] if spec.any_option else []
    if rows:
        yield from ("| key | kind | default | meaning |", "| --- | --- | --- | --- |")
        yield from (_row(option) for option in rows)
        yield ""
    depth = len(where.split(" ")) + 1 if where else 1
    for inner in (*spec.sections.values(), *((spec.any_section,) if spec.any_section else ())):
        if inner.later:
            continue
        key = "NAME" if inner.name == MANY else inner.name
        path = f"{where} {'[' * depth}{key}{']' * depth}".strip()
        yield from (f"### `{path}`", "")
        yield from ([inner.help, ""] if inner.help else [])
        yield from _doc(inner, path)


def _row(option: Option) -> str:
    key = "NAME" if option.key == MANY else option.key
    allowed = option.allowed() if option.kind != "option" else ""
    kind = option.allowed() if option.kind == "option" else f"{option.kind.replace('_', ' ')} {allowed}".strip()
    default = (
        "needed" if option.default is None and option.key != MANY else f"`{option.default}`" if option.default else ""
    )
    return f"| `{key}` | {kind} | {default} | {option.help} |".replace("push|pop", "push\\|pop")


FILES: dict[str, Callable[[], str]] = {
    "etc/pepperbus.conf": node_sample,
    "etc/queues.d/orders.conf": queue_sample,
    "docs/CONFIG.md": document,
}


def stale(root: Path = ROOT) -> list[str]:
    """The generated files that are missing or do not say what the schema says."""
    found = []
    for name, make in FILES.items():
        file = root / name
        if not file.exists() or file.read_text(encoding="utf-8") != make():
            found.append(name)
    return found


def main(arguments: list[str]) -> int:
    """`--write` or `--check`; the exit status."""
    if arguments == ["--write"]:
        for name, make in FILES.items():
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(make(), encoding="utf-8")
        return 0
    if arguments == ["--check"]:
        for name in stale():
            print(f"{name} is stale: run python -m pepperbus.config.reference --write", file=sys.stderr)
        return 1 if stale() else 0
    print("usage: python -m pepperbus.config.reference --write | --check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
