CREATE SCHEMA IF NOT EXISTS sessioncap;

CREATE TABLE sessioncap.migrations (
    version integer PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every transaction of an agent's gates, in order. A row is never changed, and only `sessioncap.trim` removes rows.
CREATE TABLE sessioncap.log (
    agent bytea NOT NULL CHECK (octet_length(agent) = 32),
    position bigint NOT NULL CHECK (position >= 0),
    -- the hash of the row before
    previous bytea NOT NULL CHECK (octet_length(previous) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- the process that wrote it
    writer bytea NOT NULL CHECK (octet_length(writer) = 16),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changes bytea NOT NULL,
    PRIMARY KEY (agent, position)
);

-- The records as the last row of the log leaves them.
CREATE TABLE sessioncap.rows (
    agent bytea NOT NULL,
    part smallint NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (agent, part, key)
);

-- The processes that permit, and up to where each has observed the log.
CREATE TABLE sessioncap.nodes (
    agent bytea NOT NULL,
    writer bytea NOT NULL CHECK (octet_length(writer) = 16),
    node bigint NOT NULL,
    observed bigint NOT NULL,
    -- up to where a synchronous commit of its own has confirmed it
    confirmed bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (agent, writer)
);

-- Removes rows of the log that every process has confirmed, all but the last `keep` and the last one.
CREATE FUNCTION sessioncap.trim(of_agent bytea, keep bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    WITH head AS (
        SELECT max(position) AS position FROM sessioncap.log WHERE agent = of_agent
    ), needed AS (
        SELECT min(confirmed) AS position FROM sessioncap.nodes
        WHERE agent = of_agent AND seen_at > clock_timestamp() - interval '1 hour'
    ), gone AS (
        DELETE FROM sessioncap.log USING head, needed
        WHERE agent = of_agent
          AND log.position < least(head.position - greatest(keep, 0), coalesce(needed.position, head.position))
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
REVOKE ALL ON FUNCTION sessioncap.trim(bytea, bigint) FROM PUBLIC;

INSERT INTO sessioncap.migrations (version) VALUES (1);
