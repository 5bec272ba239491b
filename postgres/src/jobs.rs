//! The statements. Each is sent whole, without a prepared statement or a setting of the session, so that a pooler
//! may give each transaction another connection.

use sessioncap::Timestamp;
use sessioncap::agent::ledger::Changes;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use crate::copy::{Place, Rows};
use crate::link::{Job, Session};
use crate::problem::{Failure, Problem};
use crate::wire::{self, Change, Hash};

/// The agent whose log it is, and this process.
#[derive(Clone, Copy)]
pub(crate) struct Me {
    pub(crate) agent: [u8; 32],
    pub(crate) writer: [u8; 16],
    pub(crate) node: i64,
    pub(crate) standby: bool,
}

/// What the server says of itself: recovery, timeline, what a commit waits for, connected standbys, its clock.
const STATUS: &str = "SELECT pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() THEN '00000000' \
    ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), \
    (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') \
     AND state = 'streaming' AND replay_lsn IS NOT NULL), \
    current_setting('fsync'), floor(extract(epoch FROM clock_timestamp()))::bigint";

/// A read of the log from one place on, and of the row that must be there.
const READ: &str = "SELECT status.*, l.position, l.previous, l.hash, l.writer, l.changes FROM (STATUS) AS status \
    LEFT JOIN LATERAL (SELECT position, previous, hash, writer, changes FROM sessioncap.log \
    WHERE agent = $1 AND (position = $2 OR position >= $3) ORDER BY position LIMIT 500) AS l ON true \
    ORDER BY l.position";

/// The most rows that [`READ`] returns.
pub(crate) const PAGE: usize = 500;

const APPEND: &str = "INSERT INTO sessioncap.log (agent, position, previous, hash, writer, changes) \
    SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT 1 FROM sessioncap.log \
    WHERE agent = $1 AND position = $2 - 1 AND hash = $3)";

const PUT: &str = "INSERT INTO sessioncap.rows (agent, part, key, value) \
    SELECT $1, part, key, value FROM unnest($2::smallint[], $3::bytea[], $4::bytea[]) AS c (part, key, value) \
    ON CONFLICT (agent, part, key) DO UPDATE SET value = excluded.value";

const REMOVE: &str = "DELETE FROM sessioncap.rows AS r \
    USING unnest($2::smallint[], $3::bytea[]) AS c (part, key) \
    WHERE r.agent = $1 AND r.part = c.part AND r.key = c.key";

const SEEN: &str = "INSERT INTO sessioncap.nodes (agent, writer, node, observed, confirmed, seen_at) \
    VALUES ($1, $2, $3, $4, $5, clock_timestamp()) ON CONFLICT (agent, writer) DO UPDATE SET \
    observed = greatest(nodes.observed, excluded.observed), \
    confirmed = greatest(nodes.confirmed, excluded.confirmed), seen_at = excluded.seen_at";

/// Begins a transaction whose commit is kept by a standby, if there is one. A node that stops in the middle of it holds
/// up the others for less time than they wait for a lock.
const BEGIN_DURABLE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit TO on; \
    SET LOCAL lock_timeout TO '4s'; SET LOCAL statement_timeout TO '10s'; \
    SET LOCAL idle_in_transaction_session_timeout TO '1s'";

