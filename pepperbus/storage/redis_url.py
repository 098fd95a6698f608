"""Where a Redis is and how to log in there, from the `url` of the configuration.

Floor 3. A value: opens nothing, and never shows the password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from pepperbus.errors import ConfigError

FORMS = "redis://[user:password@]host:port/db, rediss://… (TLS) or unix:///path?db=0"


@dataclass(frozen=True, slots=True)
class Address:
    """`path` set: a unix socket. `tls`: verified against `ca`, or the system's authorities when that is empty."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca: str = ""

    @property
    def place(self) -> tuple[str, int, str, int]:
        """Which Redis and database it is, however one logs in."""
        return self.host, self.port, self.path, self.database

    def __str__(self) -> str:
        return f"Redis at {self.path}" if self.path else f"Redis at {self.host}:{self.port}"


def parse_url(storage: str, url: str) -> Address:
    """The address `url` means. Raises ConfigError naming the storage and the forms that are allowed."""
    try:
        parts = urlsplit(url)
        query = {key: values[-1] for key, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("it does not begin with redis://, rediss:// or unix://")
        unix = parts.scheme == "unix"
        if unix and not parts.path:
            raise ValueError("the socket's path is missing")
        database = query.pop("db", "") or ("" if unix else parts.path.strip("/")) or "0"
        if not database.isdigit():
            raise ValueError(f"the database {database!r} is no number")
        address = Address(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            path=unquote(parts.path) if unix else "",
            database=int(database),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or query.pop("password", "")),
            tls=parts.scheme == "rediss",
            ca=query.pop("ca", ""),
        )
        if address.user and not address.password:
            raise ValueError("a user without a password")
        if query:
            raise ValueError(f"{sorted(query)[0]!r} is not known after the ?")
        return address
    except ValueError as error:
        raise ConfigError(f"storage {storage}: url: {error}; allowed: {FORMS}") from None
