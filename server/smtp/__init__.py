"""Mail in: the listener and its sessions. Must not know HTTP or WebSocket."""
