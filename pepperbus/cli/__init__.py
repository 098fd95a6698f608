"""The command line: words in, `operations` called, text or JSON out. Nothing is decided here that an API could not do.

Floor 6. Each family of commands is a module that is imported only when one of its commands runs; those that touch
storages have gevent patched in before anything else is imported, and `serve` never has. Errors are one line on
standard error and an exit status: 0 done, 1 failed or not found, 2 wrong usage, 3 not reachable or cannot start.
"""

from __future__ import annotations

import importlib
import keyword
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from pepperbus import __version__
from pepperbus.errors import PepperbusError


class _Entry(NamedTuple):
    module: str
    help: str
    storages: bool = False


COMMANDS = {
    "serve": _Entry("serve", "Run the bus in the foreground."),
    "check": _Entry("steer", "Say whether the configuration is right, or what does not fit php-fpm (`check fpm`)."),
    "reload": _Entry("steer", "Let the running bus read its configuration anew."),
    "upgrade": _Entry("steer", "Let the running bus become the code on disk, without an end of service."),
    "restart": _Entry("steer", "Drain one process of the running bus; another takes its place."),
    "stop": _Entry("steer", "Stop the running bus."),
    "fpm-pool": _Entry("steer", "Print a php-fpm pool file made for the bus."),
    "password": _Entry("password", "Print the hash of a password, for the configuration."),
    "completion": _Entry("completion", "Print what makes your shell complete commands, queues and topics."),
    "push": _Entry("push", "Push jobs through the gateway."),
    "status": _Entry("inspect", "Queues, depths, rates, processes, storages; what is wrong comes first.", True),
    "nodes": _Entry("nodes", "Every node that shares a storage: its versions and processes.", True),
    "top": _Entry("top", "The same, live: topics by backlog, rates, processes.", True),
    "doctor": _Entry("doctor", "What will hurt, most harmful first, each with the line to change.", True),
    "job": _Entry("inspect", "The whole life of one job.", True),
    "jobs": _Entry("inspect", "List the jobs of a topic by state, error and time.", True),
    "tail": _Entry("inspect", "Show attempts as they happen.", True),
    "find": _Entry("search", "Find jobs by id, trace, field or text.", True),
    "storage": _Entry("storage", "Storages: how they are; move a queue to another one.", True),
    "mark": _Entry("mark", "Set a mark on the charts: what was deployed when.", True),
    "queue": _Entry("queues", "Show, add, change and remove queues.", True),
    "schedule": _Entry("schedule", "Jobs at given times: list, show, run now, pause, resume.", True),
    "pause": _Entry("jobs", "Stop feeding a queue or topic; pushes go on.", True),
    "resume": _Entry("jobs", "Feed a paused queue or topic again.", True),
    "replay": _Entry("replays", "Run dead or delayed jobs once more.", True),
    "replays": _Entry("replays", "Replays under way: look, go on, pause, cancel.", True),
    "purge": _Entry("jobs", "Delete jobs that wait or are dead.", True),
    "ping": _Entry("consumer", "Ask a topic's consumer whether it would take its jobs.", True),
    "send": _Entry("consumer", "Send one job straight to a consumer and show its answer.", True),
    "alarm": _Entry("alarms", "What is wrong and was, silences, a test of the channels.", True),
    "import": _Entry("moving", "Write queues' files from the Go system, supervisord or a crontab.", True),
    "export": _Entry("moving", "The way back to the Go system: configuration and jobs.", True),
    "user": _Entry("people", "Accounts of the dashboard and the API: add, list, set, disable, reset, remove."),
    "token": _Entry("people", "API tokens: add, list, revoke."),
    "audit": _Entry("people", "What was done, by whom, from where; whether that record is whole."),
}


class _Commands(click.Group):
    """Commands by table, so that `--help` imports nothing and `serve` stays unpatched."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if entry.storages:
            from gevent import monkey

            monkey.patch_all()
        module = importlib.import_module(f"pepperbus.cli.{entry.module}")
        word = cmd_name.replace("-", "_")
        command = getattr(module, f"{word}_" if keyword.iskeyword(word) else word)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table: nothing is imported to complete a command's name."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        found = [(name, entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=help) for name, help in found]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            raise click.UsageError(f"no command {args[0]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False),
    help="The node's configuration file. Else $PEPPERBUS_CONF, ./etc/pepperbus.conf, /etc/pepperbus/pepperbus.conf.",
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, the same as the API's.")
@click.version_option(__version__, prog_name="pepperbus", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: str | None, as_json: bool) -> None:
    """Pepperbus: a job bus. Redis protocol in, FastCGI and HTTP out, nothing accepted is lost.

    Exit status: 0 done, 1 failed or not found, 2 wrong usage, 3 the bus is not reachable or cannot start.
    """
    ctx.obj = {"config": config, "json": as_json}
    if not config and not os.environ.get("PEPPERBUS_CONF"):
        _say_which()


def _say_which() -> None:
    """Whoever stands in a clone on a machine with an installed bus easily means the other one."""
    from pepperbus.config.load import SEARCHED

    found = [path for path in SEARCHED if os.access(path, os.F_OK)]
    if len(found) > 1:
        click.echo(f"pepperbus: using {found[0].absolute()}; -c {found[1]} means the installed bus", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        code = cli.main(args=arguments, prog_name="pepperbus", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        return 2
    except click.ClickException as error:
        words = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "pepperbus"
        return _fail(f"{error.format_message()} (see `{words} --help`)", 2)
    except click.Abort:
        return _fail("interrupted", 1)
    except PepperbusError as error:
        return _fail(str(error), error.exit_status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output has left: nothing more to say
        return 0
    except OSError as error:
        return _fail(f"{error.filename or error.__class__.__name__}: {error.strerror or error}", 1)


def _fail(message: str, status: int) -> int:
    for line in message.splitlines() or [""]:
        click.echo(f"pepperbus: {line}", err=True)
    return status
