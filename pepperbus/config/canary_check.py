"""What a topic's `canary` needs: a place that may be reached, a pool that exists, one job a request. Floor 1."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pepperbus.config.canary import placed
from pepperbus.config.check import Values
from pepperbus.config.model import Config
from pepperbus.config.node import unknown_name
from pepperbus.config.reach import refusal
from pepperbus.config.source import Document, KeyPath


def check(document: Document, path: KeyPath, full: Values, node: Config) -> None:
    """Make `full["canary"]` whole; note what is wrong with it in `document`."""
    if full["canary"] is None:
        return
    where = (*path, "canary") if document.value((*path, "canary")) is not None else ("canary",)
    found = full["canary"] = placed(full["canary"], os.path.abspath(document.file.parent), full["pool"])
    if full["run"] not in ("fastcgi", "http"):
        document.mistake(
            where, "canary is for run = fastcgi and http: here the consumer fetches its jobs, or is a command"
        )
    if full["chunk"] > 1:
        document.mistake(
            where, "canary needs chunk = 1: what the second consumer does not do goes to the first, job by job"
        )
    if found.url:
        parts = urlsplit(found.url)
        if why := refusal(node.http, parts.hostname or "", "", parts.port or 0):
            document.mistake(where, why)
    elif found.pool not in node.pools:
        document.mistake(where, unknown_name("pool", found.pool, node.pools, "fastcgi"))
    elif not _below(found.script, roots := node.pools[found.pool].script_root):
        document.mistake(where, f"{found.script} is not below script_root of the pool ({', '.join(roots)})")


def _below(script: str, roots: tuple[str, ...]) -> bool:
    return not roots or any(script.startswith(root + "/") for root in roots)
