"""How long a job waits between its attempts. Floor 1. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """The waiting times between attempts: `wait_s(n)` before attempt n+1 (jitter is the caller's random number)."""

    kind: str = "exponential"  # exponential | linear | fixed | list
    steps: tuple[float, ...] = (5.0,)  # exponential: (base, cap); linear: (step,); fixed: (wait,); list: all of them
    jitter: bool = True

    def wait_s(self, attempt: int, random: float = 1.0) -> float:
        """Seconds to wait after attempt `attempt` (1 first). `random` in [0, 1): with jitter, half the wait is random."""
        match self.kind:
            case "exponential":
                base, cap = self.steps
                wait = min(cap, base * 2.0 ** min(attempt - 1, 60))
            case "linear":
                wait = self.steps[0] * attempt
            case "fixed":
                wait = self.steps[0]
            case _:
                wait = self.steps[min(attempt, len(self.steps)) - 1]
        return wait / 2 + random * wait / 2 if self.jitter else wait


DEFAULT = Backoff("exponential", (5.0, 3600.0))
