"""RQ: the job, and `python with_rq.py COUNT` to enqueue; runs in the peers' own venv."""

import os
import sys
import time


def work(text):
    with open(os.environ["BENCH_DONE"], "ab", buffering=0) as file:
        file.write(b".")


if __name__ == "__main__":
    import redis
    import rq
    import with_rq  # workers import the job by this name

    queue = rq.Queue("default", connection=redis.Redis.from_url(os.environ["BENCH_REDIS"]))
    began = time.perf_counter()
    for _ in range(int(sys.argv[1])):
        queue.enqueue(with_rq.work, "x" * 100, result_ttl=0)
    print(time.perf_counter() - began)
