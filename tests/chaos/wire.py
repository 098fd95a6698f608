"""A wire that can be bad: a TCP proxy on loopback that slows, splits, silences or cuts what goes through it.

Runs in a thread of the run's own process; knows bytes only. `mode` may be changed at any time from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from itertools import pairwise

PASS, SLOW, SPLIT, SILENT = "pass", "slow", "split", "silent"
_RST = struct.pack("ii", 1, 0)  # SO_LINGER with no time: a close is a reset


class Wire:
    """Listens on `port` and passes everything on to `target` and back."""

    def __init__(self, target: tuple[str, int], seed: int) -> None:
        self.mode = PASS
        self._target = target
        self._chance = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Reset every connection now, in the middle of whatever is being said; how many there were."""
        count = len(self._open)
        self._loop.call_soon_threadsafe(self._abort_all)
        return count

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener))
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _abort_all(self) -> None:
        for writer in self._open:
            with contextlib.suppress(OSError, AttributeError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._open |= both
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._open -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.mode == SLOW:
                    await asyncio.sleep(0.1)
                while self.mode == SILENT:
                    await asyncio.sleep(0.02)
                for piece in self._pieces(data):
                    writer.write(piece)
                    await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()

    def _pieces(self, data: bytes) -> list[bytes]:
        if self.mode != SPLIT:
            return [data]
        cuts = sorted({0, len(data), *(self._chance.randrange(len(data) + 1) for _ in range(min(40, len(data))))})
        return [data[a:b] for a, b in pairwise(cuts)]
