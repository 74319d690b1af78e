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
