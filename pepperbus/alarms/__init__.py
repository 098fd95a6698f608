"""Alarms: when something is wrong, who is told, and that it is over. Floor 3.

    rules.py     which rules there are, what each is measured in, which limit holds where
    track.py     hysteresis: one measure against one limit over time; pure
    board.py     all tracks and open incidents of a node; pure
    store.py     `data_dir/alarms.db`: incidents, tracks, silences and messages to be sent, over restarts
    words.py     what people read, in English and Chinese
    message.py   many incidents, one message
    webhook.py   sends it by POST, mail.py by SMTP, service.py through Apprise
    channels.py  which of them a channel is
    window.py    failures and percentiles of the last minutes

`ticker.alarms` measures and drives them; `operations.alarms` shows them.
"""
