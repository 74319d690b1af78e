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
