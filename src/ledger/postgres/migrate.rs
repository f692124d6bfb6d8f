//! Migrations of the ledger, built into the binary, and the guard against a newer schema.

use std::time::Duration;

use super::pool::Pool;
use crate::connect::postgres::classify;
use crate::error::{Error, Result};
use crate::ledger::Migration;
use crate::secret::Secret;

const DOING: &str = "migrate the ledger";
/// The advisory lock of the database under which a session migrates.
const LOCK: i64 = i64::from_be_bytes(*b"lngshore");
/// How often is looked whether another migration has ended.
const LOOK: Duration = Duration::from_millis(100);

refinery::embed_migrations!("migrations");

/// Applies the migrations that the ledger lacks, one process at a time. Answers all of them.
///
/// # Errors
/// `refused` where the ledger is newer than this binary, or the user lacks a right; else as the
/// server's answer.
pub async fn migrate(url: &str, password: Option<&Secret>) -> Result<Vec<Migration>> {
    let pool = Pool::new(url, password, 1)?;
    let mut client = pool.checkout().await?;
    alone(&client).await?;
    check(&client).await?;
    let known_before = known(&client).await?;
    if known_before.iter().all(|migration| migration.applied) {
        // Whoever looks need not be the owner.
        return Ok(known_before);
    }
    may_migrate(&client).await?;
    // A migration may take as long as the data is large.
    client.batch_execute("SET statement_timeout = 0").await.map_err(|e| classify(DOING, e))?;
    migrations::runner().run_async(&mut **client).await.map_err(|cause| {
        Error::permanent(DOING, "a migration failed; nothing of it remains")
            .help("The log has the server's words.")
            .caused_by(cause)
    })?;
    known(&client).await
}

/// Whether the user may make tables, and change those that are there.
///
/// # Errors
/// `refused`, with what it lacks and who gives it.
pub async fn may_migrate(client: &tokio_postgres::Client) -> Result<()> {
    let row = client
        .query_one(
            "SELECT quote_ident(current_user), quote_ident(current_schema()), \
                    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
                    (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class \
                     WHERE oid = ANY (SELECT to_regclass(name) FROM unnest($1::text[]) AS t (name)) \
                       AND NOT pg_has_role(relowner, 'USAGE') LIMIT 1)",
            &[&made().0],
        )
        .await
        .map_err(|e| classify(DOING, e))?;
    let (user, schema): (String, Option<String>) =
        (super::column(&row, 0)?, super::column(&row, 1)?);
    let (creates, owner): (bool, Option<String>) =
        (super::column(&row, 2)?, super::column(&row, 3)?);
    let Some(schema) = schema else { return Err(blind(&user)) };
    if let Some(owner) = owner {
        let what = format!("the tables are owned by {owner}, and {user} is no member of that role");
        return Err(Error::refused(DOING, what).help(format!(
            "Run it as {owner}, by LONGSHORE__LEDGER__URL and LONGSHORE__LEDGER__PASSWORD, or: GRANT \
             {owner} TO {user};"
        )));
    }
    if creates {
        return Ok(());
    }
    Err(Error::refused(DOING, format!("{user} lacks CREATE on schema {schema}")).help(format!(
        "Run it as the owner of the database, or: GRANT CREATE ON SCHEMA {schema} TO {user};"
    )))
}

/// That a user sees no schema.
fn blind(user: &str) -> Error {
    Error::refused(
        "use the ledger",
        format!("{user} lacks USAGE on the schemas of its search_path"),
    )
    .help(format!("GRANT USAGE ON SCHEMA public TO {user}; or whichever schema has the ledger."))
}

