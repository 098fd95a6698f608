"""Alarms: look, decide, tell. Once a node, with the dashboard open or closed. Floor 4.

What was decided is written before anything is sent, in one transaction: incidents, and for each channel the message. A
message leaves the file when its receiver took it, so a kill -9 at any moment neither forgets nor invents one; only between
a receiver's answer and the file can the same message (with the same id) go out again.

Nodes that share a storage see the same backlog. Who is first to put its name under the incident's name in that storage
speaks for all; when that node falls silent, another one takes over what is left to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.alarms import channels, message, service
from pepperbus.alarms.board import Board, Incident
from pepperbus.alarms.rules import concerns
from pepperbus.alarms.store import Silence, Store, Waiting
from pepperbus.child import Child
from pepperbus.clock import Clock
from pepperbus.config.alarm_settings import Channel
from pepperbus.config.model import Config
from pepperbus.errors import NotFound, PepperbusError, StorageError
from pepperbus.storage.contract import Storage
from pepperbus.ticker.watch import SILENT_MS, Watch

_RETAIN_S = 3600.0
#: At most so many messages of a kind in this time (s): a flood that trickles in is gathered for longer.
_MOST, _IN_S = 10, 600.0


class Alarms:
    """The alarms of one node. `late`: what `Watch` wants to know of schedules."""

    def __init__(
        self,
        child: Child,
        clock: Clock,
        config: Callable[[], Config],
        storages: Mapping[str, Storage],
        late: Callable[[], Mapping[str, float]],
    ) -> None:
        self._log = child.log
        self._clock = clock
        self._config = config
        self._storages = storages
        self._store = Store(child.config.bus.data_dir)
        self._watch = Watch(config, storages, child.ask_master, late, clock.monotonic())
        self._board = Board(child.config.bus.node, {}, [], 0)
        self._untold: dict[int, Incident] = {}  # began or ended, and nobody was told yet
        self._common: dict[int, str] = {}  # incident -> the storage in which one node puts its name to it
        self._told_at: list[float] = []
        self._unsaved: dict[int, Incident] = {}  # what the file has not taken yet, and the messages that belong to it
        self._unposted: list[Waiting] = []
        self._taken: set[int] = set()  # messages that were taken, while the file would not hear of it
        self._looked_at = 0.0
        self._retained_at = -_RETAIN_S
        self._posted = Event()
        service.prepare(child.config.alarms)

    def run(self) -> None:
        """For ever: look; what fails is said in the log, and tried again."""
        gevent.spawn(self._send_for_ever)
        self._forever(self._resume, 1.0, once=True)
        self._forever(self._look, 0.0)

    def _forever(self, chore: Callable[[], None], wait: float, once: bool = False) -> None:
        told = ""
        while True:
            try:
                chore()
                told = ""
                if once:
                    return
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                if text != told:
                    self._log.error("chore_failed", text, chore="alarms")
                told = text
            gevent.sleep(wait or self._config().alarms.every)

    # -- look ------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Go on where this node was when it ended."""
        tracks, incidents, last_id = self._store.load()
        node = self._config().bus.node
        self._board = Board(node, tracks, [one for one in incidents if not one.ended_ms], last_id)
        self._untold = {one.id: one for one in incidents if not one.told_ms or one.ended_ms}

    def _look(self) -> None:
        now, now_ms, every = self._clock.monotonic(), self._clock.now_ms(), self._config().alarms.every
        measures = self._watch.look(now, now_ms)
        passed = min(now - self._looked_at, 3 * every) if self._looked_at else 0.0
        self._looked_at = now
        before = dict(self._board.tracks)
        touched = {one.id: one for one in self._board.look(measures, passed, now_ms)}
        for one in touched.values():
            if one.ended_ms or not one.told_ms:
                self._untold[one.id] = one
            if one.ended_ms or one.began_ms == now_ms:
                self._log.warning("alarm_ended" if one.ended_ms else "alarm_began", f"{one.rule} {one.subject}")
        self._common = {
            one.id: measures[one.key].storage
            for one in (*self._board.open.values(), *self._untold.values())
            if one.key in measures and measures[one.key].storage
        }
        self._unsaved |= touched | self._take_over()
        posts, told = self._tell(now, now_ms)
        self._unsaved |= told
        self._unposted += posts
        if self._unsaved or self._board.tracks != before:
            self._save()
        if now - self._retained_at >= _RETAIN_S:
            self._retained_at = now
            self._store.retain(now_ms - int(self._config().alarms.keep * 1000))

    def _save(self) -> None:
        self._store.save(self._board.tracks, self._unsaved.values(), self._unposted)
        self._unsaved = {}
        if self._unposted:
            self._unposted = []
            self._posted.set()

    # -- tell ------------------------------------------------------------------------------------------------------

    def _tell(self, now: float, now_ms: int) -> tuple[list[Waiting], dict[int, Incident]]:
        """The messages that are due, and the incidents that were changed by that."""
        settings = self._config().alarms
        touched: dict[int, Incident] = {}
        for one in [one for one in self._untold.values() if one.ended_ms and not one.told_ms]:
            touched[one.id] = self._close(one)  # over before anybody was told: nobody needs to be
        silences = self._store.silences(now_ms) if self._untold else []
        for one in [one for one in self._untold.values() if one.ended_ms and _silent(one, silences)]:
            touched[one.id] = self._close(one)
        ready = [one for one in self._untold.values() if not _silent(one, silences)]
        first_ms = min((one.ended_ms or one.began_ms for one in ready), default=now_ms)
        self._told_at = [at for at in self._told_at if now - at < _IN_S]
        if not ready or now_ms - first_ms < settings.gather * 1000 or len(self._told_at) >= _MOST:
            return [], touched
        posts: list[Waiting] = []
        for over in (False, True):
            mine = [one for one in ready if bool(one.ended_ms) == over and self._speaks(one)]
            posts += self._compose(mine, now_ms, over)
        for one in ready:
            one.told_ms = one.told_ms or now_ms
            touched[one.id] = self._close(one) if one.ended_ms else one
            self._untold.pop(one.id, None)
        self._told_at += [now] * bool(posts)
        return posts, touched

    def _compose(self, incidents: list[Incident], now_ms: int, over: bool) -> list[Waiting]:
        config = self._config()
        posts = []
        for channel in config.alarms.channels:
            mine = [one for one in incidents if concerns(channel, one.rule, one.system)]
            if mine:
                text = message.compose(channel, config.alarms, config.bus.node, mine, now_ms, over)
                posts.append(Waiting(0, channel.name, 0, now_ms, text))
                for one in mine if not over else ():
                    one.channels.append(channel.name)
        return posts

    def _close(self, one: Incident) -> Incident:
        self._untold.pop(one.id, None)
        one.closed = True
        return one

    # -- several nodes ---------------------------------------------------------------------------------------------

    def _speaks(self, one: Incident) -> bool:
        """Whether this node tells it. What cannot be agreed on is told: better twice than never."""
        storage = self._storages.get(self._common.get(one.id, ""))
        if storage is None:
            return not one.spoken_by
        mine, name = self._config().bus.node, _shared_name(one)
        try:
            if not storage.nodes():
                return True  # nobody else can reach it
            if one.ended_ms:
                return not one.spoken_by and self._gives_back(one, storage, name, mine)
            self._claim(one, storage, name, mine)
        except StorageError:
            return not one.spoken_by
        return one.claimed

    @staticmethod
    def _gives_back(one: Incident, storage: Storage, name: str, mine: str) -> bool:
        """Take our name out; whether it was there, or never was: what could not be agreed on is told."""
        if one.claimed and storage.recall(name) != mine:
            return False  # another node took it over while this one was silent
        storage.swap(name, mine, "")
        return True

    @staticmethod
    def _claim(one: Incident, storage: Storage, name: str, mine: str) -> None:
        """Put our name to it, unless another node did that first and lives."""
        holder = storage.swap(name, "", mine)
        if holder != mine and storage.nodes().get(holder, SILENT_MS + 1) > SILENT_MS:
            holder = storage.swap(name, holder, mine)
        one.claimed = holder == mine
        one.spoken_by = "" if one.claimed else holder

    def _take_over(self) -> dict[int, Incident]:
        """Incidents that a node told of which has fallen silent are ours from now on, if we are first."""
        touched: dict[int, Incident] = {}
        for one in [one for one in self._board.open.values() if one.spoken_by]:
            storage = self._storages.get(self._common.get(one.id, ""))
            try:
                if storage and storage.nodes().get(one.spoken_by, SILENT_MS + 1) > SILENT_MS:
                    self._claim(one, storage, _shared_name(one), self._config().bus.node)
                    touched[one.id] = one
            except StorageError:
                continue
        return touched

    # -- send ------------------------------------------------------------------------------------------------------

    def _send_for_ever(self) -> None:
        while True:
            self._forever(self._send_due, 5.0, once=True)

    def _send_due(self) -> None:
        """Send what is due, one channel's messages in order; or wait for the next."""
        self._posted.clear()
        waiting, now_ms = self._store.waiting(), self._clock.now_ms()
        first: dict[str, Waiting] = {}
        for one in waiting:
            if one.id in self._taken:
                self._sent(one, "", 0)
            else:
                first.setdefault(one.channel, one)
        due = [one for one in first.values() if one.next_ms <= now_ms]
        gevent.joinall([gevent.spawn(self._send, one) for one in due], raise_error=True)
        if due:
            return
        next_ms = min((one.next_ms for one in first.values()), default=now_ms + 60_000)
        self._posted.wait(max((next_ms - now_ms) / 1000, 0.05))

    def _send(self, one: Waiting) -> None:
        config, now_ms = self._config(), self._clock.now_ms()
        error, next_ms = "", 0
        try:
            channels.send(self._channel(one.channel), one.message, config.http, now_ms)
        except NotFound as gone:
            error = str(gone)
        except PepperbusError as failure:
            error = str(failure)
            next_ms = now_ms + int(channels.wait_s(one.tries + 1) * 1000)
            if next_ms - one.message.at_ms > channels.GIVE_UP_S * 1000:
                next_ms = 0
        if error:
            action = "alarm_not_sent" if next_ms else "alarm_given_up"
            self._log.warning(action, error, channel=one.channel, tries=one.tries + 1)
        self._sent(one, error, next_ms)

    def _sent(self, one: Waiting, error: str, next_ms: int) -> None:
        """Write down how it went. A message that was taken is not sent again because the disk is full."""
        if not next_ms:
            self._taken.add(one.id)
        self._store.sent(one, self._clock.now_ms(), error, next_ms)
        self._taken.discard(one.id)

    def _channel(self, name: str) -> Channel:
        for channel in self._config().alarms.channels:
            if channel.name == name:
                return channel
        raise NotFound(f"no channel {name!r}")

    def test(self, name: str, who: str) -> dict[str, Any]:
        """Send a test to one channel (or to all): channel -> what went wrong, "" when it was taken."""
        config = self._config()
        wanted = [self._channel(name)] if name else list(config.alarms.channels)
        results: dict[str, str] = {}

        def one(channel: Channel) -> None:
            now_ms = self._clock.now_ms()
            text = message.test(channel, config.alarms, config.bus.node, who, now_ms)
            try:
                channels.send(channel, text, config.http, now_ms)
                results[channel.name] = ""
            except PepperbusError as failure:
                results[channel.name] = str(failure)

        gevent.joinall([gevent.spawn(one, channel) for channel in wanted])
        return {"channels": {channel.name: results[channel.name] for channel in wanted}}


def _silent(one: Incident, silences: list[Silence]) -> bool:
    return any(silence.covers(one.rule, one.subject) for silence in silences)


def _shared_name(one: Incident) -> str:
    return f"alarm {one.rule} {one.subject}"[:400]
