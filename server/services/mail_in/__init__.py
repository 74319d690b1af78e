"""Mail from the SMTP listeners, or from the queue, to the store.

Lives here: routing of recipients, storing in batches, the queue, the checks of the sender, the trace. Must not know:
HTTP, or how readers are told.
"""
