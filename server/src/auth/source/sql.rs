//! Users in a database: one query gives one row, whose columns are the fields and `password`.
//!
//! - Variables are bound as parameters: no name can change the query ([`super::template`]).
//! - PostgreSQL: a bounded pool of connections, each query with a time limit. SQLite: opened for reading only, on the blocking pool.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Asker,
    bounded::Bounded,
    template::{Template, Variable},
    tls,
};
use crate::{
    auth::record::Fields,
    config::auth::{SqlDriver, SqlSection},
};

/// Queries that wait for a connection at most.
const WAITING_MAX: usize = 2_000;

/// One database.
pub struct Sql {
    database: Database,
    query: String,
    bound: Vec<Variable>,
    limit: Duration,
    turns: Bounded,
}

enum Database {
    Postgres(Pool),
    Sqlite(Arc<Sqlite>),
}

struct Sqlite {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Sql {
    /// Reads the settings; nothing is asked yet.
    pub fn new(section: &SqlSection) -> anyhow::Result<Sql> {
        let sign = if section.driver == SqlDriver::Sqlite { '?' } else { '$' };
        let query = Template::parse(&section.query).map_err(anyhow::Error::msg).context("an SQL source (auth.source, query)")?;
        let (query, bound) =
            query.query(|number| format!("{sign}{number}")).map_err(anyhow::Error::msg).context("an SQL source (auth.source, query)")?;
        let (database, query) = match section.driver {
            SqlDriver::Postgresql => {
                // As JSON, whatever types the columns have; a second row would be a mistake in the query.
                (Database::Postgres(pool(section)?), format!("SELECT row_to_json(berth_row)::text FROM ({query}) AS berth_row LIMIT 2"))
            }
            SqlDriver::Sqlite => {
                (Database::Sqlite(Arc::new(Sqlite { file: section.connection.clone().into(), idle: Mutex::default() })), query)
            }
        };
        let turns = Bounded::new(section.connections.max(1), WAITING_MAX, section.timeout);
        Ok(Sql { database, query, bound, limit: section.timeout, turns })
    }

    /// Whether it says different things to different logins of one user.
    pub fn asks_who(&self) -> bool {
        self.bound.iter().any(|variable| variable.is_of_login())
    }

    /// The row of one user.
    pub async fn find(&self, asker: &Asker) -> Result<Option<Fields>, String> {
        let turn = self.turns.enter().await.map_err(|busy| busy.to_string())?;
        let values: Vec<String> = self.bound.iter().map(|variable| variable.of(asker)).collect();
        let rows = match &self.database {
            Database::Postgres(pool) => {
                timeout(self.limit, self.ask_postgres(pool, &values)).await.map_err(|_| "no answer in time".to_owned())??
            }
            Database::Sqlite(sqlite) => {
                let (sqlite, query, limit) = (Arc::clone(sqlite), self.query.clone(), self.limit);
                let asking = tokio::task::spawn_blocking(move || {
                    // Kept to the end, also if nobody waits any more.
                    let _turn = turn;
                    sqlite.ask(&query, &values, limit)
                });
                let answer = timeout(self.limit, asking).await.map_err(|_| "no answer in time".to_owned())?;
                answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?
            }
        };
        let mut rows = rows.into_iter();
        match (rows.next(), rows.next()) {
            (row, None) => Ok(row),
            (_, Some(_)) => Err(format!("the query gives more than one row for {}", asker.user)),
        }
    }

    async fn ask_postgres(&self, pool: &Pool, values: &[String]) -> Result<Vec<Fields>, String> {
        let told = |error: tokio_postgres::Error| {
            error.as_db_error().map_or_else(|| error.to_string(), |database| format!("{}: {}", database.severity(), database.message()))
        };
        let client = pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => told(error),
            other => other.to_string(),
        })?;
        let statement = client.prepare_cached(&self.query).await.map_err(told)?;
        let parameters: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let rows = client.query(&statement, &parameters).await.map_err(told)?;
        rows.iter()
            .map(|row| {
                let json: String = row.try_get(0).map_err(told)?;
                let row: serde_json::Map<String, Value> = serde_json::from_str(&json).map_err(|error| error.to_string())?;
                Ok(row.into_iter().filter_map(|(name, value)| Some((name, plain(value)?))).collect())
            })
            .collect()
    }
}

