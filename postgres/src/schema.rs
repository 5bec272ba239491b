//! The tables, and what an agent's role may do with them.

/// The version of the tables that this build reads and writes.
pub(crate) const VERSION: i32 = 1;

/// The migrations in order, the first to version 1.
pub(crate) const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];

/// Returns the statements that let a role be an agent's: read and append, and nothing of the log to change or remove.
/// `pg_read_all_stats` is for the check that a synchronous standby is connected.
#[must_use]
pub fn grants(role: &str) -> String {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    format!(
        "GRANT USAGE ON SCHEMA sessioncap TO {role};\n\
         GRANT SELECT ON sessioncap.migrations TO {role};\n\
         GRANT SELECT, INSERT ON sessioncap.log TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON sessioncap.rows, sessioncap.nodes TO {role};\n\
         GRANT EXECUTE ON FUNCTION sessioncap.trim(bytea, bigint) TO {role};\n\
         GRANT pg_read_all_stats TO {role};\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roles_name_cannot_end_its_quotes() {
        let grants = grants("a\"; DROP TABLE x; --");
        assert!(grants.contains("TO \"a\"\"; DROP TABLE x; --\";"));
    }
}
