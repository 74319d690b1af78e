-- Networks from which each account has logged in, as salted digests: strangers cannot shut an account out of them.
CREATE TABLE users.login_networks (
    user_id uuid NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    network bytea NOT NULL CHECK (octet_length(network) = 16),
    last_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, network)
);
