-- What administrators did: written in the transaction of the act wherever the act is in this domain. It outlives the people
-- in it, so names stand here as they were.
CREATE TABLE users.audit (
    id       uuid PRIMARY KEY, -- sorts by time
    at       timestamptz NOT NULL,
    actor_id uuid,             -- NULL: the command line
    actor    text NOT NULL,
    client   text NOT NULL,
    action   text NOT NULL,
    target   text NOT NULL,
    before   json,             -- only what the act changed, and never a secret
    after    json
);

-- What administrators set instead of what the process was configured with: one row, {"mailbox.defaultTtl": "2h", ...}.
CREATE TABLE users.settings (
    overrides  jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz,
    updated_by text
);
CREATE UNIQUE INDEX settings_one ON users.settings ((true));
INSERT INTO users.settings DEFAULT VALUES;

-- Accounts that were deleted and whose mailboxes, domains and listeners in other domains have still to go. Whoever takes one
-- moves due_at on, so what a dead worker had taken is due again by itself.
CREATE TABLE users.departures (
    user_id     uuid PRIMARY KEY,
    departed_at timestamptz NOT NULL,
    due_at      timestamptz NOT NULL
);

-- How many accounts there are of each kind, kept by the triggers below in the transaction that changes it.
CREATE TABLE users.counters (
    tier      text NOT NULL,
    role      text NOT NULL,
    is_active boolean NOT NULL,
    accounts  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tier, role, is_active)
) WITH (fillfactor = 50);
INSERT INTO users.counters (tier, role, is_active)
SELECT * FROM unnest(ARRAY['free', 'basic', 'pro', 'enterprise']) tier, unnest(ARRAY['user', 'admin', 'super']) role,
    unnest(ARRAY[true, false]) is_active;
-- Both rows are locked in one order before either is changed, so that two opposite changes cannot deadlock.
CREATE FUNCTION users.count_accounts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM users.counters c
    WHERE (TG_OP <> 'INSERT' AND (c.tier, c.role, c.is_active) = (OLD.tier, OLD.role, OLD.is_active))
        OR (TG_OP <> 'DELETE' AND (c.tier, c.role, c.is_active) = (NEW.tier, NEW.role, NEW.is_active))
    ORDER BY c.tier, c.role, c.is_active FOR UPDATE;
    IF TG_OP <> 'INSERT' THEN
        UPDATE users.counters c SET accounts = c.accounts - 1
        WHERE (c.tier, c.role, c.is_active) = (OLD.tier, OLD.role, OLD.is_active);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE users.counters c SET accounts = c.accounts + 1
        WHERE (c.tier, c.role, c.is_active) = (NEW.tier, NEW.role, NEW.is_active);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER accounts_counted AFTER INSERT OR DELETE OR UPDATE OF tier, role, is_active ON users.users
    FOR EACH ROW EXECUTE FUNCTION users.count_accounts();
-- The trigger's lock on the table stands until this commits, so nothing is counted twice or missed.
UPDATE users.counters c SET accounts = n
FROM (SELECT tier, role, is_active, count(*) AS n FROM users.users GROUP BY tier, role, is_active) u
WHERE (c.tier, c.role, c.is_active) = (u.tier, u.role, u.is_active);
