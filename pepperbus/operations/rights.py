"""The one place where rights are checked and deeds are written down.

Floor 4. Every operation is wrapped by `operation`: it names the right it needs and what it is about, and for those that
change something the audit log gets a line before and after. Who acts stands in the office (`Office.acting`); the command line
acts as the host, because whoever may read the configuration and write the bus' data could do the same by hand.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from pepperbus.accounts.model import EVERYWHERE, Right, Via
from pepperbus.errors import Forbidden, PepperbusError
from pepperbus.operations.office import Office

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

ANYWHERE = ""  # whatever system


@runtime_checkable
class Selected(Protocol):
    """What of a selection of jobs is looked at here."""

    topic: str
    ids: tuple[int, ...]
    state: Any
    error: str
    since_ms: int


#: How the deeds are called that are written down, as far as their modules are loaded.
DEEDS: set[str] = {"login", "logout", "setup"}

_facts: ContextVar[dict[str, dict[str, Any]] | None] = ContextVar("facts", default=None)


def operation(
    right: Right,
    about: str = "",
    *,
    node: bool = False,
    system: Callable[[Mapping[str, Any]], str] | None = None,
    audited: bool | None = None,
    details: Iterable[str] = (),
    tells: Iterable[str] = (),
) -> Callable[[Callable[_Params, _Result]], Callable[_Params, _Result]]:
    """Mark a function whose first argument is the office as an operation.

    `about`: the argument that names a queue, a topic or a selection of its jobs; the right is then needed in that queue's
    system, else on the whole node; `system` says which one it is for what is in no configuration yet. Looking (VIEW)
    without `about` needs the right somewhere, unless it is a matter of the `node`, and the function itself leaves out what
    the actor may not see. `audited`: unless it only looks. `details`: arguments, `tells`: fields of the result, that are
    written down.
    """

    def decorate(function: Callable[_Params, _Result]) -> Callable[_Params, _Result]:
        signature = inspect.signature(function)
        name = what_of(function)
        changes = right > Right.VIEW if audited is None else audited
        if changes:
            DEEDS.add(name)

        @functools.wraps(function)
        def checked(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            office: Office = given["office"]
            subject = _subject(given[about]) if about else ""
            written = changes and not given.get("dry_run")
            where = _where(office, right, subject, node)
            if system is not None and subject not in office.config.queues:
                where = system(given) or EVERYWHERE
            allowed = functools.partial(require, office, right, where, f"{name} {subject}".strip())
            if not written:
                allowed()
                return function(*args, **kwargs)
            shown = {key: _plain(value) for key in details if (value := given[key]) not in ("", 0, 0.0, None, (), [])}
            return _recorded(office, name, subject, shown, tells, allowed, lambda: function(*args, **kwargs))

        checked.right, checked.tells, checked.audited = right, tuple(tells), changes  # type: ignore[attr-defined]
        return checked

    return decorate


def what_of(function: Callable[..., Any]) -> str:
    """`queues.add` -> `queue.add`; `pause.pause` -> `pause`: how a deed is called in the audit log."""
    module = function.__module__.rpartition(".")[2]
    name = function.__name__.rstrip("_")
    return name if module in (name, "pause", "steer", "consumer") else f"{module.removesuffix('s')}.{name}"


def note(*, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> None:
    """Called inside an operation: how it was before, how it is after. Secrets must be out of it already."""
    facts = _facts.get()
    if facts is not None:
        facts["before"].update(before or {})
        facts["after"].update(after or {})


def may(office: Office, right: Right, name: str = EVERYWHERE) -> bool:
    """Whether the office's actor has `right` on a queue or topic of that name, or on the node."""
    return office.actor.may(right, system_of(office, name))


def system_of(office: Office, name: str) -> str:
    """The system of `queue` or `queue/topic`; EVERYWHERE for one in no configuration and for queues without a system."""
    queue = office.config.queues.get(name.partition("/")[0])
    return (queue.system if queue else "") or EVERYWHERE


def require(office: Office, right: Right, system: str, what: str) -> None:
    """Raises Forbidden. For what an operation finds out only on its way, such as the system a queue moves to."""
    actor = office.actor
    if actor.may_somewhere(right) if system == ANYWHERE else actor.may(right, system):
        return
    role = {Right.VIEW: "viewer", Right.OPERATE: "operator", Right.ADMIN: "admin"}[right]
    where = {EVERYWHERE: " for every system", ANYWHERE: ""}.get(system, f" in system {system}")
    raise Forbidden(f"{actor.name} may not {what}: that needs the role {role}{where}")


def _where(office: Office, right: Right, subject: str, node: bool) -> str:
    if subject:
        return system_of(office, subject)
    return ANYWHERE if right is Right.VIEW and not node else EVERYWHERE


def _plain(value: Any) -> Any:
    """An argument as it is written down: of a selection what it selects by, not ten thousand ids."""
    if not isinstance(value, Selected):
        return value
    chosen = {"state": str(value.state), "error": value.error, "since_ms": value.since_ms}
    if value.ids:
        chosen = {"ids": [str(i) for i in value.ids[:20]], "count": len(value.ids)}
    return {key: one for key, one in chosen.items() if one}


def _subject(value: Any) -> str:
    """A name as it is; of a selection its topic."""
    return value if isinstance(value, str) else str(value.topic)


def _recorded(
    office: Office,
    what: str,
    subject: str,
    details: dict[str, Any],
    tells: Iterable[str],
    allowed: Callable[[], None],
    run: Callable[[], _Result],
) -> _Result:
    try:
        allowed()
    except Forbidden as refusal:
        office.audit.add(office.actor, what, subject, "refused", str(refusal), **details)
        raise
    try:
        begun = office.audit.begin(office.actor, what, subject, details)
    except PepperbusError as error:
        if what == "push" and office.actor.via is Via.CLI and isinstance(error.__cause__, PermissionError):
            return run()  # a local user with a queue's password pushes as any producer may
        raise PepperbusError(f"{error}; nothing was done") from error
    facts: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
    token = _facts.set(facts)
    outcome, reason = "failed", "the process was ended"
    try:
        result = run()
        outcome, reason = "done", ""
        facts["after"].update({key: getattr(result, key) for key in tells if getattr(result, key)})
        return result
    except PepperbusError as failure:
        reason = str(failure)
        raise
    except BaseException as failure:
        reason = type(failure).__name__
        raise
    finally:
        _facts.reset(token)
        office.audit.end(begun, outcome, reason, **facts)
