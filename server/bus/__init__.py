"""Events between processes and hosts: over LISTEN/NOTIFY or Redis."""
