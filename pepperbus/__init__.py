"""Pepperbus: a job bus. The Redis protocol in, FastCGI and HTTP out, nothing accepted is lost.

Bytes come in through `gateway`, rest in `storage`, leave through `delivery`, are moved by `worker`; `master` keeps the
processes alive and `web` shows and steers.

Processes (`pepperbus serve`)
    master          plain Python: signals, waitpid, control socket; no gevent, no threads (`master/`)
    mold            patched by gevent, imports everything once, frozen; forks the others on request (`mold.py`)
    gateway.N       the RESP front door (`gateway/`)
    worker.GROUP.N  lease, deliver, settle for the queues of a group (`worker/`)
    ticker          schedules, intakes, drains, replays, alarms, journal database, leases nobody serves (`ticker/`)
    web             Flask sidecar: health, metrics, JSON API, dashboard (`web/`)

Floors; a module imports from its own or below, and none in a circle (checked by import-linter, see setup.cfg)
    0 values     errors names job ids clock; stats, log and failpoints upon them, counted upon stats
    1 wire       wire.resp, wire.plain_push, wire.fastcgi: bytes in, events out; no socket, no clock
    1 config     schema.ini -> load -> model (frozen dataclasses)
    1 family     what the master and its children share: the birth note, the channel, the heartbeats
    1 moving     moving.*: what teams run today (the Go system, supervisord, cron), read and written as queues' files
    2 contracts  storage.contract  delivery.contract  delivery.verdict  journal.contract
    2 accounts   accounts.*: accounts, sessions, tokens, the audit log
    3 back ends  storage.{embedded,redis,memory}  delivery.{fastcgi,http,command}  journal.{log,store}
    3 schedule   schedule.*: what becomes of a firing, and its record in the storage
    3 replay     replay.*: jobs of the past sent once more, and the record of how far that got
    3 nodes      nodes.*: what nodes that share a storage leave there for each other
    3 alarms     alarms.*: rules, hysteresis, what people are told and by which channel
    4 engine     child  worker.*  gateway.*  ticker.*  operations.*
    5 faces      master.*  web.*
    6 entry      cli.*  mold  trial

Where does … go?
    a new storage engine   a module that passes tests/contract, its name in `storage/__init__.py` and `config/values.py`
    a new RESP command     a function in `gateway/`, which checks the login, and its line in the table of `gateway/commands.py`
    a new verdict rule     a function and its line in `RULES` of `delivery/verdict.py`, a case in test_verdict.py,
                           its reason in Chinese in `web/translations/said-zh.json`
    a new option           `config/schema.ini` (its comment is its help) and a field in `config/model.py`
    a new alarm            a line in `RULES` of `alarms/rules.py`, its words in `alarms/words.py`, its limit in schema.ini,
                           its measure in `ticker/watch.py`
    a new thing to do      a function in `operations/`; the CLI, the API and the pages are skins over it

The life of a job
    1 gateway.connection has wire.resp parse, gateway.pushes checks the login and stamps ids; gateway.express does
      both quickly for plain pushes
    2 gateway.commit stores all pending pushes in one transaction or pipeline, then answers each
    3 a client that fetches its jobs leases one by gateway.handout, and says itself that it is done; else
      worker.pump leases a batch, up to the target's window; the attempt is counted before it is sent
    4 worker.exchange marks it as begun, delivery sends it; delivery.verdict makes of the answer done, retry, dead or back
    5 worker.lane settles in batches, worker.attempt journals the attempt
    6 operations finds it by id in any state, with its whole history

Read in this order: job.py, storage/contract.py, delivery/contract.py, delivery/verdict.py, gateway/commands.py,
gateway/pushes.py, worker/pump.py, worker/exchange.py, master/loop.py.
"""

__version__ = "0.1.0"
