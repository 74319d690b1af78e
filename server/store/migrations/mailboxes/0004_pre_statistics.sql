-- How many mailboxes each domain has had and has, kept by the triggers below in the transaction that changes it. A domain has
-- several rows, one of which each connection of the server changes, so that commits rarely wait for one another.
CREATE TABLE mailboxes.counters (
    domain text NOT NULL,
    shard  integer NOT NULL,
    made   bigint NOT NULL,
    living bigint NOT NULL,
    PRIMARY KEY (domain, shard)
) WITH (fillfactor = 50);
-- Rows are taken in the order of their domains, so that two statements cannot deadlock.
CREATE FUNCTION mailboxes.count_mailboxes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mailboxes.counters AS c (domain, shard, made, living)
    SELECT domain, pg_backend_pid() & 15, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE 0 END,
        CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed GROUP BY domain ORDER BY domain
    ON CONFLICT (domain, shard) DO UPDATE SET made = c.made + excluded.made, living = c.living + excluded.living;
    RETURN NULL;
END
$$;
CREATE TRIGGER mailboxes_made AFTER INSERT ON mailboxes.mailboxes
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION mailboxes.count_mailboxes();
CREATE TRIGGER mailboxes_gone AFTER DELETE ON mailboxes.mailboxes
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION mailboxes.count_mailboxes();
-- The triggers' lock on the table stands until this commits, so nothing is counted twice or missed.
INSERT INTO mailboxes.counters (domain, shard, made, living)
SELECT domain, 0, count(*), count(*) FROM mailboxes.mailboxes GROUP BY domain;
