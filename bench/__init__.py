"""Load generators and peers for measuring an installation from outside: SMTP, HTTP, WebSocket, end to end, a corpus.

Lives here: what runs beside a server and looks at it over its sockets. Must not know: the inside of ``server``, but for
where and how the embedded PostgreSQL it started runs; so every figure holds for any installation of the same contract.
"""
