//! Opens SQLite on a shared file system: each setting with its reason, and the schema migrations.
//!
//! Invariants, each with the test that guards it:
//! - every setting is in force, and there is no -shm file (`settings_are_as_designed`)
//! - a file of a newer program is refused untouched (`an_index_of_a_newer_program_is_refused`)

use std::{os::unix::fs::FileExt, path::Path};

use rusqlite::{Connection, MAIN_DB, OpenFlags, config::DbConfig};

use crate::IndexError;

/// "Brth" in ASCII: tells `file` and a worried operator what this is.
const APPLICATION_ID: i64 = 0x4272_7468;
/// The first version that can be read; earlier ones are rebuilt.
const FIRST_VERSION: i64 = 4;
/// The schema of that version and the migrations since, in order; `user_version` is the version after the last one that was applied.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0004_checked.sql"),
    include_str!("schema/0005_preview.sql"),
    include_str!("schema/0006_summaries.sql"),
    include_str!("schema/0007_leftovers.sql"),
    include_str!("schema/0008_snapshot.sql"),
    include_str!("schema/0009_packed.sql"),
];
/// Page cache of one connection in KiB: a 10,000-message mailbox's rows fit, and a thousand open accounts stay within a few gigabytes.
const CACHE_KIB: i64 = 2_048;
/// The file format write version in the header of a database: 1, or 2 with a write-ahead log (<https://sqlite.org/fileformat2.html>).
const WRITE_VERSION_AT: u64 = 18;
/// Prepared statements kept: more than this crate has.
const STATEMENTS_KEPT: usize = 96;

/// Opens (and makes, migrates) the database for reading and writing.
pub(crate) fn writer(file: &Path) -> Result<Connection, IndexError> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // WAL: a commit is one WRITE request; rollback journals take 4 to 24.
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(IndexError::Damaged(format!("journal mode is {mode} instead of wal")));
    }
    if connection.is_readonly(MAIN_DB)? {
        ensure_writable(file)?;
    }
    // FULL: a commit that returned is on stable storage; NORMAL may forget the last ones.
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    // Checkpoints are background work: no client pays for one inside its commit.
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    migrate(&connection)?;
    Ok(connection)
}

/// SQLite only reads a file that says that it was written by a version to come: nothing of ours says so. A file system that only reads is another matter.
fn ensure_writable(file: &Path) -> Result<(), IndexError> {
    let mut version = [0];
    let read = std::fs::File::open(file).and_then(|opened| opened.read_exact_at(&mut version, WRITE_VERSION_AT));
    read.map_err(IndexError::io("can't read", file))?;
    if version[0] > 2 { Err(IndexError::Damaged(format!("its header asks for SQLite's format {}", version[0]))) } else { Ok(()) }
}

/// A second connection of this process that only reads, so that long reads and commits do not wait for each other.
pub(crate) fn reader(file: &Path) -> Result<Connection, IndexError> {
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    Ok(connection)
}

fn connect(file: &Path, flags: OpenFlags) -> Result<Connection, IndexError> {
    // unix-excl: one process holds the file, the WAL index is on its heap (no -shm map, which NFS can't share and which could end in SIGBUS),
    // and the process may have several connections. NO_MUTEX: each connection is behind a mutex of ours.
    let connection = Connection::open_with_flags_and_vfs(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX, "unix-excl")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A misspelt column in double quotes is an error, not a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    // The file lies where others may write: no statement can corrupt it on purpose, and its schema may call nothing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Letting go of an account whose lease is lost must not write; clean closing checkpoints by itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // The lease is the lock: nobody waits for SQLite's.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // mmap: a file cut short on the server would be SIGBUS. temp_store: no temporary files on the share.
    connection.execute_batch(&format!("PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}"))?;
    Ok(connection)
}

fn migrate(connection: &Connection) -> Result<(), IndexError> {
    let known = FIRST_VERSION - 1 + i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if found > known {
        return Err(IndexError::Newer { found, known });
    }
    if found > 0 && application != APPLICATION_ID {
        return Err(IndexError::Damaged(format!("application id {application:#x} is not ours")));
    }
    if found != 0 && found < FIRST_VERSION {
        return Err(IndexError::Damaged(format!("version {found} is too old to be read")));
    }
    for (version, migration) in (FIRST_VERSION..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}; COMMIT;"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_as_designed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("index.db");
        let connection = writer(&file).unwrap();
        let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(pragma("synchronous"), 2);
        assert_eq!(pragma("wal_autocheckpoint"), 0);
        assert_eq!(pragma("trusted_schema"), 0);
        assert_eq!(pragma("application_id"), APPLICATION_ID);
        assert_eq!(pragma("user_version"), FIRST_VERSION - 1 + i64::try_from(MIGRATIONS.len()).unwrap());
        assert!(connection.prepare("SELECT \"no such column\" FROM mailboxes").is_err(), "double quotes are names only");
        let second = reader(&file).unwrap();
        assert!(second.execute("DELETE FROM messages", []).is_err(), "the reader only reads");
        assert!(!folder.path().join("index.db-shm").exists(), "no map on the share");
    }

    #[test]
    fn an_index_of_a_newer_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("index.db");
        writer(&file).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(matches!(writer(&file), Err(IndexError::Newer { found: 99, .. })));
    }

    #[test]
    fn an_index_without_checksums_is_rebuilt() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("index.db");
        writer(&file).unwrap().execute_batch("PRAGMA user_version = 3").unwrap();
        assert!(writer(&file).unwrap_err().needs_rebuild());
    }

    #[test]
    fn what_is_no_database_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("index.db");
        std::fs::write(&file, vec![0x55; 8192]).unwrap();
        assert!(writer(&file).unwrap_err().needs_rebuild());
    }
}
