"""supervisord's [program:x] as queues that keep the same processes alive. Floor 1."""

from __future__ import annotations

import configparser
import re
import shlex

from pepperbus.moving.draft import Draft, Section

_DONE = {"command", "numprocs", "directory", "user", "environment", "autostart", "process_name"}
#: What supervisord does and how that is here.
_INSTEAD = {
    "autorestart": "a child that ends is always started again, with a growing wait",
    "stdout_logfile": "output is kept by the bus, cut at a limit",
    "stderr_logfile": "output is kept by the bus, cut at a limit",
    "redirect_stderr": "output is kept by the bus, cut at a limit",
    "stopsignal": "children are stopped by SIGINT, after [bus] grace by SIGKILL, with all they started",
    "stopwaitsecs": "the wait between SIGINT and SIGKILL is [bus] grace",
    "stopasgroup": "always so here",
    "killasgroup": "always so here",
    "startsecs": "a child that ends at once is started again more and more slowly",
    "startretries": "it is never given up",
}


def read(text: str, name: str = "supervisord.conf") -> Draft:
    """The programs of one file. Raises ValueError for what supervisord could not read either."""
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",), allow_no_value=True)
    try:
        parser.read_string(text, name)
    except configparser.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    draft = Draft()
    for section in parser.sections():
        kind, _, program = section.partition(":")
        if kind == "program":
            _program(draft, program.strip(), {key: value or "" for key, value in parser.items(section)})
        elif kind == "include":
            draft.left.append(f"[include] files = {parser.get(section, 'files', fallback='')}: name these files too")
        elif kind in ("group", "eventlistener", "fcgi-program"):
            draft.left.append(f"[{section}]: no such thing here")
    return draft


def _program(draft: Draft, program: str, given: dict[str, str]) -> None:
    label = f"[program:{program}]"
    command = given.get("command", "").replace("%(program_name)s", program)
    if not command:
        draft.left.append(f"{label}: no command")
        return
    topic: Section = {"run": "command", "feed": "none", "command": _line(command)}
    for theirs, ours in (("numprocs", "children"), ("directory", "directory"), ("user", "user")):
        if given.get(theirs):
            topic[ours] = given[theirs]
    if given.get("autostart", "").lower() in ("false", "0", "off", "no"):
        topic["paused"] = "yes"
    if environment := given.get("environment", ""):
        topic["environment"] = _environment(draft, label, environment)
    if "%(" in command + given.get("environment", ""):
        draft.left.append(f"{label} command: %(…)s is not filled in here; write the text itself")
    for key, value in given.items():
        if key not in _DONE:
            draft.left.append(f"{label} {key} = {value}: {_INSTEAD.get(key, 'no such thing here')}")
    name = draft.free_name(program)
    draft.queues[name] = {"topics": {"daemon": topic}}
    draft.about[name] = (
        f"{label}, written by `pepperbus import supervisor`. Once it takes its jobs from here instead of a list of its own,\n"
        "give it feed = stdin, or let it pop: docs/MIGRATE.md."
    )


def _line(command: str) -> str:
    """A command line for which no shell is there."""
    if re.search(r"[|<>;&$*`]", command):
        return f"sh -c {shlex.quote(command)}"
    return " ".join(command.split())


def _environment(draft: Draft, label: str, text: str) -> Section:
    made: Section = {}
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    try:
        words = [word.strip() for word in lexer]
    except ValueError as error:
        draft.left.append(f"{label} environment: {error}")
        return made
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            made[key.strip()] = value.strip()
    return made
