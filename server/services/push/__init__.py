"""New mail on its way to clients that wait for it.

Lives here: the hub, subscriptions, the frames that clients get, limits for long connections. Must not know: sockets.
"""
