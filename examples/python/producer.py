"""Push orders with redis-py. A login is the queue's name and password; Redis' own commands do the rest."""

import json
import os

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

host, _, port = os.environ.get("PEPPERBUS", "127.0.0.1:12017").rpartition(":")
queue = os.environ.get("QUEUE", "orders")
bus = redis.Redis(
    host,
    int(port),
    username=queue,
    password=os.environ.get("PASSWORD", "secret"),
    retry=Retry(NoBackoff(), 0),  # redis-py would push again by itself when an answer is lost: maybe a second job
)

answer = json.loads(bus.execute_command("LPUSH", f"{queue}/new", json.dumps({"order": 1})))
print("pushed", answer["jobs"][0])
bus.zadd(queue, {json.dumps({"order": 2}): "+1"})  # not before in a second
bus.rpush(queue, json.dumps({"order": 3}))  # ahead of all that waits
print("and two more")