/// Waits until no other session migrates, and keeps the others out until this one ends, however it
/// does. It asks again and again: a statement that waits would run into the timeouts of the pool,
/// and hold a snapshot for which a migration may have to wait.
async fn alone(client: &tokio_postgres::Client) -> Result<()> {
    let mut told = false;
    loop {
        let row = client
            .query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK])
            .await
            .map_err(|e| classify(DOING, e))?;
        if super::column::<bool>(&row, 0)? {
            return Ok(());
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("somebody else migrates this database; waiting until that is done");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The migrations that this binary knows, and whether the ledger has them.
pub async fn status(url: &str, password: Option<&Secret>) -> Result<Vec<Migration>> {
    let client = Pool::new(url, password, 1)?.checkout().await?;
    check(&client).await?;
    known(&client).await
}

/// Refuses a ledger that is newer than this binary, or not migrated yet.
///
/// # Errors
/// `refused`, with what to do.
pub async fn guard(client: &tokio_postgres::Client) -> Result<()> {
    check(client).await?;
    if known(client).await?.iter().any(|migration| !migration.applied) {
        return Err(Error::refused("use the ledger", "it lacks migrations of this Longshore")
            .help("Run `longshore migrate`."));
    }
    Ok(())
}

async fn check(client: &tokio_postgres::Client) -> Result<()> {
    let newest = migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| migration.version())
        .max()
        .unwrap_or(0);
    match applied(client).await?.last() {
        Some(version) if *version > newest => {
            Err(Error::refused("use the ledger", "it was migrated by a newer Longshore")
                .with("ledger", version)
                .with("binary", newest)
                .help("Update this binary; an older one could damage what the newer one wrote."))
        }
        _ => Ok(()),
    }
}

async fn known(client: &tokio_postgres::Client) -> Result<Vec<Migration>> {
    let applied = applied(client).await?;
    let mut known: Vec<Migration> = migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| Migration {
            version: migration.version(),
            name: migration.name().to_owned(),
            applied: applied.iter().any(|have| *have == migration.version()),
        })
        .collect();
    known.sort_by_key(|migration| migration.version);
    Ok(known)
}

/// The tables and the sequences that the migrations make.
pub fn made() -> (Vec<String>, Vec<String>) {
    let (mut tables, mut sequences) = (Vec::new(), Vec::new());
    for migration in migrations::runner().get_migrations() {
        let words: Vec<&str> = migration.sql().unwrap_or_default().split_whitespace().collect();
        for three in words.windows(3) {
            let name = three[2].trim_end_matches(';').to_owned();
            match (three[0], three[1]) {
                ("CREATE", "TABLE") => tables.push(name),
                ("CREATE", "SEQUENCE") => sequences.push(name),
                _ => {}
            }
        }
    }
    (tables, sequences)
}

/// What the owner of the tables runs, so that a user may work with them. Both names are quoted where
/// they need it.
pub fn grants(user: &str, schema: &str) -> String {
    format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {user}; GRANT USAGE ON \
         ALL SEQUENCES IN SCHEMA {schema} TO {user};"
    )
}

async fn applied(client: &tokio_postgres::Client) -> Result<Vec<i32>> {
    const DOING: &str = "read what was migrated";
    let row = client
        .query_one(
            "SELECT to_regclass('refinery_schema_history') IS NOT NULL, \
                    coalesce(has_table_privilege(to_regclass('refinery_schema_history'), 'SELECT'), \
                             true), \
                    quote_ident(current_user), quote_ident(current_schema())",
            &[],
        )
        .await
        .map_err(|e| classify(DOING, e))?;
    let (there, readable): (bool, bool) = (super::column(&row, 0)?, super::column(&row, 1)?);
    let (user, schema): (String, Option<String>) =
        (super::column(&row, 2)?, super::column(&row, 3)?);
    match (there, readable, schema) {
        (true, true, _) => {}
        (false, _, Some(_)) => return Ok(Vec::new()),
        (false, _, None) => return Err(blind(&user)),
        (true, false, schema) => {
            let what = format!("{user} lacks SELECT on refinery_schema_history");
            return Err(Error::refused("use the ledger", what).help(format!(
                "As the owner of the tables: {}",
                grants(&user, schema.as_deref().unwrap_or("public"))
            )));
        }
    }
    client
        .query("SELECT version FROM refinery_schema_history ORDER BY version", &[])
        .await
        .map_err(|e| classify(DOING, e))?
        .iter()
        .map(|row| super::column(row, 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_migrations_make_is_known() {
        let (tables, sequences) = made();
        assert!(tables.contains(&"runs".to_owned()) && tables.contains(&"audit".to_owned()));
        assert_eq!(sequences, ["outbox_version"]);
    }
}
