//! Reading by a cursor: from where it stands to the greatest value there is, both found and read in
//! one snapshot. Values pass as PostgreSQL's own text.

use std::error::Error as Cause;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use super::{READ, classify};
use crate::connect::postgres::{Client, quoted};
use crate::connect::sql::quote;
use crate::error::{Error, Result};
use crate::job::param::Bindings;
use crate::source::cursor::{self, CursorConfig, Nulls, Since};
use crate::source::{SourceConfig, sql};

/// What is read by a cursor.
pub(super) struct Range {
    /// What the rows have to meet.
    pub conditions: Vec<String>,
    /// The last value that they may have, if there are any.
    pub to: Option<String>,
}

/// A cursor of a source, in the transaction that everything is read in.
pub(super) struct Cursor<'a> {
    client: &'a Client,
    config: &'a CursorConfig,
    source: &'a SourceConfig,
    bindings: &'a Bindings,
    /// Its column as SQL text.
    column: String,
    /// The column's type; of a domain, what it is a domain of.
    kind: Type,
}

impl<'a> Cursor<'a> {
    /// Finds the column of the cursor and what it is.
    ///
    /// # Errors
    /// `permanent`: there is no such column, its values have no order, or `lookback` has no time
    /// to go back from.
    pub async fn find(
        client: &'a Client,
        config: &'a CursorConfig,
        source: &'a SourceConfig,
        bindings: &'a Bindings,
    ) -> Result<Cursor<'a>> {
        let column = quote(&config.column);
        let select = sql::select_where(source, Some(&column), &[]);
        let sql = sql::render(&format!("{select} ORDER BY {column}"), bindings)?;
        let statement = client.prepare(&sql).await.map_err(|error| classify(READ, error))?;
        let mut kind = statement.columns().first().map_or(Type::TEXT, |one| one.type_().clone());
        while let Kind::Domain(base) = kind.kind() {
            kind = base.clone();
        }
        if config.lookback.is_some()
            && ![Type::TIMESTAMPTZ, Type::TIMESTAMP, Type::DATE].contains(&kind)
        {
            return Err(cursor::no_time(&config.column).with("type", kind.name()));
        }
        Ok(Cursor { client, config, source, bindings, column, kind })
    }

    /// What is to be read.
    ///
    /// # Errors
    /// `contract`: rows without a value, where those are not to be skipped, or a greatest value
    /// after which nothing could be new.
    pub async fn range(&self, since: &Since) -> Result<Range> {
        let column = &self.column;
        if self.config.nulls == Nulls::Fail {
            let count = self.select("count(*)", &[format!("{column} IS NULL")], "").await?;
            let count = count.map_or(0, |row| row.get::<_, i64>(0));
            if count > 0 {
                return Err(cursor::nulls(&self.config.column, count));
            }
        }
        // The rows that are new, and those that are read.
        let (new, read) = match (&since.from, &self.config.start) {
            (Some(from), _) => {
                let from = quoted(from)?;
                let back = match self.config.lookback {
                    Some(length) => {
                        let micros = length.as_micros();
                        format!("({from}::{} - INTERVAL '{micros} microseconds')", self.name())
                    }
                    None => from.clone(),
                };
                (format!("{column} > {from}"), format!("{column} > {back}"))
            }
            (None, Some(start)) => {
                let start = format!("{column} >= {}", quoted(&self.normal(start).await?)?);
                (start.clone(), start)
            }
            (None, None) => {
                let any = format!("{column} IS NOT NULL");
                (any.clone(), any)
            }
        };
        let to = match &since.to {
            Some(to) => Some(self.normal(to).await?),
            None => self.greatest(new).await?.or_else(|| since.from.clone()),
        };
        let up_to = match &to {
            Some(to) => format!("{column} <= {}", quoted(to)?),
            None => "false".to_owned(),
        };
        Ok(Range { conditions: vec![read, up_to], to })
    }

    /// The greatest value of the rows that meet a condition.
    async fn greatest(&self, condition: String) -> Result<Option<String>> {
        let tail = format!(" ORDER BY {} DESC LIMIT 1", self.column);
        let Some(row) = self.select(&self.column, &[condition], &tail).await? else {
            return Ok(None);
        };
        let value: Raw = row.try_get(0).map_err(|error| classify(READ, error))?;
        let text = self.shown("$1", &[&value]).await?;
        let never_passed = match self.kind {
            Type::TIMESTAMPTZ | Type::TIMESTAMP | Type::DATE => text == "infinity",
            Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 => text == "NaN" || text == "Infinity",
            _ => false,
        };
        if never_passed {
            return Err(Error::contract(
                cursor::DOING,
                "its greatest value is beyond all others, after which nothing could be new",
            )
            .with("column", &self.config.column)
            .with("value", text)
            .help("Leave such rows out by `where` or in the query, or correct them."));
        }
        Ok(Some(text))
    }

    /// A value that somebody wrote, as the database writes it.
    async fn normal(&self, value: &str) -> Result<String> {
        let literal = format!("{}::{}", quoted(value)?, self.name());
        let text = self.shown(&literal, &[]).await;
        text.map_err(|error| error.with("value", value).with("column", &self.config.column))
    }

    /// The text of a value, whatever the session writes dates and times like.
    async fn shown(&self, value: &str, params: &[&(dyn ToSql + Sync)]) -> Result<String> {
        let text = async {
            self.client
                .batch_execute(
                    "SAVEPOINT shown; SET LOCAL DateStyle = 'ISO, YMD'; \
                     SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 1",
                )
                .await?;
            let sql = format!("SELECT ({value})::text");
            let types = if params.is_empty() { &[] } else { std::slice::from_ref(&self.kind) };
            let statement = self.client.prepare_typed(&sql, types).await?;
            let text = self.client.query_one(&statement, params).await?.try_get(0)?;
            self.client.batch_execute("ROLLBACK TO SAVEPOINT shown").await?;
            Ok(text)
        };
        text.await.map_err(|error| classify(READ, error))
    }

    /// The first row of the source's rows that meet the conditions.
    async fn select(
        &self,
        columns: &str,
        conditions: &[String],
        tail: &str,
    ) -> Result<Option<tokio_postgres::Row>> {
        let select = sql::select_where(self.source, Some(columns), conditions);
        let sql = sql::render(&format!("{select}{tail}"), self.bindings)?;
        self.client.query_opt(&sql, &[]).await.map_err(|error| classify(READ, error))
    }

    /// The type's name as SQL text.
    fn name(&self) -> String {
        format!("{}.{}", quote(self.kind.schema()), quote(self.kind.name()))
    }
}

/// A value in PostgreSQL's own form, which is only handed back.
#[derive(Debug)]
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn Cause + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Cause + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
