"""`pepperbus completion bash|zsh|fish`, and the names of queues and topics that the shell then offers.

Floor 6. Completing never fails and never talks to a storage: names come from the configuration, none when it is broken.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from pepperbus.errors import PepperbusError

_VARIABLE = "_PEPPERBUS_COMPLETE"
_HOW = {
    "bash": "pepperbus completion bash > /etc/bash_completion.d/pepperbus",
    "zsh": "pepperbus completion zsh > /usr/share/zsh/vendor-completions/_pepperbus",
    "fish": "pepperbus completion fish > ~/.config/fish/completions/pepperbus.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options, queues and topics. Put it where your shell looks.

    \b
    pepperbus completion bash > /etc/bash_completion.d/pepperbus
    pepperbus completion zsh > /usr/share/zsh/vendor-completions/_pepperbus
    pepperbus completion fish > ~/.config/fish/completions/pepperbus.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    made = found(ctx.find_root().command, {}, "pepperbus", _VARIABLE)
    click.echo(f"# {_HOW[shell]}")
    click.echo(made.source_template % made.source_vars())


def topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """`queue/topic`."""
    return [name for queue, names in _known(ctx).items() for name in names if name.startswith(incomplete)]


def queues(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in _known(ctx) if name.startswith(incomplete)]


def either(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """`queue` and `queue/topic`."""
    return [*queues(ctx, param, incomplete), *topics(ctx, param, incomplete)]


def pools(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """php-fpm pools of the configuration."""
    from pepperbus.config.load import load

    try:
        return [name for name in load(_given(ctx), os.environ).pools if name.startswith(incomplete)]
    except PepperbusError:
        return []


def _known(ctx: click.Context) -> dict[str, list[str]]:
    from pepperbus.config.load import load

    try:
        found = load(_given(ctx), os.environ).queues
    except PepperbusError:
        return {}
    return {name: [topic.full_name for topic in queue.topics.values()] for name, queue in found.items()}


def _given(ctx: click.Context) -> Path | None:
    text = ctx.find_root().params.get("config")
    return Path(text) if text else None
