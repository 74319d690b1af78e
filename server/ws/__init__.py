"""WebSocket: subscriptions and their sessions. Must not know SMTP."""
