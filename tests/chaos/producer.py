"""A producer that writes down what it was told: one line before a push, one after its answer.

Knows the Redis protocol and nothing of the bus's code, so that no bug is shared. Lines: `S n time mode` sent, then `A n id`
accepted, `E n text` definite error, `U n text` unknown (UNKNOWN answer, or the connection was lost after sending).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import socket
import sys
import time
from pathlib import Path


class Connection:
    """One login at the gateway."""

    def __init__(self, address: tuple[str, int], password: str) -> None:
        self._socket = socket.create_connection(address, timeout=10)
        self._file = self._socket.makefile("rb")
        if self.command(b"AUTH", password.encode()) != b"+OK":
            raise ConnectionError("login refused")

    def command(self, *words: bytes) -> bytes:
        self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("cut")
        if line[:1] != b"$":
            return line[:-2]
        length = int(line[1:])
        data = self._file.read(length + 2)
        if len(data) != length + 2:
            raise ConnectionError("cut")
        return data[:-2]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def content(n: int, chance: random.Random, slow: float) -> bytes:
    """A job that carries its own length and digest. The mix: mostly quick, some slow, failing, large or binary."""
    roll = chance.random()
    mode = "twice" if roll < 0.02 else "never" if roll < 0.025 else "slow" if roll < 0.025 + slow else "ok"
    size = 300_000 if chance.random() < 0.001 else chance.randrange(0, 200)
    payload = chance.randbytes(size) if chance.random() < 0.1 else b"x" * size
    return b"%d|%s|%d|%s|%s" % (n, mode.encode(), size, hashlib.sha256(payload).hexdigest().encode(), payload)


def run(
    address: tuple[str, int], first: int, count: int, per_second: float, ledger: Path, seed: int, slow: float
) -> None:
    chance = random.Random(seed)
    connection: Connection | None = None
    started = time.monotonic()
    with ledger.open("a", buffering=1) as out:
        for i in range(count):
            n = first + i
            behind = started + i / per_second - time.monotonic()
            if behind > 0:
                time.sleep(behind)  # the load is paced, so that faults fall into it
            value = content(n, chance, slow)
            while connection is None:
                try:
                    connection = Connection(address, "chaos:secret")
                except OSError:
                    time.sleep(0.02)
            out.write(f"S {n} {time.time():.6f} {value.split(b'|', 2)[1].decode()}\n")
            try:
                answer = connection.command(b"LPUSH", b"chaos/x", value)
                reply = json.loads(answer)
                error = reply["error"]
                if not error:
                    out.write(f"A {n} {reply['jobs'][0]} {time.time():.6f}\n")
                else:
                    out.write(f"{'U' if error.startswith('UNKNOWN') else 'E'} {n} {error}\n")
            except (OSError, ValueError, KeyError) as error:
                out.write(f"U {n} {type(error).__name__}: {str(error)[:80]}\n")
                with contextlib.suppress(OSError):
                    connection.close()
                connection = None


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--per-second", type=float, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--slow", type=float, default=0.01)
    given = parser.parse_args()
    run(("127.0.0.1", given.port), given.first, given.count, given.per_second, given.ledger, given.seed, given.slow)
    sys.exit(0)
