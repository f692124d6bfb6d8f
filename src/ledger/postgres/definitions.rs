//! Definitions: which is active, and its number.

use deadpool_postgres::Object;

use super::{classify, column};
use crate::error::Result;
use crate::ledger::{Applied, Change, NewDefinition};

/// See [`Ledger::activate`](crate::ledger::Ledger::activate).
pub async fn activate(
    client: &mut Object,
    definitions: &[NewDefinition],
    retire: bool,
    (by, reason): (&str, &str),
    dry_run: bool,
) -> Result<Vec<Applied>> {
    const DOING: &str = "apply the definitions";
    let failed = |e| classify(DOING, e);
    let tx = client.transaction().await.map_err(failed)?;
    // Two applies at once would number their revisions alike.
    tx.execute("LOCK TABLE definitions IN SHARE ROW EXCLUSIVE MODE", &[]).await.map_err(failed)?;
    let mut applied = Vec::new();
    for new in definitions {
        let active: Option<String> = tx
            .query_opt("SELECT hash FROM active_definitions WHERE export = $1", &[&new.export])
            .await
            .map_err(failed)?
            .map(|row| column(&row, 0))
            .transpose()?;
        let row = tx
            .query_one(sql!(put_definition), &[&new.export, &new.hash, &new.content, &by])
            .await
            .map_err(failed)?;
        let change = match active {
            None => Change::New,
            Some(hash) if hash == new.hash => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        if change != Change::Unchanged {
            let weight = i32::from(new.weight);
            tx.execute(sql!(activate), &[&new.export, &new.hash, &weight]).await.map_err(failed)?;
        }
        applied.push(Applied { export: new.export.clone(), revision: column(&row, 0)?, change });
    }
    if retire {
        let names: Vec<&String> = definitions.iter().map(|new| &new.export).collect();
        let gone = tx
            .query(
                "DELETE FROM active_definitions WHERE export <> ALL ($1) RETURNING export",
                &[&names],
            )
            .await
            .map_err(failed)?;
        for row in &gone {
            applied.push(Applied { export: column(row, 0)?, revision: 0, change: Change::Retired });
        }
    }
    for line in applied.iter().filter(|line| line.change != Change::Unchanged) {
        let reason = line.audited(reason);
        tx.execute(
            r#"INSERT INTO audit ("by", action, subject, reason) VALUES ($1, 'apply', $2, $3)"#,
            &[&by, &line.export, &reason],
        )
        .await
        .map_err(failed)?;
    }
    if dry_run {
        tx.rollback().await.map_err(failed)?;
    } else {
        tx.commit().await.map_err(failed)?;
    }
    Ok(applied)
}
