"""PostgreSQL: pools, queries, migrations, partitions, embedded server. Knows SQL; must not know SMTP or HTTP."""
