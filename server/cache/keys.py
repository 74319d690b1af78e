"""Every key of the shared generations, said once: what a key stands for is what a change of it makes old."""


def mailbox(mailbox_id: str) -> bytes:
    """A mailbox's record, its token and everything in it."""
    return mailbox_id.encode()


def address(address: str) -> bytes:
    """Which mailbox an address leads to, "none" included."""
    return address.encode()
