"""Accounts and what proves them: passwords, tokens, API keys.

Lives here: also the clean-up after a deleted account. Must not know: mailboxes or mail.
"""
