"""Dramatiq: the actor, and `python with_dramatiq.py COUNT` to enqueue; runs in the peers' own venv."""

import os
import sys
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))


@dramatiq.actor
def work(text):
    with open(os.environ["BENCH_DONE"], "ab", buffering=0) as file:
        file.write(b".")


if __name__ == "__main__":
    began = time.perf_counter()
    for _ in range(int(sys.argv[1])):
        work.send("x" * 100)
    print(time.perf_counter() - began)
