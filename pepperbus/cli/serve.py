"""`pepperbus serve`. It imports the master and nothing that imports gevent: a patched master would miss SIGCHLD."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--chaos", is_flag=True, help="For tests of crashes: obey $PEPPERBUS_FAILPOINTS (docs/RELIABILITY.md).")
@click.pass_context
def serve(ctx: click.Context, chaos: bool) -> int:
    """Run the bus in the foreground until TERM or INT.

    TERM drains (running attempts get `[bus] grace`), INT and QUIT give work back at once, HUP reloads, USR1 reopens
    the logs, USR2 upgrades to the code on disk, TTIN and TTOU start or end a gateway process. Exit status: 0 ended as
    told, 3 could not start, 1 a bug.
    """
    from pepperbus.master.serve import run

    given = ctx.find_root().obj["config"]
    return run(Path(given) if given else None, chaos=chaos)
