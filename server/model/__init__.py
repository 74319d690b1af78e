"""Values and the rules about them: addresses, messages, events, MIME. Pure: no I/O, no clock, no settings."""
