"""Who may do what, and what was done: accounts, sessions, API tokens, the audit log.

    model.py      rights, roles by system, the actor behind a request
    store.py      accounts.db: accounts; the one module that opens the file
    sessions.py   sessions and API tokens in the same file
    passwords.py  argon2, in a thread
    directory.py  passwords asked of an LDAP directory
    patience.py   back-off after failed logins
    audit.py      the append-only, hash-chained log of what was done; chain.py looks back through it
    aside.py      blocking work away from the hub

Floor 2: knows no flask and no operation. Rights are checked, and deeds recorded, in `operations.rights` alone.
"""
