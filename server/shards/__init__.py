"""One worker process: its sockets, its parts, and how they are wired together."""
