"""What an operator can do. The command line, the JSON API and the pages are skins over these functions.

An `Office` (office.py) holds what the functions need: the configuration, storages opened when first used, the journal, the
control socket. Every function takes it first and returns a struct of `results.py`, the same in `--json` and in the API,
or raises one of `pepperbus.errors`.

    status.py     StatusReader(office).read(): queues, rates, percentiles, processes, storages, what is wrong
    nodes.py      nodes: every node, its versions and processes; itself.py what each tells of itself
    systems.py    by_node: what each system did on each node and on all together
    queues.py     show, listing, add, change, remove: the files of queues.d
    closing.py    close, reopen, finish: a queue or a topic that takes no new jobs any more
    queue_files.py  those files as wholes: export, trial, removed; queue_text.py their text; editing.py writes them
    imports.py    bring: queues' files from the Go system, supervisord, crontabs (moving/ reads them); exports.py the way back
    drafts.py     draft: a change tried without being made; versions.py what the files were before
    history.py    course: what a topic did over time
    alarm_files.py  set_rule: the rules of alarms; node_file.py the node's file, which storage_files.py changes too
    alarms.py     state, history, silence, send_test: what the ticker found wrong and whom it told
    errors.py     groups: failures put together; marks.py what people decided about them
    consumers.py  consumers: pools and URLs, as workers and php-fpm see them
    push.py       push: jobs through the gateway, as any client would
    life.py       life: one job, from its client to its last PHP error line
    jobs.py       jobs, select: listings by state, error, time
    replays.py    plan, listing, show, steer: dead or delayed jobs once more, a share first
    purge.py      purge: delete waiting or dead jobs
    pause.py      pause, resume
    consumer.py   ping, send: straight to a consumer; elsewhere.py the same from another node
    paces.py      by_node: how long jobs waited and ran on each node and on all together
    tail.py       tail: journal rows as they happen
    doctor.py     diagnose, check_fpm: what will hurt; doctor_fpm.py, doctor_redis.py, doctor_machine.py look, findings.py holds
    users.py      accounts; tokens.py API tokens, sessions.py one's own logins, audit.py who did what
    steer.py      check, reload, stop
"""
