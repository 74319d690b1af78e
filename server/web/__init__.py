"""The HTTP API. Must not know SMTP."""
