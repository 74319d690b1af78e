-- Text as a search compares it: see server/model/folding.py, which does the same. Most text is plain ASCII and only takes the
-- lower case, which is less than ILIKE took.
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
