"""Reading from replicas: how far each has come, who measures it, and which one answers a query.

Must not know: what is read.
"""
