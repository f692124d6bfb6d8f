//! PostgreSQL as a source: one COPY in binary format, under one snapshot.

mod cursor;
pub mod decode;
mod numeric;
mod reading;
mod snapshot;
mod tables;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL256_MAX_PRECISION, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio_postgres::Column;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Kind, Type};

use self::cursor::Cursor;
use self::decode::{Decoder, Wire};
use self::reading::Reading;
use self::snapshot::Look;
use super::{Fresh, Promised, Since, Source, SourceConfig, sql};
use crate::budget::Budget;
use crate::connect::Connection;
use crate::connect::postgres::{self, Client, classify_sql, connect};
use crate::connect::sql::quote;
use crate::error::{Class, Error, Result};
use crate::format::FieldType;
use crate::job::param::Bindings;
use crate::rows::Rows;

const READ: &str = "read from PostgreSQL";

/// As [`postgres::classify`]; but where the server refuses to write, that is the query's fault: what
/// is read is read in a transaction that may not.
fn classify(operation: &'static str, error: tokio_postgres::Error) -> Error {
    let writes = error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
    let error = postgres::classify(operation, error);
    match writes {
        true => error.reclass(Class::Permanent).help("The query must not write."),
        false => error,
    }
}

/// A table or query of a PostgreSQL database.
pub(super) struct PostgresSource {
    connection: Connection,
    config: SourceConfig,
    promised: Promised,
    budget: Budget,
}

/// The SELECT to COPY, and how its columns are read.
struct Plan {
    select: String,
    schema: SchemaRef,
    wires: Vec<Wire>,
    /// Whether the server prints values as text.
    prints: bool,
}

/// What was planned, in the transaction that it is read in.
struct Opened {
    client: Client,
    plan: Plan,
    /// Of a cursor: how far it goes.
    to: Option<String>,
    snapshot: String,
}

impl PostgresSource {
    pub(super) fn new(
        config: &SourceConfig,
        connection: &Connection,
        promised: Promised,
        budget: Budget,
    ) -> Self {
        PostgresSource { connection: connection.clone(), config: config.clone(), promised, budget }
    }

    /// The SELECT, with its `:name` parameters.
    fn template(&self) -> String {
        sql::trimmed(&sql::select(&self.config)).to_owned()
    }

    /// Plans in the transaction: the locks that planning takes keep the table as it is until the
    /// end.
    async fn plan(&self, client: &Client, template: &str, bindings: &Bindings) -> Result<Plan> {
        let sql = sql::render(template, bindings)?;
        let statement = client
            .prepare(&sql)
            .await
            .map_err(|error| classify_sql(READ, error, &sql, template))?;
        if !statement.params().is_empty() {
            return Err(Error::permanent(READ, "the SQL has numbered parameters")
                .help("Write `:name` and declare it in [params]."));
        }
        let plan = plan(sql, statement.columns(), &self.promised)?;
        if plan.prints {
            reads_back(client).await?;
        }
        // As a part of a SELECT the server takes nothing but what reads: no DELETE … RETURNING, not
        // within WITH either, and no SHOW or EXPLAIN, which have columns too.
        let within = format!("SELECT FROM (\n{}\n) AS q", sql::render(template, bindings)?);
        match client.prepare(&within).await {
            Ok(_) => {}
            Err(error) if error.code().is_some_and(is_of_the_form) => {
                return Err(Error::permanent(READ, "the SQL is not a query that only reads")
                    .help("Write a SELECT, VALUES or TABLE, with or without WITH before it."));
            }
            Err(error) => return Err(classify_sql(READ, error, &within, template)),
        }
        // To prepare takes the locks of tables and of what views read, but not those of partitions.
        let explain = format!("EXPLAIN\n{}", plan.select);
        client.batch_execute(&explain).await.map_err(|error| classify(READ, error))?;
        Ok(plan)
    }

    /// Opens the one transaction that everything is read in: all rows, or what is new by the cursor.
    async fn open(&self, bindings: &Bindings, since: Option<&Since>) -> Result<Opened> {
        let client = connect(&self.connection, "source").await?;
        let mut begun = 0;
        loop {
            snapshot::begin(&client, &self.config).await?;
            begun += 1;
            let (template, to) = match since {
                Some(since) => self.fresh(&client, bindings, since).await?,
                None => (self.template(), None),
            };
            let plan = self.plan(&client, &template, bindings).await?;
            match snapshot::look(&client).await? {
                Look::Sound(snapshot) => return Ok(Opened { client, plan, to, snapshot }),
                Look::Past(error) if begun == snapshot::TRIES => return Err(error),
                Look::Past(_) => {
                    let ended = client.batch_execute("ROLLBACK").await;
                    ended.map_err(|error| classify(READ, error))?;
                }
            }
        }
    }

