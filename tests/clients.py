"""Clients by a name, as shared workers count them."""

from server.model.client import ClientNetwork


def of(*names: str) -> tuple[ClientNetwork, ...]:
    """What counts for each of these."""
    return tuple(ClientNetwork(name.encode(), 1) for name in names)