/// Begins a transaction of which nothing depends on a standby.
const BEGIN_LOCAL: &str = "BEGIN; SET LOCAL synchronous_commit TO local; SET LOCAL statement_timeout TO '10s'; \
    SET LOCAL idle_in_transaction_session_timeout TO '1s'";

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The server, as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) timeline: u32,
    pub(crate) time: Timestamp,
    settings: [(&'static str, String); 3],
    standbys: i64,
}

impl Status {
    fn of(row: &Row) -> Result<Self, Failure> {
        if get::<bool>(row, 0)? {
            return Err(Problem::IsStandby.into());
        }
        let timeline = u32::from_str_radix(get::<&str>(row, 1)?, 16);
        let unreadable = || Problem::Connection("the server's status cannot be read".to_owned());
        let time =
            u64::try_from(get::<i64>(row, 6)?).ok().and_then(|time| Timestamp::from_seconds(time).ok());
        Ok(Self {
            timeline: timeline.map_err(|_| unreadable())?,
            time: time.ok_or_else(unreadable)?,
            settings: [
                ("synchronous_commit", get(row, 2)?),
                ("synchronous_standby_names", get(row, 3)?),
                ("fsync", get(row, 5)?),
            ],
            standbys: get(row, 4)?,
        })
    }

    /// Checks that a commit is kept by a synchronous standby. Changes of these settings need no new connection, so
    /// it is checked in every transaction.
    pub(crate) fn check(&self, standby: bool) -> Result<(), Problem> {
        for (name, value) in &self.settings {
            let keeps = match *name {
                "fsync" => value == "on",
                "synchronous_commit" => !standby || matches!(value.as_str(), "on" | "remote_apply"),
                // A standby of any name could be a receiver that keeps nothing.
                _ => !standby || !(value.trim().is_empty() || value.contains('*')),
            };
            if !keeps {
                return Err(Problem::Setting { name, value: value.clone() });
            }
        }
        if standby && self.standbys < 1 { Err(Problem::NoStandby) } else { Ok(()) }
    }
}

impl Status {
    /// Refuses a server whose timeline is older than one on which a commit was kept.
    pub(crate) fn check_timeline(&self, seen: u32) -> Result<(), Problem> {
        match self.timeline < seen {
            true => Err(Problem::OldPrimary { found: self.timeline, seen }),
            false => Ok(()),
        }
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Failure> {
    row.try_get(at).map_err(|error| Failure::NotDone(Problem::of(&error)))
}

/// What an error before the commit means.
fn before_commit(error: &Error) -> Failure {
    match error.as_db_error().map(|refused| refused.code().code()) {
        // The position has been written, or has just been.
        Some("23505" | "40001" | "40P01") => Failure::Conflict,
        _ => Failure::NotDone(Problem::of(error)),
    }
}

/// Ends a transaction that is not to be committed.
async fn roll_back(session: &Session, failure: Failure) -> Failure {
    match session.client.batch_execute("ROLLBACK").await {
        Ok(()) => failure,
        Err(error) => Failure::NotDone(Problem::of(&error)),
    }
}

/// Appends a transaction to the log, if the log still ends where it is expected to.
pub(crate) struct Append {
    me: Me,
    expected: Place,
    /// The latest timeline on which a commit was kept.
    timeline: u32,
    place: Place,
    bytes: Vec<u8>,
    put: (Vec<i16>, Vec<Vec<u8>>, Vec<Vec<u8>>),
    removed: (Vec<i16>, Vec<Vec<u8>>),
}

impl Append {
    /// `None` if the changes cannot be encoded.
    pub(crate) fn new(me: Me, expected: Place, timeline: u32, changes: &Changes) -> Option<Self> {
        let bytes = wire::encode(changes)?;
        let position = expected.position.checked_add(1)?;
        let place = Place { position, hash: wire::hash(&expected.hash, position, &bytes) };
        let (mut put, mut removed) = ((Vec::new(), Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (table, key, value) in changes.iter() {
            let part = i16::from(wire::number(table)?);
            match value {
                Some(value) => {
                    put.0.push(part);
                    put.1.push(key.to_vec());
                    put.2.push(value.to_vec());
                }
                None => {
                    removed.0.push(part);
                    removed.1.push(key.to_vec());
                }
            }
        }
        Some(Self { me, expected, timeline, place, bytes, put, removed })
    }
}

impl Job for Append {
    type Output = (Place, Status);

    async fn run(self, session: &Session) -> Result<(Place, Status), Failure> {
        let Self { me, expected, timeline, place, bytes, put, removed } = self;
        let (agent, writer) = (me.agent.as_slice(), me.writer.as_slice());
        let (previous, hash) = (expected.hash.as_slice(), place.hash.as_slice());
        let append: [Parameter<'_>; 6] = [
            (&agent, Type::BYTEA),
            (&place.position, Type::INT8),
            (&previous, Type::BYTEA),
            (&hash, Type::BYTEA),
            (&writer, Type::BYTEA),
            (&bytes, Type::BYTEA),
        ];
        let client = &session.client;
        let rows = async {
            let parameters: [Parameter<'_>; 4] = [
                (&agent, Type::BYTEA),
                (&put.0, Type::INT2_ARRAY),
                (&put.1, Type::BYTEA_ARRAY),
                (&put.2, Type::BYTEA_ARRAY),
            ];
            if put.0.is_empty() { Ok(0) } else { client.execute_typed(PUT, &parameters).await }
        };
        let gone = async {
            let parameters: [Parameter<'_>; 3] =
                [(&agent, Type::BYTEA), (&removed.0, Type::INT2_ARRAY), (&removed.1, Type::BYTEA_ARRAY)];
            if removed.0.is_empty() { Ok(0) } else { client.execute_typed(REMOVE, &parameters).await }
        };
        // Sent together, and answered in this order.
        let (begun, status, appended, put, removed) = tokio::join!(
            biased;
            client.batch_execute(BEGIN_DURABLE),
            client.query_typed_one(STATUS, &[]),
            client.execute_typed(APPEND, &append),
            rows,
            gone,
        );
        let checked = (|| {
            begun.map_err(|error| before_commit(&error))?;
            let status = Status::of(&status.map_err(|error| before_commit(&error))?)?;
            let appended = appended.map_err(|error| before_commit(&error))?;
            put.map_err(|error| before_commit(&error))?;
            removed.map_err(|error| before_commit(&error))?;
            status.check(me.standby)?;
            status.check_timeline(timeline)?;
            if appended == 1 { Ok(status) } else { Err(Failure::Conflict) }
        })();
        let status = match checked {
            Ok(status) => status,
            Err(failure) => return Err(roll_back(session, failure).await),
        };
        session.commit().await?;
        Ok((place, status))
    }
}

/// Confirms a place by a synchronous commit after it.
pub(crate) struct Confirm {
    pub(crate) me: Me,
    pub(crate) place: Place,
}

impl Job for Confirm {
    type Output = (Place, Status);

    async fn run(self, session: &Session) -> Result<(Place, Status), Failure> {
        let Self { me, place } = self;
        let (agent, writer) = (me.agent.as_slice(), me.writer.as_slice());
        let seen: [Parameter<'_>; 5] = [
            (&agent, Type::BYTEA),
            (&writer, Type::BYTEA),
            (&me.node, Type::INT8),
            // What it has observed is for the gate to say.
            (&0_i64, Type::INT8),
            (&place.position, Type::INT8),
        ];
        let (begun, status, seen) = tokio::join!(
            biased;
            session.client.batch_execute(BEGIN_DURABLE),
            session.client.query_typed_one(STATUS, &[]),
            session.client.execute_typed(SEEN, &seen),
        );
        let checked = (|| {
            begun.map_err(|error| before_commit(&error))?;
            let status = Status::of(&status.map_err(|error| before_commit(&error))?)?;
            seen.map_err(|error| before_commit(&error))?;
            status.check(me.standby)?;
            Ok::<_, Failure>(status)
        })();
        let status = match checked {
            Ok(status) => status,
            Err(failure) => return Err(roll_back(session, failure).await),
        };
        // No record depends on whether it was written.
        session.commit().await.map_err(|failure| Failure::NotDone(failure.problem()))?;
        Ok((place, status))
    }
}

/// Tells the others up to where this process has observed the log.
pub(crate) struct Seen {
    pub(crate) me: Me,
    pub(crate) observed: i64,
}

impl Job for Seen {
    type Output = ();

    async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { me, observed } = self;
        let (agent, writer) = (me.agent.as_slice(), me.writer.as_slice());
        let seen: [Parameter<'_>; 5] = [
            (&agent, Type::BYTEA),
            (&writer, Type::BYTEA),
            (&me.node, Type::INT8),
            (&observed, Type::INT8),
            (&0_i64, Type::INT8),
        ];
        let client = &session.client;
        let (begun, seen, committed) = tokio::join!(
            biased;
            client.batch_execute(BEGIN_LOCAL),
            client.execute_typed(SEEN, &seen),
            client.batch_execute("COMMIT"),
        );
        let outcome = begun.and(seen).and(committed);
        outcome.map_err(|error| Failure::NotDone(Problem::of(&error)))
    }
}

/// Takes this process off the list.
pub(crate) struct Leave(pub(crate) Me);

impl Job for Leave {
    type Output = ();

    async fn run(self, session: &Session) -> Result<(), Failure> {
        let (agent, writer) = (self.0.agent.as_slice(), self.0.writer.as_slice());
        let parameters: [Parameter<'_>; 2] = [(&agent, Type::BYTEA), (&writer, Type::BYTEA)];
        let gone = "DELETE FROM sessioncap.nodes WHERE agent = $1 AND writer = $2";
        let outcome = session.client.execute_typed(gone, &parameters).await;
        outcome.map(drop).map_err(|error| Failure::NotDone(Problem::of(&error)))
    }
}

/// Counts the processes that may permit and have not observed this position. One that was not seen for `silent`
/// seconds permits nothing.
pub(crate) struct Behind {
    pub(crate) me: Me,
    pub(crate) position: i64,
    pub(crate) silent: f64,
}

impl Job for Behind {
    type Output = i64;

    async fn run(self, session: &Session) -> Result<i64, Failure> {
        let (agent, writer) = (self.me.agent.as_slice(), self.me.writer.as_slice());
        let parameters: [Parameter<'_>; 4] = [
            (&agent, Type::BYTEA),
            (&writer, Type::BYTEA),
            (&self.position, Type::INT8),
            (&self.silent, Type::FLOAT8),
        ];
        let behind = "SELECT count(*) FROM sessioncap.nodes WHERE agent = $1 AND writer <> $2 AND observed < $3 \
            AND seen_at > clock_timestamp() - make_interval(secs => $4)";
        let row = session.client.query_typed_one(behind, &parameters).await;
        get(&row.map_err(|error| Failure::NotDone(Problem::of(&error)))?, 0)
    }
}

/// Wakes the others. A hint, in a transaction of its own, because the lock that it takes is the whole instance's
/// and would otherwise be held while the commit waits for the standby.
pub(crate) struct Notify(pub(crate) std::sync::Arc<str>);

impl Job for Notify {
    type Output = ();

    async fn run(self, session: &Session) -> Result<(), Failure> {
        // Hexadecimal digits.
        let text = format!("{BEGIN_LOCAL}; SELECT pg_notify('sessioncap', '{}'); COMMIT", self.0);
        let outcome = session.client.batch_execute(&text).await;
        outcome.map_err(|error| Failure::NotDone(Problem::of(&error)))
    }
}

/// Removes what nobody needs of the log, all but the last rows.
pub(crate) struct Trim(pub(crate) Me);

impl Job for Trim {
    type Output = ();

    async fn run(self, session: &Session) -> Result<(), Failure> {
        let agent = self.0.agent.as_slice();
        let parameters: [Parameter<'_>; 1] = [(&agent, Type::BYTEA)];
        let outcome = session.client.query_typed("SELECT sessioncap.trim($1, 1000)", &parameters).await;
        outcome.map(drop).map_err(|error| Failure::NotDone(Problem::of(&error)))
    }
}

/// A row of the log.
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) previous: Hash,
    pub(crate) writer: [u8; 16],
    pub(crate) changes: Vec<u8>,
}

impl Entry {
    fn of(row: &Row) -> Result<Option<Self>, Failure> {
        let Some(position) = get::<Option<i64>>(row, 7)? else { return Ok(None) };
        let damaged = |_| Failure::NotDone(Problem::Damaged { position });
        Ok(Some(Self {
            previous: get::<&[u8]>(row, 8)?.try_into().map_err(damaged)?,
            place: Place { position, hash: get::<&[u8]>(row, 9)?.try_into().map_err(damaged)? },
            writer: get::<&[u8]>(row, 10)?.try_into().map_err(damaged)?,
            changes: get::<&[u8]>(row, 11)?.to_vec(),
        }))
    }

    /// Reads the transaction, if the row follows from the place before it.
    pub(crate) fn read(&self, before: &Place) -> Result<Vec<Change>, Problem> {
        let Place { position, hash } = self.place;
        let follows = Some(position) == before.position.checked_add(1) && self.previous == before.hash;
        let whole = wire::hash(&self.previous, position, &self.changes) == hash;
        let changes = wire::decode(&self.changes).filter(|_| follows && whole);
        changes.ok_or(Problem::Damaged { position })
    }
}

/// Reads the log from one place on, with the row of another.
pub(crate) struct Read {
    pub(crate) me: Me,
    pub(crate) confirmed: i64,
    pub(crate) from: i64,
}

impl Job for Read {
    type Output = (Status, Vec<Entry>);

    async fn run(self, session: &Session) -> Result<(Status, Vec<Entry>), Failure> {
        let agent = self.me.agent.as_slice();
        let parameters: [Parameter<'_>; 3] =
            [(&agent, Type::BYTEA), (&self.confirmed, Type::INT8), (&self.from, Type::INT8)];
        // One statement, so that a pooler cannot answer its two halves from two servers.
        let read = READ.replace("STATUS", STATUS);
        let rows = session.client.query_typed(&read, &parameters).await;
        let rows = rows.map_err(|error| Failure::NotDone(Problem::of(&error)))?;
        let first = rows.first().ok_or(Problem::Connection("no answer".to_owned()))?;
        let status = Status::of(first)?;
        let entries = rows.iter().map(Entry::of).collect::<Result<Vec<_>, _>>()?;
        Ok((status, entries.into_iter().flatten().collect()))
    }
}

/// Reads which migrations the database has: the number of the last, or 0.
async fn version(client: &Client) -> Result<i32, Failure> {
    let failed = |error: Error| Failure::NotDone(Problem::of(&error));
    let found = client.query_typed("SELECT to_regclass('sessioncap.migrations') IS NOT NULL", &[]).await;
    match found.map_err(failed)?.first() {
        Some(row) if get::<bool>(row, 0)? => {
            let version = "SELECT coalesce(max(version), 0) FROM sessioncap.migrations";
            get::<i32>(&client.query_typed_one(version, &[]).await.map_err(failed)?, 0)
        }
        _ => Ok(0),
    }
}

/// Loads all rows, and begins the log if there is none.
pub(crate) struct Load(pub(crate) Me);

impl Job for Load {
    type Output = (Status, Rows, Place);

    async fn run(self, session: &Session) -> Result<(Status, Rows, Place), Failure> {
        let me = self.0;
        let (agent, writer, zero) = (me.agent.as_slice(), me.writer.as_slice(), [0_u8; 32].as_slice());
        let client = &session.client;
        let failed = |error: Error| Failure::NotDone(Problem::of(&error));
        let found = version(client).await?;
        if found != crate::schema::VERSION {
            return Err(Problem::Version { found, needed: crate::schema::VERSION }.into());
        }
        let begin: [Parameter<'_>; 3] = [(&agent, Type::BYTEA), (&zero, Type::BYTEA), (&writer, Type::BYTEA)];
        let begun = "INSERT INTO sessioncap.log (agent, position, previous, hash, writer, changes) \
            SELECT $1, 0, $2, $2, $3, ''::bytea WHERE NOT EXISTS \
            (SELECT 1 FROM sessioncap.log WHERE agent = $1) ON CONFLICT DO NOTHING";
        client.execute_typed(begun, &begin).await.map_err(failed)?;
        let of_agent: [Parameter<'_>; 1] = [(&agent, Type::BYTEA)];
        let head =
            "SELECT position, hash FROM sessioncap.log WHERE agent = $1 ORDER BY position DESC LIMIT 1";
        let all = "SELECT part, key, value FROM sessioncap.rows WHERE agent = $1";
        let (snapshot, status, head, rows, end) = tokio::join!(
            biased;
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
            client.query_typed_one(STATUS, &[]),
            client.query_typed_one(head, &of_agent),
            client.query_typed(all, &of_agent),
            client.batch_execute("COMMIT"),
        );
        snapshot.and(end).map_err(failed)?;
        let (status, head) = (Status::of(&status.map_err(failed)?)?, head.map_err(failed)?);
        let position = get::<i64>(&head, 0)?;
        let damaged = || Failure::NotDone(Problem::Damaged { position });
        let hash = get::<&[u8]>(&head, 1)?.try_into().map_err(|_| damaged())?;
        let mut loaded = Rows::default();
        for row in rows.map_err(failed)? {
            let part = u8::try_from(get::<i16>(&row, 0)?).ok().and_then(wire::table).ok_or_else(damaged)?;
            loaded.set(part, get(&row, 1)?, Some(get(&row, 2)?));
        }
        Ok((status, loaded, Place { position, hash }))
    }
}

/// Runs the migrations that the database does not have yet, each in a transaction.
pub(crate) struct Migrate;

impl Job for Migrate {
    type Output = ();

    async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        let failed = |error: Error| Failure::NotDone(Problem::of(&error));
        let found = version(client).await?;
        for migration in crate::schema::MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
            client.batch_execute(&format!("BEGIN; {migration}; COMMIT")).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Grants an agent's rights to a role.
pub(crate) struct Grant(pub(crate) String);

impl Job for Grant {
    type Output = ();

    async fn run(self, session: &Session) -> Result<(), Failure> {
        let outcome = session.client.batch_execute(&crate::schema::grants(&self.0)).await;
        outcome.map_err(|error| Failure::NotDone(Problem::of(&error)))
    }
}
