"""Load generators and peers for measuring an installation from outside: SMTP, HTTP, WebSocket, end to end, a corpus.

Lives here: what runs beside a server and looks at it over its sockets. Must not know: the inside of ``server``; nothing
here imports it, so every figure holds for any installation that speaks the same contract.
"""
