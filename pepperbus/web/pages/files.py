"""Queues' files taken along and brought in: one or all, tried and shown before anything is put in place. Floor 5."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import PurePath

import gevent
from flask import Blueprint, Response, make_response, render_template, request
from werkzeug.datastructures import FileStorage

from pepperbus.accounts.model import Right
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import queue_files, queues
from pepperbus.operations.rights import ANYWHERE, require
from pepperbus.web.desk import Desk
from pepperbus.web.logins import may
from pepperbus.web.pages.answers import status_of, trouble
from pepperbus.web.said import said
from pepperbus.web.words import _

_MOST_FILES, _MOST_BYTES = 2000, 16 << 20  # of all that comes at once, unpacked
_ENDING = ".conf"


def _mine(desk: Desk) -> list[str]:
    """The queues whose files this person may have."""
    return [name for name, queue in desk.base.config.queues.items() if may(Right.ADMIN, queue.system)]


def _page(desk: Desk, status: int = 200, **facts: object) -> Response:
    removed = queue_files.removed(desk.office) if may(Right.ADMIN) else {}
    return make_response(render_template("files.html", mine=_mine(desk), removed=removed, **facts), status)


def _zip(desk: Desk) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _mine(desk):
            archive.writestr(f"{name}{_ENDING}", queue_files.export(desk.office, name))
            gevent.sleep(0)  # a thousand files take seconds; others are served in between
    return packed.getvalue()


def _uploaded() -> dict[str, str]:
    """Queue -> text, of the files, the archives and the pasted text that came. Raises UsageError."""
    found: dict[str, str] = {}
    left = _MOST_BYTES
    for file in request.files.getlist("files"):
        if file.filename:
            data = file.read()
            inside = _archived(file, data, left) if file.filename.endswith(".zip") else _single(file.filename, data)
            left -= sum(map(len, inside.values()))
            found |= inside
    if name := request.form.get("name", "").strip():
        found[name] = request.form.get("text", "").replace("\r\n", "\n")
    if not found:
        raise UsageError(_("no file was chosen"))
    return found


def _single(filename: str, data: bytes) -> dict[str, str]:
    path = PurePath(filename)
    if path.suffix != _ENDING:
        raise UsageError(_("{name}: a file NAME.conf or a .zip of such is wanted", name=filename))
    try:
        return {path.stem: data.decode().replace("\r\n", "\n")}
    except UnicodeDecodeError:
        raise UsageError(_("{name} is no text", name=filename)) from None


def _archived(file: FileStorage, data: bytes, most: int) -> dict[str, str]:
    """Its files, `most` bytes of them together. Raises UsageError, also for one that is damaged or wants a password."""
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = [one for one in archive.infolist() if one.filename.endswith(_ENDING)]
            if len(inside) > _MOST_FILES or sum(one.file_size for one in inside) > most:
                raise UsageError(_("{name} holds more than queues' files", name=file.filename))
            for one in inside:
                found |= _single(one.filename, archive.read(one))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError):  # RuntimeError: a password, a way of packing
        raise UsageError(_("{name} is no .zip", name=file.filename)) from None
    return found


def _try(desk: Desk) -> Response:
    require(desk.office, Right.ADMIN, ANYWHERE, "bring queues' files")  # before the work of unpacking them
    try:
        texts = _uploaded()
        trials = []
        for name, text in texts.items():
            trials.append(queue_files.trial(desk.office, name, text))
            gevent.sleep(0)
    except PepperbusError as failure:
        return _page(desk, status_of(failure), error=trouble(failure))
    return _page(desk, trials=trials, texts=texts)


def _put(desk: Desk) -> Response:
    """Those that were shown, one after the other; what one of them is refused for leaves the others."""
    done: list[str] = []
    refused: list[str] = []
    for field, text in request.form.items():
        kind, _colon, name = field.partition(":")
        if kind != "file":
            continue
        try:
            put = queues.put(desk.office, name, text.replace("\r\n", "\n"))
        except PepperbusError as failure:
            refused.append(f"{name}: {trouble(failure)}")
            continue
        (refused if put.refused else done).append(f"{name}: {said(put.reload)}" if put.refused else name)
    desk.monitor.forget()
    news = _("In force: {names}", names=", ".join(done)) if done else ""
    return _page(desk, 409 if refused else 200, news=news, error="\n".join(refused))


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/queues/files")
    def queue_files_page() -> Response:
        return _page(desk)

    @pages.get("/queues/files.zip")
    def queue_files_zip() -> Response:
        return _attached(_zip(desk), "application/zip", "queues.zip")

    @pages.get("/queues/<queue>/file")
    def queue_file_text(queue: str) -> Response:
        return _attached(queue_files.export(desk.office, queue).encode(), "text/plain", f"{queue}{_ENDING}")

    @pages.post("/queues/files/try")
    def queue_files_try() -> Response:
        return _try(desk)

    @pages.post("/queues/files/put")
    def queue_files_put() -> Response:
        return _put(desk)


def _attached(body: bytes, kind: str, name: str) -> Response:
    response = Response(body, mimetype=kind)
    response.headers["Content-Disposition"] = f"attachment; filename={name}"
    return response
