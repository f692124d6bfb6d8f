//! Planning a contract against a schema, and keeping it row by row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{filter, is_null};
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::StreamExt;

use super::convert::{Conversion, conversion};
use super::rules::{self, Rule};
use super::{ContractConfig, ExtraColumns};
use crate::error::{Error, Result};
use crate::format::{FieldType, row_json};
use crate::rows::{Batch, Breach, RULES_TOLD, Refused, Rows};
use crate::suggest::suggest;

/// A contract that was planned for one input schema.
#[derive(Debug)]
pub struct Contract {
    columns: Vec<Column>,
    schema: SchemaRef,
}

/// One promised column.
#[derive(Debug)]
struct Column {
    name: String,
    /// Where it is in the input.
    index: usize,
    conversion: Conversion,
    /// The rule that a value breaks which the type cannot hold.
    type_rule: String,
    /// The rule that NULL breaks, if one does.
    null_rule: Option<&'static str>,
    rules: Vec<Rule>,
}

impl Contract {
    /// Plans the contract against the schema of its input, without reading a row.
    ///
    /// Fails with class `contract` if the input lacks a promised column, has one more, or has a
    /// type that cannot become the promised one; with class `config` if the contract itself is
    /// wrong.
    pub fn plan(config: &ContractConfig, input: SchemaRef) -> Result<Contract> {
        if config.fields.is_empty() {
            return Err(Error::config("plan the contract", "it promises no field")
                .help("Name the columns in [contract.fields], or leave [contract] out."));
        }
        for key in &config.primary_key {
            if !config.fields.contains_key(key) {
                let names = config.fields.keys().map(String::as_str);
                return Err(Error::config(
                    "plan the contract",
                    format!("primary-key names `{key}`, which is not in [contract.fields]"),
                )
                .help(suggest(key, names)));
            }
        }
        let columns = config
            .fields
            .keys()
            .map(|name| column(config, name, &input))
            .collect::<Result<Vec<_>>>()?;
        if config.extra_columns == ExtraColumns::Fail {
            let extra: Vec<String> = input
                .fields()
                .iter()
                .filter(|field| !config.fields.contains_key(field.name()))
                .map(|field| format!("`{}`", field.name()))
                .collect();
            if !extra.is_empty() {
                return Err(Error::contract(
                    "plan the contract",
                    format!("the rows have columns that it does not name: {}", extra.join(", ")),
                )
                .help(
                    "Add them to [contract.fields], or write extra-columns = \"drop\" in \
                     [contract] to leave them out.",
                ));
            }
        }
        let fields: Vec<Field> = columns
            .iter()
            .zip(config.fields.values())
            .map(|(column, field)| {
                Field::new(&column.name, field.kind.arrow(), column.null_rule.is_none())
            })
            .collect();
        Ok(Contract { columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// The schema that is promised.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Checks one batch. A row that breaks rules is refused with them, in the order of the fields; the
    /// others go on, in the promised types.
    pub fn apply(&self, batch: Batch) -> Result<Batch> {
        let count = batch.rows.num_rows();
        let mut broken = Broken::new(count);
        let mut columns = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let given = batch.rows.columns().get(column.index).ok_or_else(|| {
                Error::permanent("keep the contract", "a batch has fewer columns than were planned")
            })?;
            let converted = column.conversion.convert(given)?;
            self.check(index, column, given, &converted, &mut broken)?;
            columns.push(converted);
        }

        let (mut refused, mut places) = (batch.refused, batch.places);
        let mut kept = count;
        if broken.any() {
            for (row, broke) in broken.rows() {
                let breaches = broke.iter().filter_map(|(column, kind)| {
                    let column = self.columns.get(*column)?;
                    let name = Some(column.name.clone());
                    Some(Breach { rule: column.rule(*kind), column: name, why: None })
                });
                refused.push(Refused {
                    origin: places.as_ref().and_then(|places| places.origin(row)),
                    schema: Some(batch.rows.schema()),
                    ..Refused::of(breaches, row_json(&batch.rows, row))
                });
            }
            let mask = broken.kept();
            places = places.map(|places| places.filter(&mask)).transpose().map_err(internal)?;
            kept = mask.true_count();
            for column in &mut columns {
                *column = filter(column, &mask).map_err(internal)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(internal)?;
        Ok(Batch { rows, refused, places, ..batch })
    }

    /// Checks a stream of batches, lazily.
    pub fn rows(self, rows: Rows) -> Rows {
        let schema = self.schema();
        let stream = rows.stream.map(move |batch| batch.and_then(|batch| self.apply(batch)));
        Rows { schema, stream: stream.boxed(), snapshot: rows.snapshot }
    }

    fn check(
        &self,
        index: usize,
        column: &Column,
        given: &ArrayRef,
        converted: &ArrayRef,
        broken: &mut Broken,
    ) -> Result<()> {
        if converted.null_count() > given.null_count() {
            let lost = is_null(converted).map_err(internal)?;
            broken.mark(&lost, index, |row| given.is_valid(row).then_some(Kind::Type));
        }
        if column.null_rule.is_some() && given.null_count() > 0 {
            let null = is_null(given).map_err(internal)?;
            broken.mark(&null, index, |_| Some(Kind::Null));
        }
        for (number, rule) in column.rules.iter().enumerate() {
            let values = rule.broken(converted).ok_or_else(|| {
                Error::permanent("keep the contract", "a rule does not fit the type of its column")
                    .with("column", &column.name)
            })?;
            broken.mark(&values, index, |_| Some(Kind::Rule(number)));
        }
        Ok(())
    }
}

impl Column {
    fn rule(&self, kind: Kind) -> String {
        match kind {
            Kind::Type => self.type_rule.clone(),
            Kind::Null => self.null_rule.unwrap_or("required").to_owned(),
            Kind::Rule(number) => {
                self.rules.get(number).map_or_else(String::new, |rule| rule.name.clone())
            }
        }
    }
}

/// Which kind of rule of a column was broken.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Type,
    Null,
    Rule(usize),
}

/// For each row the rules that it broke. Nothing is allocated while none is.
struct Broken {
    count: usize,
    rules: Vec<Vec<(usize, Kind)>>,
}

impl Broken {
    fn new(count: usize) -> Broken {
        Broken { count, rules: Vec::new() }
    }

    fn any(&self) -> bool {
        !self.rules.is_empty()
    }

    fn mark(&mut self, mask: &BooleanArray, column: usize, kind: impl Fn(usize) -> Option<Kind>) {
        if mask.true_count() == 0 {
            return;
        }
        self.rules.resize(self.count, Vec::new());
        // Under a NULL the mask's bit means nothing.
        let set = match mask.nulls() {
            Some(valid) => mask.values() & valid.inner(),
            None => mask.values().clone(),
        };
        for row in set.set_indices() {
            if let (Some(rules), Some(kind)) = (self.rules.get_mut(row), kind(row))
                && rules.len() < RULES_TOLD
            {
                rules.push((column, kind));
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &[(usize, Kind)])> {
        let rows = self.rules.iter().map(Vec::as_slice).enumerate();
        rows.filter(|(_, rules)| !rules.is_empty())
    }

    fn kept(&self) -> BooleanArray {
        self.rules.iter().map(|rules| Some(rules.is_empty())).collect()
    }
}

fn column(config: &ContractConfig, name: &str, input: &Schema) -> Result<Column> {
    let Some((field, (index, found))) = config.fields.get(name).zip(input.column_with_name(name))
    else {
        let names = input.fields().iter().map(|field| field.name().as_str());
        return Err(Error::contract(
            "plan the contract",
            format!("column `{name}` is promised, and the rows do not have it"),
        )
        .help(suggest(name, names)));
    };
    let from = FieldType::of_arrow(found.data_type());
    let conversion =
        from.as_ref().and_then(|from| conversion(from, &field.kind)).ok_or_else(|| {
            let has = from.map_or_else(|| found.data_type().to_string(), |from| from.to_string());
            Error::contract(
                "plan the contract",
                format!("column `{name}` is promised as {} and comes as {has}", field.kind),
            )
            .help(format!(
                "No conversion between them is certain to keep every value: write the CAST in \
                 [transform] or in the source's query, or promise type = \"{has}\"."
            ))
        })?;
    Ok(Column {
        name: name.to_owned(),
        index,
        conversion,
        type_rule: format!("type {}", field.kind),
        null_rule: if field.required {
            Some("required")
        } else if config.primary_key.iter().any(|key| key == name) {
            Some("primary-key")
        } else {
            None
        },
        rules: rules::plan(config, name)?,
    })
}

fn internal(cause: arrow::error::ArrowError) -> Error {
    Error::permanent("keep the contract", "a batch does not fit the planned schema")
        .caused_by(cause)
}
