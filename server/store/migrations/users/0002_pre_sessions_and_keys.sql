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