    /// The SELECT of what is new by the cursor, and how far that goes.
    async fn fresh(
        &self,
        client: &Client,
        bindings: &Bindings,
        since: &Since,
    ) -> Result<(String, Option<String>)> {
        let config = self.config.cursor.as_ref().ok_or_else(super::cursor::none)?;
        let cursor = Cursor::find(client, config, &self.config, bindings).await?;
        let range = cursor.range(since).await?;
        Ok((sql::select_where(&self.config, None, &range.conditions), range.to))
    }

    /// Starts to read what was planned.
    fn rows(&self, opened: Opened) -> Result<Rows> {
        let Opened { client, plan, snapshot, .. } = opened;
        let decoder = Decoder::new(plan.schema.clone(), &plan.wires).within(&self.budget);
        let decoder = decoder.map_err(|error| self.named(error))?;
        let reading = Reading::new(client, &plan.select, decoder, self.budget.clone());
        let name = self.connection.name.clone();
        let stream = stream::try_unfold(Some(reading), async |reading| match reading {
            Some(reading) => reading.next().await,
            None => Ok(None),
        })
        .map(move |batch| batch.map_err(|error| error.with("connection", &name)));
        Ok(Rows { schema: plan.schema, stream: stream.boxed(), snapshot: Some(snapshot) })
    }

