"""The domains that are served: which they are, how users prove theirs, and the DNS resolver.

Must not know: mailboxes or mail.
"""
