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
