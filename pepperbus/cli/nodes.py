"""`pepperbus nodes`: every node, its versions and processes."""

from __future__ import annotations

import click

from pepperbus.cli import words
from pepperbus.cli.session import act_as_daemon, office, show
from pepperbus.operations import nodes as everywhere
from pepperbus.operations.itself import Itself, Process
from pepperbus.operations.nodes import NodeReport


@click.command()
@click.pass_context
def nodes(ctx: click.Context) -> int:
    """Show this node and those that share a storage with it: versions, then every process.

    The others are asked through that storage, which takes them a second or two; one that does not answer is named with the
    reason. Exit status: 0 all told, 1 one of them did not.
    """
    with office(ctx) as opened:
        act_as_daemon(opened.config.bus)
        found = everywhere.nodes(opened)
    show(ctx, found, _nodes)
    return 0 if all(one.told and one.told.running for one in found) else 1


def _nodes(found: list[NodeReport]) -> None:
    words.table(
        ("node", "alive", "version", "commit", "python", "storages", "last mark"), [_node(one) for one in found]
    )
    words.table(
        ("node", "process", "state", "pid", "up", "restarts", "memory", "cpu", "queues", ""),
        [_process(one.node, process) for one in found if one.told for process in one.told.processes],
    )
    for one in found:
        if why := one.error or (one.told.why if one.told else ""):
            click.echo(
                click.style("! ", fg="red")
                + words.printable(f"{one.node}: {why}".replace(f"{one.node}: node ", "node "))
            )


def _node(one: NodeReport) -> tuple[object, ...]:
    told = one.told or Itself(one.node, False)
    alive = "this one" if one.here else "yes" if one.alive else f"NO, {words.span(one.silent_s)}"
    storages = ", ".join(f"{s.name}: {s.version or 'no answer'}" for s in told.storages) or ", ".join(one.storages)
    mark = f"{told.deployed} ({words.when(told.deployed_ms)[:16]})" if told.deployed else ""
    return one.node, alive, told.version, told.commit[:12], told.python, storages, words.short(mark, 60)


def _process(node: str, one: Process) -> tuple[object, ...]:
    queues = ", ".join(one.queues) + (f" and {one.more} more" if one.more else "")
    up, memory, cpu = words.span(one.uptime_s), words.size(one.memory), f"{one.cpu:.0f}%"
    why = words.short(one.reason, 60)
    return node, one.name, one.state, one.pid or "", up, one.restarts, memory, cpu, words.short(queues, 60), why
