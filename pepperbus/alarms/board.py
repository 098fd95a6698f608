"""Every track of a node and the incidents that are open. Floor 3, pure: measures in, what began and what is over out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pepperbus.alarms.rules import RULES
from pepperbus.alarms.track import QUIET, Track, step
from pepperbus.config.alarm_settings import Limit

Key = tuple[str, str]  # rule, subject


class Incident(msgspec.Struct):
    """Something that is or was wrong. Times are wall time in ms; `ended_ms` 0: it goes on.

    `value` is the last measure, `worst` the worst, `threshold` where it began. `told_ms`: when its beginning was put into a
    message (0: not yet; a silence keeps it back); `closed`: nothing is left to be told. `spoken_by`: the node that tells,
    when another one does; `claimed`: this one put its name to it. `channels`: to whom the beginning was sent.
    """

    id: int
    rule: str
    subject: str
    system: str
    node: str
    began_ms: int
    value: float
    worst: float
    threshold: float
    detail: str = ""
    ended_ms: int = 0
    told_ms: int = 0
    closed: bool = False
    spoken_by: str = ""
    claimed: bool = False
    channels: list[str] = []

    @property
    def key(self) -> Key:
        return self.rule, self.subject


class Measure(NamedTuple):
    """What was found. `value` None: it cannot be known now. `firm` False: too little to begin an alarm on, enough to end one.

    `storage`: where it lies, for rules that every node sees alike.
    """

    limit: Limit
    value: float | None
    system: str = ""
    detail: str = ""
    firm: bool = True
    storage: str = ""


class Board:
    """The state of one node's alarms. `tracks` holds only what is open or leans."""

    def __init__(self, node: str, tracks: Mapping[Key, Track], incidents: list[Incident], last_id: int) -> None:
        self._node = node
        self._last_id = last_id
        self.tracks: dict[Key, Track] = dict(tracks)
        self.open: dict[Key, Incident] = {incident.key: incident for incident in incidents}

    def look(self, measures: Mapping[Key, Measure], passed_s: float, now_ms: int) -> list[Incident]:
        """Take in one look at everything that is watched; the incidents that began, changed or ended.

        What is not among the measures is watched no more, and so is over.
        """
        touched: list[Incident] = []
        for key, measure in measures.items():
            before = self.tracks.get(key, QUIET)
            value = measure.value
            falls = RULES[key[0]].unit == "left"
            if not measure.firm and not before.is_open and value is not None:
                value = measure.limit.begin + 1.0 if falls else measure.limit.begin - 1.0
            after = step(before, measure.limit, value, passed_s, falls=falls)
            self._keep(key, after)
            if after.is_open and not before.is_open:
                touched.append(self._begin(key, measure, now_ms))
            elif before.is_open and (incident := self.open.get(key)) and self._update(incident, measure, after, now_ms):
                touched.append(incident)
        for key in [key for key in self.tracks if key not in measures]:
            del self.tracks[key]
            if gone := self.open.pop(key, None):
                gone.ended_ms = now_ms
                touched.append(gone)
        return touched

    def _keep(self, key: Key, track: Track) -> None:
        if track == QUIET:
            self.tracks.pop(key, None)
        else:
            self.tracks[key] = track

    def _begin(self, key: Key, measure: Measure, now_ms: int) -> Incident:
        self._last_id += 1
        value = measure.value or 0.0
        made = Incident(
            self._last_id, *key, measure.system, self._node, now_ms, value, value, measure.limit.begin, measure.detail
        )
        self.open[key] = made
        return made

    def _update(self, incident: Incident, measure: Measure, after: Track, now_ms: int) -> bool:
        """Whether anything of it is worth writing down."""
        value, before = measure.value, (incident.value, incident.worst, incident.detail)
        if value is not None:
            incident.value = value
            incident.worst = (min if RULES[incident.rule].unit == "left" else max)(incident.worst, value)
            incident.detail = measure.detail or incident.detail
        if not after.is_open:
            incident.ended_ms = now_ms
            del self.open[incident.key]
            return True
        return before != (incident.value, incident.worst, incident.detail)
