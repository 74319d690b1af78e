-- The whole schema as the migrations leave it, for reading. A test applies this to one database and the migrations to
-- another and compares the two; the server itself only ever runs the migrations.

CREATE SCHEMA users;
CREATE SCHEMA mailboxes;
CREATE SCHEMA messages;

-- What was applied: every file with its phase; and, for release 0.1.0, those that it must know (migrate.py).
CREATE TABLE users.schema_migrations (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE mailboxes.schema_migrations (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE messages.schema_migrations (number integer PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE users.schema_changes (
    number     integer PRIMARY KEY,
    phase      text NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE mailboxes.schema_changes (
    number     integer PRIMARY KEY,
    phase      text NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE messages.schema_changes (
    number     integer PRIMARY KEY,
    phase      text NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Accounts. Nothing in another domain refers to this table by foreign key: it may live on a server of its own.
CREATE TABLE users.users (
    id                uuid PRIMARY KEY,
    email             text NOT NULL,
    username          text,
    password_hash     text NOT NULL,
    tier              text NOT NULL DEFAULT 'free' CHECK (tier IN ('free', 'basic', 'pro', 'enterprise')),
    role              text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin', 'super')),
    is_active         boolean NOT NULL DEFAULT true,
    is_email_verified boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    last_login_at     timestamptz
);
-- Addresses and names are compared without case; citext is a contrib extension and so not relied on.
CREATE UNIQUE INDEX users_email ON users.users (lower(email));
CREATE UNIQUE INDEX users_username ON users.users (lower(username));

-- A login and all that it renews (a family of refresh tokens): only the newest refresh token counts, and only its hash is
-- kept. An access token holds while the session it names is here, so that deleting the row ends all of them at once.
CREATE TABLE users.sessions (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    refresh_hash bytea NOT NULL CHECK (octet_length(refresh_hash) = 32),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX sessions_user_id ON users.sessions (user_id, id);

-- Networks from which each account has logged in, the twenty that did last, as salted digests.
CREATE TABLE users.login_networks (
    user_id uuid NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    network bytea NOT NULL CHECK (octet_length(network) = 16),
    last_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, network)
);

-- Keys for programs. A key is random, so a fast hash of it is enough; `shown` is its beginning and end, for its owner to
-- tell them apart.
CREATE TABLE users.api_keys (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    name         text NOT NULL,
    hash         bytea NOT NULL CHECK (octet_length(hash) = 32),
    shown        text NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz
);
CREATE UNIQUE INDEX api_keys_hash ON users.api_keys (hash);
CREATE INDEX api_keys_user_id ON users.api_keys (user_id, id);

-- What an administrator granted one account instead of what its tier allows; 0 is without limit.
CREATE TABLE users.quotas (
    user_id                 uuid PRIMARY KEY REFERENCES users.users (id) ON DELETE CASCADE,
    max_mailboxes           integer NOT NULL CHECK (max_mailboxes >= 0),
    max_messages            integer NOT NULL CHECK (max_messages >= 0),
    max_requests_per_minute integer NOT NULL CHECK (max_requests_per_minute >= 0),
    max_concurrent          integer NOT NULL CHECK (max_concurrent >= 0)
);

-- Labels a user puts on messages. Which message carries which is in the domain `messages`.
CREATE TABLE users.tags (
    id          uuid PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    name        text NOT NULL,
    color       text NOT NULL,
    description text NOT NULL,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
-- A user's tags; two never share a name, whatever its case.
CREATE UNIQUE INDEX tags_user_name ON users.tags (user_id, lower(name));

-- Where users want to be told. The secret is kept as it is, because every payload is signed with it.
CREATE TABLE users.webhooks (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    url          text NOT NULL,
    events       text[] NOT NULL,
    secret       text NOT NULL,
    description  text NOT NULL,
    is_active    boolean NOT NULL DEFAULT true,
    retry_count  integer NOT NULL DEFAULT 0, -- failures since the last success
    last_error   text,
    last_success timestamptz,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);
CREATE INDEX webhooks_user_id ON users.webhooks (user_id, id);

-- Who may read what: an address, the hash of its token, and when it ends. Its mail is in the domain `messages`.
CREATE TABLE mailboxes.mailboxes (
    id         uuid PRIMARY KEY,
    local_part text NOT NULL,
    domain     text NOT NULL,
    token_hash bytea NOT NULL CHECK (octet_length(token_hash) = 32),
    user_id    uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    disabled   boolean NOT NULL DEFAULT false -- by administrators: it takes no mail, and its address stays taken
);
-- The sweeper takes the oldest first; mailboxes kept for ever are not in its way.
CREATE INDEX mailboxes_expires_at ON mailboxes.mailboxes (expires_at) WHERE expires_at IS NOT NULL;
-- A user's own list, newest first (ids sort by time).
CREATE INDEX mailboxes_user_id ON mailboxes.mailboxes (user_id, id) WHERE user_id IS NOT NULL;

-- Every address that leads to a mailbox: its own and its aliases. One key over both, so that the database decides who gets an
-- address, whatever asks for it at the same moment. Deleting the mailbox frees them all in the same statement.
CREATE TABLE mailboxes.addresses (
    local_part text NOT NULL,
    domain     text NOT NULL,
    mailbox_id uuid NOT NULL REFERENCES mailboxes.mailboxes (id) ON DELETE CASCADE,
    alias_id   uuid, -- NULL: the mailbox's own
    is_active  boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (domain, local_part)
);
-- A mailbox's aliases, and what its deletion frees.
CREATE INDEX addresses_mailbox_id ON mailboxes.addresses (mailbox_id, alias_id);

-- Domains somebody wants served; user_id NULL is the installation's own. Anybody may claim a name: what counts is who proved
-- it, so that a claim never stands in the way of the owner.
CREATE TABLE mailboxes.domains (
    id            uuid PRIMARY KEY,
    name          text NOT NULL,
    user_id       uuid,
    mode          text NOT NULL DEFAULT 'shared' CHECK (mode IN ('shared', 'exclusive', 'catch_all', 'whitelist')),
    status        text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'verified', 'failed', 'expired')),
    method        text NOT NULL DEFAULT 'dns' CHECK (method IN ('dns', 'configuration')),
    verify_token  text NOT NULL CHECK (verify_token ~ '^[0-9a-f]{64}$'),
    created_at    timestamptz NOT NULL,
    created_by    uuid,
    verified_at   timestamptz,
    last_check_at timestamptz,
    expires_at    timestamptz,
    is_active     boolean NOT NULL DEFAULT true,
    is_default    boolean NOT NULL DEFAULT false,
    mx_records    text[] NOT NULL DEFAULT '{}',
    notes         text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX domains_verified ON mailboxes.domains (name) WHERE status = 'verified';
CREATE UNIQUE INDEX domains_system ON mailboxes.domains (name) WHERE user_id IS NULL;
CREATE UNIQUE INDEX domains_claim ON mailboxes.domains (user_id, name) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX domains_default ON mailboxes.domains (is_default) WHERE is_default;
-- Users' domains are proved again and again: the one that waited longest first.
CREATE INDEX domains_check ON mailboxes.domains (last_check_at) WHERE status = 'verified' AND user_id IS NOT NULL;

-- A number that moves whenever the set of served domains may have changed: workers read it often and the set seldom.
CREATE TABLE mailboxes.domain_set (revision bigint NOT NULL);
CREATE UNIQUE INDEX domain_set_one ON mailboxes.domain_set ((true));
INSERT INTO mailboxes.domain_set VALUES (1);
CREATE FUNCTION mailboxes.domain_set_moves() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE mailboxes.domain_set SET revision = revision + 1; RETURN NULL; END';
CREATE TRIGGER domain_comes AFTER INSERT ON mailboxes.domains
    FOR EACH ROW WHEN (NEW.status = 'verified') EXECUTE FUNCTION mailboxes.domain_set_moves();
CREATE TRIGGER domain_goes AFTER DELETE ON mailboxes.domains
    FOR EACH ROW WHEN (OLD.status = 'verified') EXECUTE FUNCTION mailboxes.domain_set_moves();
CREATE TRIGGER domain_changes AFTER UPDATE ON mailboxes.domains
    FOR EACH ROW WHEN ((OLD.mode, OLD.status, OLD.is_active, OLD.is_default, OLD.method)
        IS DISTINCT FROM (NEW.mode, NEW.status, NEW.is_active, NEW.is_default, NEW.method))
    EXECUTE FUNCTION mailboxes.domain_set_moves();

-- One row a mailbox: the lock that orders its mail, the next sequence number, the counters, and when its mail may vanish.
-- drop_after here is the authority: deliveries, extensions and deletions all take this row's lock before they act on it.
CREATE TABLE messages.inboxes (
    mailbox_id    uuid PRIMARY KEY,
    drop_after    timestamptz NOT NULL,
    next_seq      bigint NOT NULL DEFAULT 1,
    total         integer NOT NULL DEFAULT 0,
    unread        integer NOT NULL DEFAULT 0,
    capacity      integer NOT NULL DEFAULT 0 CHECK (capacity >= 0), -- messages it may hold; 0 = any number
    last_activity timestamptz,
    user_id       uuid -- whose mailbox it is, so that a batch knows from the rows it locks anyway who is to be told
) WITH (fillfactor = 70); -- room for the counters' updates to stay on the page (HOT)
CREATE INDEX inboxes_drop_after ON messages.inboxes (drop_after);
-- A user's own mail, whatever mailbox it is in.
CREATE INDEX inboxes_user_id ON messages.inboxes (user_id) WHERE user_id IS NOT NULL;

-- One row for each mailbox a message reached. Mail vanishes by dropping the partition its drop_after lies in.
CREATE TABLE messages.messages (
    mailbox_id      uuid NOT NULL,
    seq             bigint NOT NULL,
    id              uuid NOT NULL, -- its low 32 bits are seq, so the index below serves look-ups by id as well
    drop_after      timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    body_id         uuid NOT NULL,
    body_drop_after timestamptz NOT NULL,
    size            integer NOT NULL,
    is_read         boolean NOT NULL,
    envelope_from   text NOT NULL,
    sender          text NOT NULL,
    recipient       text NOT NULL,
    subject         text NOT NULL,
    preview         text NOT NULL,
    details         json NOT NULL -- what only some readers need: server.model.message.Details
) PARTITION BY RANGE (drop_after);
CREATE INDEX messages_mailbox_seq ON messages.messages (mailbox_id, seq);

-- The message as it came, once for each DATA however many mailboxes it reached; `refs` of them still hold it.
CREATE TABLE messages.bodies (
    id          uuid NOT NULL,
    drop_after  timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    refs        integer NOT NULL,
    raw         bytea NOT NULL, -- zstd
    text        text            -- not written any more: search reads raw
) PARTITION BY RANGE (drop_after);
ALTER TABLE messages.bodies ALTER raw SET STORAGE EXTERNAL, ALTER text SET STORAGE EXTERNAL; -- pglz would cost 36 us a mail
CREATE INDEX bodies_id ON messages.bodies (id);

-- Mail kept for ever lies under the open-ended last range, by month of receipt.
CREATE TABLE messages.messages_forever PARTITION OF messages.messages
    FOR VALUES FROM ('infinity') TO (MAXVALUE) PARTITION BY RANGE (received_at);
CREATE TABLE messages.bodies_forever PARTITION OF messages.bodies
    FOR VALUES FROM ('infinity') TO (MAXVALUE) PARTITION BY RANGE (received_at);

-- Which message carries which tag. Partitioned as messages are, so that a tag goes with the partition of its message.
-- The key begins with the tag and ends a tag's list in the order of its messages' ids, which is the order of their receipt.
CREATE TABLE messages.message_tags (
    tag_id      uuid NOT NULL,
    message_id  uuid NOT NULL,
    mailbox_id  uuid NOT NULL,
    seq         bigint NOT NULL,
    drop_after  timestamptz NOT NULL, -- the message's own, as is received_at: both are bounds of partitions
    received_at timestamptz NOT NULL,
    PRIMARY KEY (tag_id, message_id, drop_after, received_at)
) PARTITION BY RANGE (drop_after);
-- The tags of one message.
CREATE INDEX message_tags_message ON messages.message_tags (mailbox_id, seq);

CREATE TABLE messages.message_tags_forever PARTITION OF messages.message_tags
    FOR VALUES FROM ('infinity') TO (MAXVALUE) PARTITION BY RANGE (received_at);

-- This domain's copy of who listens to what: at least every active webhook of users.webhooks, for a moment perhaps one that
-- is not active any more (deliveries ask again before they send).
CREATE TABLE messages.listeners (
    webhook_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    events     text[] NOT NULL
);
CREATE INDEX listeners_user_id ON messages.listeners (user_id);

-- The outbox and the log of webhooks: a row is written with what it tells of, and is tried when due_at has come. Taking one
-- moves due_at to the end of a lease, so what a dead worker had taken is due again by itself.
CREATE TABLE messages.deliveries (
    id          uuid PRIMARY KEY, -- sorts by time: retention needs no index of its own
    webhook_id  uuid NOT NULL,
    user_id     uuid NOT NULL,
    event       text NOT NULL,
    data        json NOT NULL, -- as text, for a payload is the same bytes at every attempt
    created_at  timestamptz NOT NULL,
    due_at      timestamptz,
    fence       integer NOT NULL DEFAULT 0,
    attempts    integer NOT NULL DEFAULT 0,
    success     boolean NOT NULL DEFAULT false,
    status_code integer,
    response    text,
    duration    integer, -- ms
    error       text,
    mailbox_id  uuid -- whose mail it quotes: it is forgotten with its mailbox
);
CREATE INDEX deliveries_mailbox_id ON messages.deliveries (mailbox_id) WHERE mailbox_id IS NOT NULL;

-- Text as a search compares it: server/model/folding.py does the same.
CREATE FUNCTION messages.folded_apart(given text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    bare text := translate(lower(regexp_replace(
        normalize(given, NFKD),
        '[\u0300-\u036f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]+', '', 'g'
    )), 'øłđðħıŧς', 'olddhitσ');
BEGIN
    IF bare ~ '[ßæœþ]' THEN
        bare := replace(replace(replace(replace(bare, 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'), 'þ', 'th');
    END IF;
    IF bare ~ '[\u1100-\u11ff\u3099\u309a]' THEN
        bare := normalize(bare, NFC);
    END IF;
    IF bare ~ '\s\s|[^\S ]|^\s|\s$' THEN
        bare := btrim(regexp_replace(bare, '\s+', ' ', 'g'));
    END IF;
    RETURN bare;
END $$;

CREATE FUNCTION messages.folded(given text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(given) = char_length(given) AND strpos(given, '  ') = 0 AND strpos(given, E'\t') = 0
        THEN lower(given) ELSE messages.folded_apart(given) END
$$;

-- What is left of an event whose mail is forgotten.
CREATE FUNCTION messages.without_quotes(data json) RETURNS json LANGUAGE sql IMMUTABLE AS
    $$SELECT json_build_object('messageId', data ->> 'messageId', 'mailboxId', data ->> 'mailboxId', 'seq', data -> 'seq')$$;
CREATE INDEX deliveries_webhook_id ON messages.deliveries (webhook_id, id);
CREATE INDEX deliveries_due_at ON messages.deliveries (due_at) WHERE due_at IS NOT NULL;

-- Mailboxes that were deleted before their time: their mail has still to leave the disk. Whoever takes one moves due_at on, so
-- what a dead worker had taken is due again by itself.
CREATE TABLE messages.erasures (
    mailbox_id uuid PRIMARY KEY,
    drop_after timestamptz NOT NULL, -- the inbox's
    ended_at   timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX erasures_due_at ON messages.erasures (due_at);

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

-- How many messages were received, in all and on the last day of each row (UTC). A batch counts itself in where it takes its
-- numbers; each connection of the server has its row, so that commits rarely wait for one another.
CREATE TABLE messages.counters (
    shard    integer PRIMARY KEY,
    received bigint NOT NULL DEFAULT 0,
    day      date NOT NULL DEFAULT '-infinity',
    today    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25); -- room for many updates a second to stay on the page (HOT)
INSERT INTO messages.counters (shard) SELECT generate_series(0, 255);
-- What was received before this counter was there, as far as it still shows.
UPDATE messages.counters SET received = (SELECT coalesce(sum(next_seq - 1), 0) FROM messages.inboxes) WHERE shard = 0;

-- Ids of mail that came through the queue, written in the transaction that stores it: what the broker hands out once more
-- after a crash is not stored once more. A slot is the hour in which the id was made, modulo 32, so that a slot that is over
-- is emptied with TRUNCATE, and the key is unique although the table is partitioned: an id tells its slot.
CREATE TABLE messages.arrivals (
    slot smallint NOT NULL,
    id   uuid NOT NULL,
    PRIMARY KEY (slot, id)
) PARTITION BY LIST (slot);
DO $$
BEGIN
    FOR slot IN 0..31 LOOP
        EXECUTE format('CREATE TABLE messages.arrivals_%s PARTITION OF messages.arrivals FOR VALUES IN (%s)', slot, slot);
    END LOOP;
END
$$;

-- A batch of arriving mail as one value, a row for each mailbox (server/store/letters.py). Of a message's rows the first
-- brings raw; sharers are its mailboxes where there are several.
CREATE TYPE messages.letter AS (
    mailbox_id    uuid,
    place         integer, -- in its mailbox, from the first number the batch is given there
    id_head       text,
    body_id       uuid,
    refs          integer,
    received_at   timestamptz,
    size          integer,
    is_read       boolean,
    sharers       uuid[],
    envelope_from text,
    sender        text,
    subject       text,
    preview       text,
    details       json,
    recipient     text,
    raw           bytea
);

-- Decisions about mail: what became of each connection, sender, recipient and message, for the hours that TRACE_RETENTION says.
-- Hours are dropped whole. The id only orders decisions of one moment.
CREATE TABLE messages.trace (
    at         timestamptz NOT NULL, -- by the database's clock
    id         bigint NOT NULL,
    rcpt_at    timestamptz,          -- when the recipient was accepted, on the row of its message's end
    address    text NOT NULL,        -- the mailbox the recipient means; the sender where there is no recipient
    stage      text NOT NULL,
    client     text NOT NULL,
    helo       text NOT NULL,
    sender     text NOT NULL,
    recipient  text NOT NULL,
    mailbox_id uuid,                 -- the mailbox that it led to then: a later one of the same address does not see it
    message_id uuid,
    reply      text NOT NULL,
    node       text NOT NULL,
    unrecorded integer               -- this row stands for so many decisions that were only counted
) PARTITION BY RANGE (at);
CREATE INDEX trace_address ON messages.trace (address, at);
CREATE INDEX trace_at ON messages.trace (at);

-- Who and what is not let in: networks, senders, senders' domains, and names of mailboxes. Workers hold them in memory.
CREATE TABLE users.bans (
    id         uuid PRIMARY KEY, -- sorts by time
    kind       text NOT NULL CHECK (kind IN ('network', 'sender', 'senderDomain', 'localPart')),
    value      text NOT NULL,
    reason     text NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    UNIQUE (kind, value)
);

-- Who made which mailbox, for the days that CREATOR_RETENTION says, also when the mailbox is gone.
CREATE TABLE mailboxes.creators (
    mailbox_id uuid PRIMARY KEY,
    local_part text NOT NULL,
    domain     text NOT NULL,
    client     inet, -- NULL: mail made it, or a client of this host's socket
    user_id    uuid,
    at         timestamptz NOT NULL
);
CREATE INDEX creators_at ON mailboxes.creators (at);
-- Which of them a network made.
CREATE INDEX creators_client ON mailboxes.creators USING gist (client inet_ops);
