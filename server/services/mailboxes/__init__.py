"""Mailboxes and their messages as their owners use them, and how they end.

Lives here: creation, reading, search, aliases, tags, retention. Must not know: how mail arrives, or how it is pushed.
"""
