"""Webhooks: registration, the outbox, delivery with retries, and the HTTP client that is safe against SSRF.

Must not know: how mail arrives.
"""
