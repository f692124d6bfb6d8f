//! What names in the SQL of a transform mean: tables, functions and types.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};

use super::join::INPUT;
use super::plan::refuse;
use super::table::Tables;
use crate::error::Error;
use crate::suggest::nearest;

/// A table, by its columns.
struct Columns(SchemaRef);

impl TableSource for Columns {
    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }
}

/// What names in the SQL mean.
pub(super) struct Context {
    tables: HashMap<String, Arc<dyn TableSource>>,
    functions: HashMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    pub options: ConfigOptions,
    /// What was asked for that is known, but not row-wise.
    pub refused: Cell<Option<&'static str>>,
}

impl Context {
    pub fn new(input: SchemaRef, tables: &Tables) -> Context {
        let functions = named().collect();
        let mut options = ConfigOptions::default();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.collect_spans = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        let references = tables.iter().map(|(name, table)| (name.clone(), table.schema()));
        let all = references.chain([(INPUT.to_owned(), input)]);
        Context {
            tables: all.map(|(name, schema)| (name, Arc::new(Columns(schema)) as _)).collect(),
            functions,
            planners: vec![Arc::new(DatetimeFunctionPlanner), Arc::new(UnicodeFunctionPlanner)],
            options,
            refused: Cell::new(None),
        }
    }
}

/// All functions by their names, those too that are refused since they look at a clock or a die.
fn named() -> impl Iterator<Item = (String, Arc<ScalarUDF>)> {
    datafusion_functions::all_default_functions().into_iter().flat_map(|function| {
        let names: Vec<String> = function.aliases().to_vec();
        let of_all = [function.name().to_owned()].into_iter().chain(names);
        of_all.map(move |name| (name, Arc::clone(&function)))
    })
}

/// What is said of a function that is not there.
pub(super) fn no_function(name: &str) -> Error {
    let usable = |function: &ScalarUDF| function.signature().volatility == Volatility::Immutable;
    let known: BTreeSet<String> =
        named().filter(|(_, one)| usable(one)).map(|(name, _)| name).collect();
    let meant = nearest(name, known.iter().map(String::as_str));
    let meant = meant.map(|one| format!("Did you mean `{one}`? ")).unwrap_or_default();
    refuse(format!("there is no function {name}()"))
        .help(format!("{meant}docs/reference/sql.md lists all functions."))
}

/// What is said of a table that is not there.
pub(super) fn no_table<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.filter(|one| *one != INPUT).collect();
    known.sort_unstable();
    let known: Vec<String> =
        [INPUT].into_iter().chain(known).map(|one| format!("`{one}`")).collect();
    match known.as_slice() {
        [one] => format!("there is no table `{name}`; the one table is {one}"),
        all => format!("there is no table `{name}`; the tables are {}", all.join(", ")),
    }
}

/// Names that people know as aggregates, so that their refusal says why.
const AGGREGATES: &[&str] = &[
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "first_value",
    "last_value",
    "listagg",
    "max",
    "mean",
    "median",
    "min",
    "stddev",
    "string_agg",
    "sum",
    "var",
    "variance",
];

impl ContextProvider for Context {
    fn get_table_source(
        &self,
        name: TableReference,
    ) -> Result<Arc<dyn TableSource>, DataFusionError> {
        match self.tables.get(name.table()).filter(|_| name.schema().is_none()) {
            Some(table) => Ok(Arc::clone(table)),
            None => {
                let known = self.tables.keys().map(String::as_str);
                Err(DataFusionError::Plan(no_table(&name.to_string(), known)))
            }
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        if AGGREGATES.contains(&name) {
            self.refused.set(Some("an aggregate function"));
        }
        None
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        self.refused.set(Some("a window function"));
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Types by the names of contracts, and TIMESTAMP as a time in microseconds: DataFusion's nanoseconds
/// end in the year 2262, and a comparison with one would refuse every later row.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, kind: &SqlType) -> Result<Option<FieldRef>, DataFusionError> {
        let microseconds = |zone| DataType::Timestamp(TimeUnit::Microsecond, zone);
        let kind = match kind {
            SqlType::Timestamp(
                None | Some(6),
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone,
            )
            | SqlType::Datetime(None) => microseconds(None),
            SqlType::Timestamp(None | Some(6), _) => microseconds(Some("UTC".into())),
            SqlType::Int16 => DataType::Int16,
            SqlType::Int32 => DataType::Int32,
            SqlType::Int64 => DataType::Int64,
            SqlType::Float32 => DataType::Float32,
            SqlType::Float64 => DataType::Float64,
            SqlType::Bytes(None) => DataType::Binary,
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", kind, true))))
    }
}
