"""Back-off after failed logins, by address and by account. Floor 2.

The first few mistakes cost nothing; then each failure doubles the wait. An account's wait stays short, so that nobody
can lock its owner out from afar; an address' wait grows long. Kept in the memory of the one process that logs people in.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from pepperbus.clock import Clock

FREE = 4  # failures that cost nothing
ACCOUNT_S = 30.0
ADDRESS_S = 900.0
FORGET_S = 3600.0
_MOST = 10_000


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


class Patience:
    """Who failed how often of late."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def wait_s(self, account: str, address: str) -> float:
        """How long before this account may be tried again from this address; 0: now. Address "": the account alone counts."""
        waits = [
            failures.last + min(2.0 ** (failures.count - FREE), most) - self._clock.monotonic()
            for key, most in _keys(account, address)
            if (failures := self._known.get(key)) and failures.count > FREE
        ]
        return max(0.0, *waits, 0.0)

    def failed(self, account: str, address: str) -> None:
        """Count a failure."""
        now = self._clock.monotonic()
        for key, _ in _keys(account, address):
            failures = self._known.setdefault(key, _Failures())
            if now - failures.last > FORGET_S:
                failures.count = 0
            failures.count = min(failures.count + 1, 40)
            failures.last = now
            self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def succeeded(self, account: str) -> None:
        """The right password forgives the account's mistakes; the address may still be trying others."""
        self._known.pop(("account", account), None)


def _keys(account: str, address: str) -> list[tuple[tuple[str, str], float]]:
    whose = [(("account", account), ACCOUNT_S)]
    return [*whose, (("address", network(address)), ADDRESS_S)] if address else whose


def network(address: str) -> str:
    """An IPv6 user has a whole /64 to come from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False)) if parsed.version == 6 else address
