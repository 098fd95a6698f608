"""docs/CLI.md, written from the commands themselves: `python -m pepperbus.cli.reference --write` (or `--check`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pepperbus.cli import COMMANDS, cli

FILE = Path(__file__).parents[2] / "docs" / "CLI.md"
_HEAD = """\
# Command line

Written from the commands themselves (`python -m pepperbus.cli.reference --write`); `pepperbus COMMAND --help` says the same.

`pepperbus [-c FILE] [--json] COMMAND …`. The configuration is `-c FILE`, else `$PEPPERBUS_CONF`, `./etc/pepperbus.conf`,
`/etc/pepperbus/pepperbus.conf`. `--json` stands before the command and gives the same structs as the API. Errors are lines
`pepperbus: …` on standard error.

| exit status | meaning |
| --- | --- |
| 0 | done |
| 1 | failed, not found; `status`: something is wrong; `ping`, `send`: it would not; `doctor`, `check fpm`: it hurts |
| 2 | wrong usage |
| 3 | the bus is not reachable, or cannot start |

Root acts as `[bus] user` wherever a command touches storages or the journal, so no file is left that the daemon cannot open.
`replay`, `purge` and `queue rm` ask first; without a terminal they want `--yes`. `--dry-run` shows what would happen. A time is
`30m`, `2h`, `1d` (ago), a date (`2026-01-31T12:00`) or unix seconds. Progress bars appear on a terminal only.

`pepperbus completion bash` (zsh, fish) prints what makes your shell complete commands, options, queues and topics.
"""
_EXAMPLES = {
    "check": "pepperbus -c etc/pepperbus.conf check\npepperbus check fpm php",
    "push": "pepperbus push orders '{\"id\": 7}'\npepperbus push orders jobs.txt\n"
    "mysql -N -e 'SELECT …' | pepperbus push orders -",
    "job": "pepperbus job 13617011263929843714",
    "jobs": "pepperbus jobs orders/mail --error timeout --since 1h",
    "tail": "pepperbus tail orders --failed",
    "queue": "pepperbus queue add orders mail/run=fastcgi mail/pool=php mail/script=/data/app/consume.php\n"
    "pepperbus queue set orders mail/concurrency=8 --unset mail/timeout",
    "replay": "pepperbus replay orders/mail --error timeout --gray 5% --stop-at-errors 10%\n"
    "pepperbus replay orders/mail --error timeout --rate 100/s --yes",
    "purge": "pepperbus purge orders/mail --since 1d --dry-run",
    "send": "pepperbus send orders/mail '{\"id\": 7}'",
    "alarm": "pepperbus alarm silence orders/mail --rule backlog --for 2h --why 'import of last year'\n"
    "pepperbus alarm test ops",
}


def text() -> str:
    """The whole page."""
    return "\n".join((_HEAD, *_pages()))


def _pages() -> Iterator[str]:
    root = click.Context(cli, info_name="pepperbus")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        yield from _page(click.Context(command, root, info_name=name))


def _page(context: click.Context, level: str = "##") -> Iterator[str]:
    yield f"{level} {context.command_path}\n\n```text\n{_help(context)}\n```\n"
    if context.command.name in _EXAMPLES and level == "##":
        yield f"```sh\n{_EXAMPLES[context.command.name]}\n```\n"
    if isinstance(context.command, click.Group):
        for name, command in context.command.commands.items():
            yield from _page(click.Context(command, context, info_name=name), "###")


def _help(context: click.Context) -> str:
    context.terminal_width = 100
    return context.get_help().strip()


def main(words: list[str]) -> int:
    if words == ["--write"]:
        FILE.write_text(text())
        return 0
    if words == ["--check"]:
        fresh = FILE.exists() and FILE.read_text() == text()
        if not fresh:
            print(
                f"{FILE} is not what the commands say: run python -m pepperbus.cli.reference --write", file=sys.stderr
            )
        return 0 if fresh else 1
    print("python -m pepperbus.cli.reference --write | --check", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
