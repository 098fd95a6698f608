"""The php-fpm pool file to paste for a pool that serves the bus alone, with the reason for every line.

Pure: configuration values in, text out. `etc/php-fpm.d/pepperbus.conf` is what it prints without a configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from pepperbus.config.model import FastcgiPool, Topic

_DEFAULT = FastcgiPool("php", "unix:/run/php/pepperbus.sock", dedicated=True, keepalive=True)
_SPARE_CHILDREN = 2
#: php-fpm is to end a script so many seconds before the bus gives it up.
_BEFORE_S = 2
_TEXT = """\
; A php-fpm pool that serves Pepperbus alone. Put this file into php-fpm's pool.d (Debian: /etc/php/8.2/fpm/pool.d),
; reload php-fpm, and say in the bus' configuration, section [fastcgi]:
;     [[{name}]]
;         address = {address}
;         dedicated = yes
;         keepalive = on
;         max_connections = {connections}
; In php-fpm.conf, section [global], set process_control_timeout to what your scripts need (it is 0 by default): a
; reload then lets running jobs finish instead of killing them.
[{name}]

; Who the scripts run as.
user = www-data
group = www-data

; Where the bus connects.{who}
listen = {listen}
{access}
; One child per connection of the bus (max_connections = {connections}) and {spare} to spare.
; Static: a job never waits for a fork.
pm = static
pm.max_children = {children}
; Leaks end with the child. The bus notices a child that leaves between two jobs and loses nothing by it.
pm.max_requests = 1000

; A little below the longest timeout of the topics ({timeout} s): php-fpm ends a script before the bus gives it up, so no
; second attempt runs beside it. php-fpm looks only every third of this time, so a script may outlive it by that much;
; the bus then waits for zombie_grace before it tries again.
request_terminate_timeout = {terminate}s

; A job is sent as a form and takes up to three times its content there: this holds {bulk} MiB of any content.
php_admin_value[post_max_size] = {post}M
; Two copies of the largest job, decoded and not, and the script's own needs.
php_admin_value[memory_limit] = {memory}M
; Errors belong on stderr, where the bus keeps them with the attempt, and never into the answer.
php_admin_flag[display_errors] = off
php_admin_flag[log_errors] = on
php_admin_flag[html_errors] = off
; Without error_log PHP's messages go to the connection, to the bus. Do not set it, and leave this off:
catch_workers_output = no
; Headers can be sent after an echo, and a script that dies late still answers 500.
php_admin_value[output_buffering] = 65536
; Jobs may take longer than a web page; the clock that counts is the bus' timeout.
php_admin_value[max_execution_time] = 0
"""


def pool_file(pool: FastcgiPool = _DEFAULT, topics: Sequence[Topic] = (), max_bulk: int = 8 << 20) -> str:
    """The text of a pool file that fits `pool`, its topics and the largest job (bytes)."""
    path = pool.address.removeprefix("unix:")
    unix = path.startswith("/")
    timeout = max([int(topic.timeout) for topic in topics], default=3600)
    bulk = max(max_bulk >> 20, 1)
    return _TEXT.format(
        name=pool.name,
        address=pool.address,
        connections=pool.max_connections,
        who=" The bus must be in group www-data, or name its own group here." if unix else "",
        listen=path,
        access="listen.owner = www-data\nlisten.group = www-data\nlisten.mode = 0660\n"
        if unix
        else "; php-fpm has no password: let nobody but the bus in.\nlisten.allowed_clients = 127.0.0.1\n",
        spare=_SPARE_CHILDREN,
        children=pool.max_connections + _SPARE_CHILDREN,
        timeout=timeout,
        terminate=max(timeout - _BEFORE_S, 1),
        bulk=bulk,
        post=bulk * 3,
        memory=128 + bulk * 8,
    )
