"""What the routes of the API take: queries and bodies, checked by their types before anything happens. Floor 5."""

from __future__ import annotations

import msgspec


class Nothing(msgspec.Struct):
    """Takes nothing."""


class JobsQuery(msgspec.Struct):
    """`state`: ready, delayed, leased or dead. `error`: part of the reason. `since_ms`: died or accepted since."""

    state: str = "dead"
    error: str = ""
    since_ms: int = 0
    cursor: str = ""
    n: int = 100


class TopicsQuery(msgspec.Struct):
    """`q`: part of the name or the target. `system` "-": without one. `state`: a topic's state, or trouble, waiting, with-dead.

    `sort`: name, state, waiting, delayed, running, dead, in, out, clear, oldest, wait or run; with a - from the highest down.
    `cursor`: that of the page before, `before`: that of the page after; both with the same `sort`. `n`: so many.
    """

    q: str = ""
    system: str = ""
    state: str = ""
    storage: str = ""
    pool: str = ""
    sort: str = "name"
    cursor: str = ""
    before: str = ""
    n: int = 100


class QueuesQuery(msgspec.Struct):
    """`cursor`: that of the page before, `before`: that of the page after."""

    cursor: str = ""
    before: str = ""
    n: int = 100


class EventsQuery(msgspec.Struct):
    """What to look for in the journal; `error` is part of the reason, `text` part of the kept content.

    `trace`: a whole trace id; `field`: `path=value` of a queue's `index`.
    """

    topic: str = ""
    outcome: str = ""
    since_ms: int = 0
    error: str = ""
    text: str = ""
    trace: str = ""
    field: str = ""
    limit: int = 100


class FindQuery(msgspec.Struct):
    """`word`: whatever one knows of a job."""

    word: str = ""
    limit: int = 100


class TailQuery(msgspec.Struct):
    """`name`: a queue, a topic or, empty, all."""

    name: str = ""
    failed: bool = False


class RemoveQuery(msgspec.Struct):
    """`keep_jobs`: jobs that lie there stay in their storage, visible as detached. `drain`: it takes no new jobs any more, and
    is removed once it is empty."""

    keep_jobs: bool = False
    drain: bool = False


class PushBody(msgspec.Struct, forbid_unknown_fields=True):
    """`encoding` "base64": every content is base64. `front`: ahead of all waiting jobs. `due_ms`: not before then."""

    contents: list[str]
    encoding: str = ""
    front: bool = False
    due_ms: int = 0


class SettingsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Keys as in `queue set`: `key` of the queue, `topic/key`, `topic/params/KEY`, `schedule/NAME/key`; of a schedule `key`."""

    settings: dict[str, str] = msgspec.field(default_factory=dict)
    unset: list[str] = msgspec.field(default_factory=list)


class TextBody(msgspec.Struct, forbid_unknown_fields=True):
    """A queue's whole file. `***` stands for the secret that stands there."""

    text: str


class SelectionBody(msgspec.Struct, forbid_unknown_fields=True):
    """These ids, or every job in `state` whose reason holds `error` and that died or came since `since_ms`."""

    ids: tuple[str, ...] = ()
    state: str = ""
    error: str = ""
    since_ms: int = 0
    dry_run: bool = False


class ReplayBody(SelectionBody, forbid_unknown_fields=True):
    """`text`: part of the content. `sample`: a share of them (0 to 1). `gray`: "5%" or "20" jobs first, then it waits.

    `canary`: those go to the second consumer. `rate`: jobs a second. `stop_at_errors`: end at this share of failures. `go`
    false: plan only.
    """

    text: str = ""
    sample: float = 1.0
    gray: str = ""
    canary: bool = False
    rate: float = 0.0
    stop_at_errors: float = 0.0
    go: bool = True


class ReplaysQuery(msgspec.Struct):
    """`topic`: of one topic only."""

    topic: str = ""


class SendBody(msgspec.Struct, forbid_unknown_fields=True):
    """One job straight to the consumer, which really runs it. `timeout` 0: the topic's own. `node`: from there; "": here."""

    content: str = ""
    encoding: str = ""
    attempt: int = 1
    timeout: float = 0.0
    node: str = ""


class PingBody(msgspec.Struct, forbid_unknown_fields=True):
    """`node`: called from there; "": from here."""

    node: str = ""


class StopBody(msgspec.Struct, forbid_unknown_fields=True):
    """`now`: running attempts get no grace."""

    now: bool = False


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    """How many gateway processes more (or, below 0, less)."""

    change: int


class UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """`roles`: system (`*`: every system and the node) -> viewer, operator or admin. Without `password` one is invented."""

    roles: dict[str, str]
    password: str = ""


class UserChangeBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is null stays as it is."""

    roles: dict[str, str] | None = None
    disabled: bool | None = None


class ResetBody(msgspec.Struct, forbid_unknown_fields=True):
    """Without `password` one is invented."""

    password: str = ""


class PasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    """One's own: the old one and the new."""

    old: str
    new: str


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """`role` and `systems` narrow what the owner may; `*` means all of the owner's. `owner`: for administrators."""

    name: str
    role: str
    days: float
    systems: tuple[str, ...] = ("*",)
    owner: str = ""


class MarkBody(msgspec.Struct, forbid_unknown_fields=True):
    """`system`: whose charts it is drawn on; "" all, for who may operate every system."""

    text: str
    system: str = ""


class DrainBody(msgspec.Struct, forbid_unknown_fields=True):
    """`to`: a storage. `alone`: other nodes that share one have been seen to."""

    to: str
    alone: bool = False


class SampleBody(msgspec.Struct, forbid_unknown_fields=True):
    """`encoding`: "" or base64."""

    content: str
    encoding: str = ""


class MarksQuery(msgspec.Struct):
    """`name`: those that concern a queue or topic."""

    since_ms: int = 0
    name: str = ""


class AuditQuery(msgspec.Struct):
    """`about` matches from its beginning; `result`: done, failed, refused or begun; `before` is the `cursor` of the page
    before."""

    who: str = ""
    what: str = ""
    about: str = ""
    result: str = ""
    since_ms: int = 0
    before: int = 0
    limit: int = 100


class RuleBody(msgspec.Struct, forbid_unknown_fields=True):
    """`text` as in the file, such as `5000 for 5m, end 1000`; "": as it is everywhere. `system` "": everywhere."""

    text: str = ""
    system: str = ""


class AlarmsQuery(msgspec.Struct):
    """`topic`: only what concerns it, with the rules as they hold for it. `language` of the texts: en or zh."""

    topic: str = ""
    language: str = "en"


class AlarmHistoryQuery(msgspec.Struct):
    """`subject`: a topic, a queue with all of its topics, a storage or a node. `before`: the `cursor` of the page before."""

    subject: str = ""
    rule: str = ""
    before: int = 0
    limit: int = 100
    language: str = "en"


class SilenceBody(msgspec.Struct, forbid_unknown_fields=True):
    """`rule` "": every rule. `for_s`: for how long, 90 days at most."""

    rule: str = ""
    for_s: float = 3600.0
    why: str = ""


class SubjectSilenceBody(SilenceBody, forbid_unknown_fields=True):
    """`subject`: a queue, topic, storage or node; "": everything."""

    subject: str = ""


class AlarmTestBody(msgspec.Struct, forbid_unknown_fields=True):
    """`channel` "": all of them."""

    channel: str = ""


class VerifyQuery(msgspec.Struct):
    """`known`: a hash noted earlier that must be in the chain."""

    known: str = ""
