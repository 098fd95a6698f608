"""What every command needs: the office for its configuration, output as text or JSON, and asking before harm."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pepperbus.accounts.model import HOST_ROLES, Actor
from pepperbus.config.load import find, load
from pepperbus.config.model import Bus, Config
from pepperbus.config.node import build
from pepperbus.config.source import read
from pepperbus.errors import BootError, ConfigError, UsageError
from pepperbus.operations.office import Office
from pepperbus.operations.results import to_json


def config_path(ctx: click.Context) -> Path | None:
    given = ctx.find_root().obj["config"]
    return Path(given) if given else None


def load_config(ctx: click.Context) -> Config:
    return load(config_path(ctx), os.environ)


def _node_config(ctx: click.Context) -> Config:
    main = read(find(config_path(ctx), os.environ))
    config = build(main)
    if main.mistakes:
        raise ConfigError(*main.mistakes)
    return config


def wants_json(ctx: click.Context) -> bool:
    return bool(ctx.find_root().obj["json"])


@contextmanager
def office(ctx: click.Context, queues: bool = True) -> Iterator[Office]:
    """The office of this command's configuration; its storages are closed after.

    `queues` False: of the node's file alone, so that a mistake in a queue's file keeps nobody from stopping the bus.
    """
    from pepperbus.master.control import ask

    config = load_config(ctx) if queues else _node_config(ctx)
    opened = Office(config, lambda request: ask(config.bus.run_dir, request, 60.0))
    opened.actor = Actor(whoever(), roles=HOST_ROLES)
    try:
        yield opened
    finally:
        opened.close()


def whoever() -> str:
    """Who typed this, for the audit log: the login of the terminal, and whom they became (`anna as root`)."""
    try:
        login = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        login = 2**32 - 1
    became = _user_name(os.getuid())
    first = _user_name(login) if login != 2**32 - 1 else os.environ.get("SUDO_USER", became)
    return became if first == became else f"{first} as {became}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def act_as_daemon(bus: Bus) -> None:
    """Root becomes whom the bus runs as, for good, so that no file made from here on locks it out. Others stay."""
    if account := daemon_account(bus):
        user, group = account
        _take_groups(user, group)
        os.setgid(group)
        os.setuid(user)


@contextmanager
def as_daemon(bus: Bus) -> Iterator[None]:
    """The same for a while."""
    account = daemon_account(bus)
    if not account:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    _take_groups(*account)
    os.setegid(account[1])
    os.seteuid(account[0])
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def daemon_account(bus: Bus) -> tuple[int, int] | None:
    """User and group to become: `[bus] user`, else the owner of data_dir. None when that is who we are.

    A service manager that starts the bus as its own user (systemd's User=) leaves `[bus] user` empty; whose the data
    is says it then.
    """
    if os.geteuid() != 0:
        return None
    if not bus.user:
        return _owner(bus.data_dir)
    try:
        account = pwd.getpwnam(bus.user)
    except KeyError as error:
        raise BootError(f"[bus] user = {bus.user}: there is no such account on this machine") from error
    return account.pw_uid, _group_id(bus.group) if bus.group else account.pw_gid


def _owner(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return (found.st_uid, found.st_gid) if found.st_uid != 0 else None


def _take_groups(user: int, group: int) -> None:
    """The groups of that account: php-fpm's socket is often open to one of them."""
    try:
        os.initgroups(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        os.setgroups([group])


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise BootError(f"[bus] group = {name}: there is no such group on this machine") from error


def show(ctx: click.Context, result: Any, text: Callable[[Any], None]) -> None:
    """Print a result: as JSON under --json, else by `text`."""
    if wants_json(ctx):
        click.echo(to_json(result, 2))
    else:
        text(result)


def confirm(question: str, yes: bool) -> None:
    """Ask before harm. Without a terminal and without --yes it is refused."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} Nobody can be asked here: say --yes, or --dry-run to see what would happen.")
    if not click.confirm(question, err=True):
        raise click.Abort


def epoch_ms(text: str, now_ms: int) -> int:
    """`1h`, `30m` (that long ago), a unix time or `2026-01-31T12:00` (local) as ms. Raises UsageError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        if text[-1:] in units:
            return now_ms - int(float(text[:-1]) * units[text[-1]] * 1000)
        if text.replace(".", "", 1).isdigit():
            return int(float(text) * 1000)
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no time: say 30m, 1h or 2d (ago), a date like 2026-01-31T12:00, or unix seconds"
        ) from error
