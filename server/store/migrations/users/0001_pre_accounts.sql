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
