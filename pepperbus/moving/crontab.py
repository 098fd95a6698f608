"""A crontab's lines as queues with a schedule and a command for each firing. Floor 1."""

from __future__ import annotations

import re
import shlex

from pepperbus.moving.draft import Draft, Section

_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)\Z")
_WORDS = {"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
_SAME = {"@midnight": "@daily", "@annually": "@yearly"}
_SHELL = re.compile(r"[|<>;&$*`~(){}\[\]?!\\]")
#: Variables that tell cron itself something.
_CRONS = {
    "MAILTO": "nobody is mailed; a failed run is a dead job with its output, and alarms tell of those",
    "RANDOM_DELAY": "write jitter into [schedule]",
    "MAILFROM": "nobody is mailed",
    "START_HOURS_RANGE": "no such thing here",
}


def read(text: str, name: str = "crontab", system: bool = False) -> Draft:
    """Every line of one crontab. `system`: the sixth word is a user, as in /etc/crontab and /etc/cron.d."""
    draft = Draft()
    environment: Section = {}
    zone = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        where = f"{name}:{number}: {line}"
        if not line or line.startswith("#"):
            continue
        if (match := _VARIABLE.match(line)) and not line.startswith("@"):
            key, value = match[1], match[2].strip().strip("\"'")
            if key == "CRON_TZ":
                zone = value
            elif key in _CRONS:
                draft.left.append(f"{where}: {_CRONS[key]}")
            else:
                environment[key] = value
            continue
        _job(draft, where, f"{name}:{number}", line, dict(environment), zone, system)
    if draft.queues and not system:
        draft.left.append(
            f"{name}: cron starts a line in its user's home and as that user; here directory = / and the bus' user"
        )
    return draft


def _job(draft: Draft, where: str, place: str, line: str, environment: Section, zone: str, system: bool) -> None:
    fields = 1 if line.startswith("@") else 5
    words = line.split(None, fields + system)
    if len(words) <= fields + system:
        draft.left.append(f"{where}: not a crontab's line")
        return
    expression = " ".join(words[:fields])
    if fields == 1 and expression not in _WORDS:
        draft.left.append(f"{where}: {expression} is not known here; keep alive what shall always run with feed = none")
        return
    command, given = _percent(words[-1])
    shell = environment.pop("SHELL", "/bin/sh")
    topic: Section = {"run": "command", "feed": "exec", "command": _line(command, shell), "children": "4"}
    topic["attempts"] = "1"
    if system:
        topic["user"] = words[fields]
    elif "HOME" in environment:
        topic["directory"] = environment["HOME"]
    if environment:
        topic["environment"] = environment
    schedule: Section = {"expression": _SAME.get(expression, expression)}
    schedule |= {"zone": zone} if zone else {}
    if "\n" in given:
        draft.left.append(f"{where}: its standard input has several lines, a payload has one; give it a script")
    elif given:
        schedule["payload"] = given
    name = draft.free_name(_called(command))
    draft.queues[name] = {"schedule": {"cron": schedule}, "topics": {"run": topic}}
    draft.about[name] = (
        f"{place}, written by `pepperbus import crontab`. As with cron, a run that failed is not repeated (attempts = 1) and\n"
        "one that was missed is not made up for (catch_up = skip); runs may overlap (overlap = allow, up to 4 at once)."
    )


def _percent(command: str) -> tuple[str, str]:
    """cron ends the command at the first bare %, and what follows is its standard input."""
    parts = re.split(r"(?<!\\)%", command)
    command, *rest = (part.replace("\\%", "%") for part in parts)
    return command.strip(), "\n".join(rest).rstrip("\n")


def _line(command: str, shell: str) -> str:
    if _SHELL.search(command) or shell != "/bin/sh":
        return f"{shell} -c {shlex.quote(command)}"
    return command


def _called(command: str) -> str:
    """What people would call it: the script's name, or the last thing that looks like one."""
    words = [word for word in re.split(r"[\s;|&<>'\"]+", command) if re.match(r"[\w./:-]*\w\Z", word)]
    words = [
        word
        for word in words
        if word not in ("cd", "php", "python", "python3", "sh", "bash", "-c", "-q", "exec", "nice", "flock")
    ]
    scripts = [word for word in words if re.search(r"\.(php|py|sh|pl|rb|js)\Z", word)]
    named = [word for word in words if re.match(r"[\w-]+:[\w:-]+\Z", word)]  # artisan's and console's commands
    chosen = (named or scripts or words or ["job"])[0]
    return re.sub(r"\.(php|py|sh|pl|rb|js)\Z", "", chosen.rpartition("/")[2])
