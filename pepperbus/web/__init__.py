"""The sidecar: health, metrics, JSON API and dashboard over HTTP, in a process of its own.

    main.py      the process: listeners, leaving
    server.py    the WSGI server: bounds on how long a request may take to come and an answer to be taken
    crowd.py     who is connected, and who goes when there is no place; departure.py who has gone by themselves
    app.py       the Flask application: which part answers what, errors, guard
    guard.py     who may ask: Host and Origin checks, security headers
    logins.py    who is asking: sessions, bearer tokens, the login and set-up forms
    desk.py      what the parts share: an `Office` safe for many greenlets, the monitor
    closing.py   removes queues that were closed for that, once they are empty
    monitor.py   samples the statistics every second: percentiles of the last minute; minute.py its rates and courses
    health.py    /healthz, /readyz
    paces.py     the other nodes' last minute; courses.py their charts; errands.py what they ask of us
    neighbourhood.py  what they tell of themselves and their systems, kept and dated by told.py; systems.py this node's part
    metrics.py   /metrics
    table.py     what a row of the API is; people.py the rows for accounts, tokens, audit
    routes.py    the table of the API: path, what it takes, what it answers, the operation behind it
    takes.py     the queries and bodies those routes take
    api.py       /api/v1 from that table; openapi.py the document from the same table
    frame.py     what every page wears: navigation, language, theme, static files; live.py its live part as events
    words.py     the languages; said.py what operations say, in them; formats.py numbers as people read them
    pages/       the dashboard, a module a page; templates/, static/, translations/ are its texts and looks

Everything it does goes through `pepperbus.operations`; it never touches a storage by itself.
"""
