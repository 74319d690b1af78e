"""What the product does, said once for every way in. Must not know SMTP, HTTP or WebSocket."""
