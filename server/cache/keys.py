"""Every key of the shared generations, said once: what a key stands for is what a change of it makes old."""


def mailbox(mailbox_id: str) -> bytes:
    """A mailbox's record, its token and everything in it."""
    return mailbox_id.encode()


def record(mailbox_id: str) -> bytes:
    """A mailbox's record and its token alone, which mail does not change."""
    return b"r" + mailbox_id.encode()


def user(user_id: str) -> bytes:
    """An account, its logins and its API keys. (An account's id is no mailbox's.)"""
    return user_id.encode()


def domains() -> bytes:
    """The set of domains that take mail. The nil UUID (RFC 9562 section 5.9), so that a hint can name it."""
    return b"00000000-0000-0000-0000-000000000000"


def settings() -> bytes:
    """What administrators set. The max UUID (RFC 9562 section 5.10), so that a hint can name it."""
    return b"ffffffff-ffff-ffff-ffff-ffffffffffff"


def address(address: str) -> bytes:
    """Which mailbox an address leads to, "none" included."""
    return address.encode()
