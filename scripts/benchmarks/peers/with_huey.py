"""Huey: the task, and `python with_huey.py COUNT` to enqueue; runs in the peers' own venv."""

import os
import sys
import time

from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], results=False)


@huey.task()
def work(text):
    with open(os.environ["BENCH_DONE"], "ab", buffering=0) as file:
        file.write(b".")


if __name__ == "__main__":
    import with_huey  # the consumer knows the task by this module's name

    began = time.perf_counter()
    for _ in range(int(sys.argv[1])):
        with_huey.work("x" * 100)
    print(time.perf_counter() - began)
