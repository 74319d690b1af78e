"""What administrators do: settings, accounts, mailboxes, bans.

Must not know: HTTP.
"""
