"""Celery: the application, and `python with_celery.py COUNT` to enqueue; runs in the peers' own venv."""

import os
import sys
import time

import celery

app = celery.Celery("with_celery", broker=os.environ["BENCH_REDIS"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64, broker_connection_retry_on_startup=True)


@app.task(name="work")
def work(text):
    with open(os.environ["BENCH_DONE"], "ab", buffering=0) as file:
        file.write(b".")


if __name__ == "__main__":
    began = time.perf_counter()
    for _ in range(int(sys.argv[1])):
        work.delay("x" * 100)
    print(time.perf_counter() - began)