fn pool(section: &SqlSection) -> anyhow::Result<Pool> {
    let mut config: tokio_postgres::Config = section
        .connection
        .parse()
        .context("an SQL source (auth.source, connection): as in \"host=db.example.org user=berth dbname=mail\"")?;
    if let Some(password) = tls::secret(section.password_file.as_deref())? {
        config.password(password);
    }
    config.connect_timeout(section.timeout).application_name("berth");
    let tls = MakeRustlsConnect::new(Arc::unwrap_or_clone(tls::client(section.ca_file.as_deref())?));
    // A connection that was cut by a restart of the server is noticed before it is used.
    let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Verified });
    let limits = Timeouts { wait: Some(section.timeout), create: Some(section.timeout), recycle: Some(section.timeout) };
    Pool::builder(manager)
        .max_size(section.connections.max(1))
        .timeouts(limits)
        .runtime(Runtime::Tokio1)
        .build()
        .context("a pool of connections")
}

/// `None`: NULL, which is no field.
fn plain(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        Value::Bool(on) => Some(if on { "yes" } else { "no" }.to_owned()),
        Value::Array(values) => Some(values.into_iter().filter_map(plain).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

impl Sqlite {
    fn ask(&self, query: &str, values: &[String], limit: Duration) -> rusqlite::Result<Vec<Fields>> {
        // Not in the same statement: the lock would be held while a file is opened.
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?,
        };
        connection.busy_timeout(limit)?;
        let rows = rows(&connection, query, values)?;
        self.idle.lock().push(connection);
        Ok(rows)
    }
}

fn rows(connection: &Connection, query: &str, values: &[String]) -> rusqlite::Result<Vec<Fields>> {
    let mut statement = connection.prepare_cached(query)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut fields = Fields::new();
        for (column, name) in names.iter().enumerate() {
            let text = match row.get_ref(column)? {
                ValueRef::Null => continue,
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => number.to_string(),
                ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
            };
            fields.insert(name.clone(), text);
        }
        found.push(fields);
        if found.len() > 1 {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use affinity::UserName;

    use super::*;

    fn section(file: &std::path::Path, query: &str) -> SqlSection {
        SqlSection { driver: SqlDriver::Sqlite, connection: file.display().to_string(), query: query.to_owned(), ..SqlSection::default() }
    }

    #[tokio::test]
    async fn a_row_of_sqlite_is_a_users_fields() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users.db");
        let database = Connection::open(&file).unwrap();
        database
            .execute_batch("CREATE TABLE u (name TEXT, password TEXT, quota INTEGER, home TEXT); INSERT INTO u VALUES ('ada', '{PLAIN}x', 5, NULL), ('two', 'a', 1, ''), ('two', 'b', 1, '')")
            .unwrap();
        let sql = Sql::new(&section(&file, "SELECT password, quota AS quota_rule, home FROM u WHERE name = %n")).unwrap();
        let ask = async |name: &str| sql.find(&Asker::lookup(&UserName::normalise(name).unwrap())).await;
        let fields = ask("ada").await.unwrap().unwrap();
        assert_eq!(fields, [("password", "{PLAIN}x"), ("quota_rule", "5")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        assert_eq!(ask("nobody").await, Ok(None));
        assert_eq!(ask("x'or'1'='1").await, Ok(None), "a name is no part of the query");
        assert!(ask("two").await.unwrap_err().contains("more than one row"));
        database.execute_batch("DROP TABLE u").unwrap();
        assert!(ask("ada").await.is_err(), "a database that can't answer is down, not empty");
    }

    #[test]
    fn mistakes_in_the_settings_say_what_to_write() {
        let said = |section: SqlSection| format!("{:#}", Sql::new(&section).err().unwrap());
        let file = std::path::Path::new("/x");
        assert!(said(section(file, "SELECT 1 WHERE n = '%u'")).contains("without them"));
        assert!(said(section(file, "SELECT %x")).contains("%x is unknown"));
        let postgres = SqlSection { driver: SqlDriver::Postgresql, connection: "nonsense".into(), ..section(file, "SELECT 1") };
        assert!(said(postgres).contains("host=db.example.org"));
    }
}