    fn named(&self, error: Error) -> Error {
        error.with("connection", &self.connection.name)
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn tables(&self) -> Result<Vec<String>> {
        let found = tables::list(&self.connection, &self.config).await;
        found.map_err(|error| self.named(error))
    }

    async fn schema(&self, bindings: &Bindings) -> Result<SchemaRef> {
        let opened = self.open(bindings, None).await.map_err(|error| self.named(error))?;
        if let Some(config) = &self.config.cursor {
            let found = Cursor::find(&opened.client, config, &self.config, bindings).await;
            found.map_err(|error| self.named(error))?;
        }
        opened.client.close().await;
        Ok(opened.plan.schema)
    }

    async fn read(&self, bindings: &Bindings) -> Result<Rows> {
        self.rows(self.open(bindings, None).await.map_err(|error| self.named(error))?)
    }

    async fn read_since(&self, bindings: &Bindings, since: &Since) -> Result<Fresh> {
        let opened = self.open(bindings, Some(since)).await;
        let mut opened = opened.map_err(|error| self.named(error))?;
        Ok(Fresh { to: opened.to.take(), rows: self.rows(opened)? })
    }
}

/// Whether the server says that a statement cannot stand where it stands.
fn is_of_the_form(state: &SqlState) -> bool {
    [SqlState::SYNTAX_ERROR, SqlState::FEATURE_NOT_SUPPORTED].contains(state)
}

fn plan(sql: String, columns: &[Column], promised: &Promised) -> Result<Plan> {
    if columns.is_empty() {
        return Err(Error::permanent(READ, "the SQL gives no columns").help("Write a SELECT."));
    }
    let mut seen = HashSet::new();
    let (mut wires, mut fields, mut expressions) = (Vec::new(), Vec::new(), Vec::new());
    let (mut converts, mut prints, mut unknown) = (false, false, Vec::new());
    for column in columns {
        let name = column.name();
        if !seen.insert(name) {
            return Err(Error::permanent(READ, "two columns have the same name")
                .with("column", name)
                .help("Give one of them another name with AS."));
        }
        let quoted = quote(name);
        let declared = promised.types.get(name);
        let is_text = declared == Some(&FieldType::String) && !promised.transformed;
        let wire = match wire(column.type_(), column.type_modifier(), declared) {
            Some(wire) if !is_text || wire.field_type() == FieldType::String => {
                expressions.push(quoted);
                wire
            }
            _ => match converted(column.type_(), declared, &quoted) {
                Some((expression, wire)) => {
                    converts = true;
                    prints |= declared == Some(&FieldType::String);
                    expressions.push(format!("{expression} AS {quoted}"));
                    wire
                }
                None => {
                    unknown.push(column);
                    continue;
                }
            },
        };
        wires.push(wire);
        fields.push(Field::new(name, wire.field_type().arrow(), true));
    }
    if !unknown.is_empty() {
        return Err(no_types(&unknown));
    }
    let select = match converts {
        true => format!("SELECT {} FROM (\n{sql}\n) AS q", expressions.join(", ")),
        false => sql,
    };
    Ok(Plan { select, schema: Arc::new(Schema::new(fields)), wires, prints })
}

/// Refuses to have values printed that would not read back as themselves. The settings are left as they
/// are, since what the query says depends on them too.
async fn reads_back(client: &Client) -> Result<()> {
    let settings = "SELECT current_setting('DateStyle'), current_setting('IntervalStyle'),
                           current_setting('extra_float_digits')::integer";
    let row = client.query_one(settings, &[]).await.map_err(|error| classify(READ, error))?;
    let text = |index| row.try_get::<_, String>(index).map_err(|error| classify(READ, error));
    let digits: i32 = row.try_get(2).map_err(|error| classify(READ, error))?;
    let (dates, intervals) = (text(0)?, text(1)?);
    let wrong = match () {
        () if !dates.starts_with("ISO") => ("DateStyle", dates, "ISO"),
        () if intervals != "postgres" => ("IntervalStyle", intervals, "postgres"),
        () if digits < 1 => ("extra_float_digits", digits.to_string(), "1"),
        () => return Ok(()),
    };
    let (name, value, wanted) = wrong;
    Err(Error::permanent(READ, format!("values printed by {name} = {value} would not read back"))
        .help(format!(
            "A column is promised as a string that has another type. Let the connection's user print \
             it exactly: ALTER ROLE … SET {name} = '{wanted}'; or cast it in a query as it is wanted."
        )))
}

/// How a type is read as it is, if it has an exact counterpart.
fn wire(kind: &Type, modifier: i32, declared: Option<&FieldType>) -> Option<Wire> {
    Some(match *kind {
        Type::BOOL => Wire::Bool,
        Type::INT2 => Wire::Int16,
        Type::INT4 => Wire::Int32,
        Type::INT8 => Wire::Int64,
        Type::OID => Wire::Oid,
        Type::FLOAT4 => Wire::Float32,
        Type::FLOAT8 => Wire::Float64,
        Type::NUMERIC => {
            let known =
                constraint(modifier).filter(|(digits, _)| *digits <= DECIMAL256_MAX_PRECISION);
            let (precision, scale) = known.or(match declared {
                Some(FieldType::Decimal(precision, scale)) => Some((*precision, *scale)),
                _ => None,
            })?;
            Wire::Decimal(precision, scale)
        }
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON => Wire::Text,
        Type::JSONB => Wire::Jsonb,
        Type::UUID => Wire::Uuid,
        Type::BYTEA => Wire::Bytes,
        Type::DATE => Wire::Date,
        Type::TIME => Wire::Time,
        Type::TIMESTAMP => Wire::Timestamp,
        Type::TIMESTAMPTZ => Wire::Instant,
        _ => match kind.kind() {
            Kind::Enum(_) => Wire::Text,
            Kind::Domain(base) => return wire(base, modifier, declared),
            Kind::Simple if kind.name() == "citext" => Wire::Text,
            _ => return None,
        },
    })
}

/// Precision and scale of a numeric's type modifier. Since PostgreSQL 15 the scale may be
/// negative (then the digits before the point are more) or above the precision.
fn constraint(modifier: i32) -> Option<(u8, i8)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = (packed >> 16) & 0xffff;
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    let (precision, scale) = (precision.max(scale) - scale.min(0), scale.max(0));
    Some((u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

/// The expression that gives a value of a type without a counterpart of its own, or of one that is
/// declared as text, and how that is read.
fn converted(kind: &Type, declared: Option<&FieldType>, quoted: &str) -> Option<(String, Wire)> {
    let printed = |text: String| Some((text, Wire::Text));
    match (kind.kind(), declared) {
        (Kind::Domain(base), _) => converted(base, declared, quoted),
        // The cast to text would add a mask that is not printed.
        _ if *kind == Type::INET => printed(format!("inet_out({quoted})::text")),
        (_, Some(FieldType::Decimal(precision, scale))) if *kind == Type::MONEY => {
            Some((format!("{quoted}::numeric"), Wire::Decimal(*precision, *scale)))
        }
        (_, Some(FieldType::String)) => printed(format!("{quoted}::text")),
        _ if TEXTS.contains(kind) => printed(format!("{quoted}::text")),
        _ => None,
    }
}

/// Types that are text even where nobody has declared it: what they mean, everybody reads off it.
const TEXTS: [Type; 6] =
    [Type::CIDR, Type::MACADDR, Type::MACADDR8, Type::XML, Type::BIT, Type::VARBIT];

/// The error for all columns whose types have no exact counterpart.
fn no_types(columns: &[&Column]) -> Error {
    let told = |column: &&Column| {
        let kind = column.type_();
        match kind.kind() {
            _ if *kind == Type::NUMERIC => "a numeric without known precision".to_owned(),
            Kind::Array(inner) => format!("the type {}[]", inner.name()),
            _ => format!("the type {}", kind.name()),
        }
    };
    let of_digits = |column: &&&Column| [Type::NUMERIC, Type::MONEY].contains(column.type_());
    let digits = columns.iter().find(of_digits);
    let other = columns.iter().find(|column| !of_digits(column));
    let digits = digits.map(|column| {
        format!(
            "Promise its digits in [contract.fields], or in the fields of a reference, {} = {{ type = \
             \"decimal(18,4)\" }} with up to 76 of them, or \"string\" where there are more, or NaN.",
            column.name()
        )
    });
    let other = other.map(|column| {
        format!(
            "Promise {} = {{ type = \"string\" }} in [contract.fields] to have it as PostgreSQL prints \
             it; or write a query that casts it, or leaves it out.",
            column.name()
        )
    });
    let help: Vec<String> = digits.into_iter().chain(other).collect();
    let error = match columns {
        [column] => Error::permanent(READ, format!("{} has no exact counterpart", told(column)))
            .with("column", column.name()),
        _ => {
            let all: Vec<_> =
                columns.iter().map(|one| format!("`{}` ({})", one.name(), told(one))).collect();
            let count = columns.len();
            Error::permanent(
                READ,
                format!("{count} columns have no exact counterpart: {}", all.join(", ")),
            )
        }
    };
    error.help(help.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_types_says_what_is_read() {
        let known = [
            Type::BOOL,
            Type::INT2,
            Type::INT4,
            Type::INT8,
            Type::FLOAT4,
            Type::FLOAT8,
            Type::NUMERIC,
            Type::TEXT,
            Type::VARCHAR,
            Type::BPCHAR,
            Type::NAME,
            Type::JSON,
            Type::JSONB,
            Type::UUID,
            Type::BYTEA,
            Type::DATE,
            Type::TIME,
            Type::TIMESTAMP,
            Type::TIMESTAMPTZ,
            Type::INET,
            Type::CIDR,
            Type::MACADDR,
            Type::MACADDR8,
            Type::XML,
            Type::BIT,
            Type::VARBIT,
            Type::OID,
            Type::INTERVAL,
            Type::TIMETZ,
            Type::MONEY,
            Type::TEXT_ARRAY,
        ];
        // Whatever it is, it can be had as text.
        for kind in &known {
            let declared = Some(&FieldType::String);
            let native = wire(kind, -1, declared).map(Wire::field_type);
            let text = converted(kind, declared, "c").map(|(_, wire)| wire);
            assert!(native == Some(FieldType::String) || text == Some(Wire::Text), "{kind}");
        }
        let rows = crate::format::types::page::rows("From PostgreSQL");
        assert_eq!(rows.len(), known.len() + 1, "`numeric` has two");
        for row in rows {
            let (name, constrained) = match row[0][0] {
                "numeric(15,2)" => ("numeric", ((15 << 16) | 2) + 4),
                other => (other, -1),
            };
            let kind = known.iter().find(|kind| kind.name() == name).unwrap();
            let found = match wire(kind, constrained, None) {
                Some(wire) => wire.field_type().to_string(),
                None if converted(kind, None, "c").is_some() => "string".to_owned(),
                None => "refused".to_owned(),
            };
            assert_eq!(found, row[1][0], "{name}");
        }
    }

    #[test]
    fn constraints_of_numeric_are_read_from_the_modifier() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(constraint(modifier(15, 2)), Some((15, 2)));
        assert_eq!(constraint(modifier(5, -2)), Some((7, 0)));
        assert_eq!(constraint(modifier(3, 5)), Some((5, 5)));
        assert_eq!(constraint(-1), None);
        assert_eq!(wire(&Type::NUMERIC, modifier(76, 2), None), Some(Wire::Decimal(76, 2)));
        assert_eq!(wire(&Type::NUMERIC, modifier(77, 2), None), None);
        let declared = FieldType::Decimal(38, 2);
        assert_eq!(
            wire(&Type::NUMERIC, modifier(77, 2), Some(&declared)),
            Some(Wire::Decimal(38, 2))
        );
    }
}
