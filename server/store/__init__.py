"""PostgreSQL: pools, queries, migrations, partitions, and the embedded server. Knows SQL; must not know SMTP or HTTP."""
