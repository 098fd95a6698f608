"""`pepperbus check`, `reload`, `upgrade`, `stop`, `fpm-pool`: what needs no storage."""

from __future__ import annotations

import click

from pepperbus.cli import completion
from pepperbus.cli.session import act_as_daemon, config_path, load_config, office, show, wants_json
from pepperbus.errors import NotFound, PepperbusError
from pepperbus.operations import steer
from pepperbus.operations.results import Checked, Steered


@click.command()
@click.argument("what", type=click.Choice(["fpm"]), required=False)
@click.argument("pool", required=False, shell_complete=completion.pools)
@click.pass_context
def check(ctx: click.Context, what: str | None, pool: str | None) -> int:
    """Say whether the configuration is right, or name every mistake: file, line, key, what was found, what is allowed.

    `check fpm [POOL]`: what of php-fpm's pools (or of POOL) will hurt, each with the line to change. Exit status 1: something.
    """
    if what:
        from pepperbus.cli.doctor import answer
        from pepperbus.operations.doctor import check_fpm

        with office(ctx) as opened:
            act_as_daemon(opened.config.bus)
            return answer(ctx, check_fpm(opened, pool or ""))
    checked = steer.check(config_path(ctx))
    show(ctx, checked, _checked)
    return 0 if checked.ok else 1


def _checked(checked: Checked) -> None:
    for mistake in checked.mistakes:
        click.echo(f"pepperbus: {mistake}", err=True)
    if checked.ok:
        click.echo(
            f"configuration ok: {_count(checked.queues, 'queue')}, {_count(checked.topics, 'topic')}, "
            f"{_count(checked.storages, 'storage')} ({checked.file})"
        )
    for note in checked.notes:
        click.echo(f"note: {note}")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


@click.command()
@click.pass_context
def reload(ctx: click.Context) -> None:
    """Let the running bus read its configuration anew.

    Waits until the bus has taken it, or says why not: then everything goes on as it was. Only queues that changed are
    touched; no producer is cut.
    """
    with office(ctx, queues=False) as opened:
        steered = steer.reload(opened)
    _steered(ctx, steered)


@click.command()
@click.argument("process")
@click.pass_context
def restart(ctx: click.Context, process: str) -> None:
    """Drain one process of the running bus (its name in `status`, such as worker.orders.0); another takes its place."""
    with office(ctx, queues=False) as opened:
        steered = steer.restart(opened, process)
    _steered(ctx, steered)


@click.command()
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Let the running bus become the code on disk, without an end of service.

    First a process of the new code tries everything: imports, configuration, storages. If that fails nothing changes. Then
    the master goes on as the new code, with the same pid and sockets, and its processes are replaced one by one; old workers
    finish what they run. Waits until all are replaced.
    """
    with office(ctx, queues=False) as opened:
        steered = steer.upgrade(opened)
    _steered(ctx, steered)


@click.command()
@click.option("--now", is_flag=True, help="Give running attempts no grace; what runs then counts as cut after sending.")
@click.pass_context
def stop(ctx: click.Context, now: bool) -> None:
    """Stop the running bus. Nothing accepted is lost: jobs stay in their storages."""
    with office(ctx, queues=False) as opened:
        steered = steer.stop(opened, now)
    _steered(ctx, steered)


def _steered(ctx: click.Context, steered: Steered) -> None:
    if steered.ok or wants_json(ctx):
        show(ctx, steered, _done)
    if not steered.ok:
        raise PepperbusError(steered.message or f"{steered.op} was refused")


def _done(steered: Steered) -> None:
    if steered.op == "stop":
        click.echo("stopped")
        return
    answer = steered.answer
    if steered.op == "upgrade":
        versions = (
            f"{answer['before']} to {answer['after']}" if answer["before"] != answer["after"] else answer["after"]
        )
        click.echo(f"upgraded: version {versions}; processes replaced: {answer['replaced']}")
        return
    for key, text in (
        ("added", "added"),
        ("changed", "changed"),
        ("removed", "removed"),
        ("needs_restart", "needs a restart"),
    ):
        if answer.get(key):
            click.echo(f"{text}: {', '.join(answer[key])}")
    click.echo(f"generation {answer.get('generation', '?')} is in force")


@click.command("fpm-pool")
@click.argument("pool", required=False, shell_complete=completion.pools)
@click.pass_context
def fpm_pool(ctx: click.Context, pool: str | None) -> None:
    """Print a php-fpm pool file made for the bus, with the reason for every line.

    Put it into php-fpm's pool.d, reload php-fpm, and name its socket in a `[fastcgi]` pool with `dedicated = yes`. With
    POOL, the name of such a pool in the configuration, the file fits its address, connections and topics.
    """
    from pepperbus.delivery.fpm_pool import pool_file

    if pool is None:
        click.echo(pool_file(), nl=False)
        return
    config = load_config(ctx)
    if pool not in config.pools:
        raise NotFound(f"no [fastcgi] pool {pool!r}; the configuration names: {', '.join(config.pools) or 'none'}")
    topics = [topic for queue in config.queues.values() for topic in queue.topics.values() if topic.pool == pool]
    click.echo(pool_file(config.pools[pool], topics, config.gateway.max_bulk), nl=False)
