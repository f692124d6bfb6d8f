//! An export of many tables by one definition: `[source] tables`. A job that names no `table` among
//! its params stands for all of them, and is spread; one that does is a run of that table.

use serde_json::{Map, Value as Json};

use super::Export;
use crate::error::{Error, Result};
use crate::job::param::{self, Bindings, Value};
use crate::source::{Tables, table_parts};

/// The param that names the table, `schema.table` or `table`.
pub const TABLE: &str = "table";
/// What paths call its schema.
pub const SCHEMA: &str = "schema";

impl Export {
    /// Whether a job with these params stands for many tables, and is to be spread.
    pub fn spreads(&self, params: &Map<String, Json>) -> bool {
        self.source.tables.is_some() && !params.contains_key(TABLE)
    }

    /// The typed params of a job, with the defaults of those that it does not give.
    ///
    /// # Errors
    /// Those of [`param::resolve`]; `malformed` where the job names a table that the patterns do not
    /// take.
    pub fn bindings(&self, given: &Map<String, Json>) -> Result<Bindings> {
        let Some(tables) = &self.source.tables else {
            return param::resolve(&self.params, given);
        };
        let mut others = given.clone();
        let table = others.remove(TABLE);
        let mut bindings = param::resolve(&self.params, &others)?;
        let Some(table) = table else { return Ok(bindings) };
        let name = table
            .as_str()
            .filter(|name| Tables::parse(tables).is_ok_and(|tables| tables.cover(name)));
        let name = name.ok_or_else(|| {
            Error::malformed("read the job's params", "the table is none of the export's")
                .with("table", table.as_str().map_or_else(|| table.to_string(), str::to_owned))
                .help(format!("Its tables are: {}.", tables.join(", ")))
        })?;
        bindings.insert(TABLE.to_owned(), Value::String(name.to_owned()));
        Ok(bindings)
    }

    /// The names that its paths may use besides the window, the run and its own.
    pub fn param_names(&self) -> Vec<&str> {
        let own = self.params.keys().map(String::as_str);
        own.chain(self.source.tables.iter().flat_map(|tables| {
            let schemas = Tables::parse(tables).is_ok_and(|tables| tables.have_schemas());
            [Some(TABLE), schemas.then_some(SCHEMA)].into_iter().flatten()
        }))
        .collect()
    }

    /// What paths are filled in with: the table by its own name, its schema beside it. Where a run
    /// has none yet, any name stands for it.
    pub fn values(&self, bindings: &Bindings) -> Bindings {
        let mut values = bindings.clone();
        if self.source.tables.is_some() {
            let table = bindings.get(TABLE).map_or_else(|| "x.x".to_owned(), Value::to_string);
            let (schema, name) = table_parts(&table);
            if let Some(schema) = schema {
                values.insert(SCHEMA.to_owned(), Value::String(schema.to_owned()));
            }
            values.insert(TABLE.to_owned(), Value::String(name.to_owned()));
        }
        values
    }

    /// The export of one of its tables alone.
    pub fn of_table(&self, table: &str) -> Export {
        let (schema, name) = table_parts(table);
        let mut export = self.clone();
        export.source.tables = None;
        export.source.table = Some(table.to_owned());
        export.sink.table = export.sink.table.map(|text| {
            text.replace("{schema}", schema.unwrap_or_default()).replace("{table}", name)
        });
        export
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;
    use serde_json::json;

    fn export(sink: Json) -> Export {
        serde_json::from_value(json!({
            "params": {"top": {"type": "int64", "default": 10}},
            "source": {"connection": "shop", "tables": ["public.*", "!public.audit_*"]},
            "sink": sink,
        }))
        .unwrap()
    }

    fn given(json: Json) -> Map<String, Json> {
        json.as_object().unwrap().clone()
    }

    #[test]
    fn a_job_is_of_one_table_or_of_all() {
        let export = export(json!({"connection": "lake", "path": "{schema}/{table}"}));
        let all = given(json!({"top": 3}));
        assert!(export.spreads(&all));
        assert_eq!(export.bindings(&all).unwrap().len(), 1);
        let one = given(json!({"table": "public.orders"}));
        assert!(!export.spreads(&one));
        let bindings = export.bindings(&one).unwrap();
        assert_eq!(bindings[TABLE], Value::String("public.orders".to_owned()));
        let values = export.values(&bindings);
        assert_eq!(values[TABLE], Value::String("orders".to_owned()));
        assert_eq!(values[SCHEMA], Value::String("public".to_owned()));
        for bad in [json!("public.audit_1"), json!("orders"), json!(5), json!("")] {
            let error = export.bindings(&given(json!({"table": bad}))).unwrap_err();
            assert_eq!(error.class(), Class::Malformed, "{error}");
        }
        assert_ne!(export.alike(&all), export.alike(&one));
    }

    #[test]
    fn each_table_has_a_place_of_its_own() {
        let export = export(json!({"connection": "dw", "table": "{schema}_copy.{table}"}));
        let one = export.of_table("public.orders");
        assert_eq!(one.source.table.as_deref(), Some("public.orders"));
        assert_eq!(one.sink.table.as_deref(), Some("public_copy.orders"));
        assert!(one.source.tables.is_none());
    }
}
