//! From SQL to the stages of a transform.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{Cast, ScalarFunction};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, Operator, ScalarUDF,
    TableSource, WindowUDF, binary_expr, lit,
};
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::{DFParser, Statement};
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::sqlparser::ast::{
    DataType as SqlType, Statement as SqlStatement, TimezoneInfo,
};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::{Stage, Transform, check, output};
use crate::error::{Error, Result};

const ALLOWED: &str = "A transform is one SELECT … FROM input [WHERE …], row by row; the rest \
                       belongs into the source's query.";

/// In which line of the SQL an error is: the name in its context.
pub(crate) const LINE: &str = "line";
/// At which character of that line.
pub(crate) const CHARACTER: &str = "character";

/// How long the SQL may be; nesting is bounded by this until it has been measured.
const MAX_SQL: usize = 64 << 10;
/// Enough stack for [`MAX_SQL`] bytes of the deepest nesting; only what is used is ever mapped.
const STACK: usize = 512 << 20;

/// How many words and operators one column or condition may have: the planner's time grows with
/// the square of their nesting.
const MAX_WORDS: usize = 1000;

/// The error for SQL that cannot be a transform.
pub(super) fn refuse(message: impl Into<String>) -> Error {
    Error::config("plan the transform", message).help(ALLOWED)
}

/// The error for SQL that needs more than the row.
pub(super) fn not_row_wise(found: &str) -> Error {
    refuse(format!("{found} cannot be done row by row"))
}

/// DataFusion's own words. While planning they quote the definition, and no row exists yet.
pub(super) fn foreign(cause: DataFusionError) -> Error {
    let span = cause.diagnostic().and_then(|diagnostic| diagnostic.span);
    // Without the name of the variant that they stand in.
    let words = match cause.find_root() {
        DataFusionError::SQL(cause, _) => cause.to_string().replace("sql parser error: ", ""),
        DataFusionError::SchemaError(cause, _) => cause.to_string(),
        _ => cause.strip_backtrace(),
    };
    let words = words.replace('\n', " ");
    // The parser tells the place at the end of its words.
    let (what, told) = match words.rsplit_once(" at Line: ") {
        Some((what, place)) => (what, place.split_once(", Column: ")),
        None => (words.as_str(), None),
    };
    let told =
        told.and_then(|(line, character)| Some((line.parse().ok()?, character.parse().ok()?)));
    match span.map(|span| (span.start.line, span.start.column)).or(told) {
        Some((line, character)) => placed(refuse(what), line, character),
        None => refuse(what),
    }
}

/// The error at a line and a character of the SQL, both counted from 1.
fn placed(error: Error, line: u64, character: u64) -> Error {
    error.with(LINE, line).with(CHARACTER, character)
}

/// Plans `sql` over rows of `input`.
pub(super) fn plan(sql: &str, input: SchemaRef) -> Result<Transform> {
    deep(sql, || plan_here(sql, input))
}

/// Checks that `sql` is one SELECT, whatever its input is.
pub(super) fn parse(sql: &str) -> Result<()> {
    deep(sql, || select(sql).map(drop))
}

/// Works on a stack of its own: parser and planner recurse as deep as the SQL is nested, and
/// running out of stack would end the process.
fn deep<T: Send>(sql: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if sql.len() > MAX_SQL {
        return Err(refuse(format!("the SQL is longer than {MAX_SQL} bytes")));
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("plan-transform".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|cause| {
                Error::transient("plan the transform", "no thread can be started").caused_by(cause)
            })?
            .join()
            .unwrap_or_else(|_| Err(refuse("the SQL cannot be understood")))
    })
}

/// How many words and operators the longest column or condition has. Literals do not count, so
/// that lists may be long.
fn words(sql: &str) -> Result<usize> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_err(|cause| {
        let error = refuse(format!("the SQL cannot be understood: {}", cause.message));
        placed(error, cause.location.line, cause.location.column)
    })?;
    let (mut depth, mut count, mut longest) = (0_usize, 0, 0);
    for token in tokens {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => count = 0,
            Token::Comma
            | Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_) => {}
            _ => count += 1,
        }
        longest = longest.max(count);
    }
    Ok(longest)
}

fn select(sql: &str) -> Result<SqlStatement> {
    if words(sql)? > MAX_WORDS {
        return Err(refuse(format!("an expression has more than {MAX_WORDS} words"))
            .help("A long OR of comparisons can be written with IN (…)."));
    }
    let statements = DFParser::parse_sql(sql).map_err(|cause| match foreign(cause) {
        // The end has no place of its own.
        error if error.context().is_empty() && error.message().ends_with("EOF") => {
            let last = sql.lines().next_back().unwrap_or_default();
            let (line, character) = (sql.lines().count().max(1), last.chars().count() + 1);
            placed(error, line as u64, character as u64)
        }
        error => error,
    })?;
    let mut statements = statements.into_iter();
    let (Some(Statement::Statement(statement)), None) = (statements.next(), statements.next())
    else {
        return Err(refuse("it is not one SELECT"));
    };
    if !matches!(*statement, SqlStatement::Query(_)) {
        return Err(refuse("it is not a SELECT"));
    }
    Ok(*statement)
}

fn plan_here(sql: &str, input: SchemaRef) -> Result<Transform> {
    let statement = select(sql)?;
    let context = Context::new(input);
    let written = SqlToRel::new(&context)
        .sql_statement_to_plan(statement)
        .map_err(|cause| context.refused.get().map_or_else(|| foreign(cause), not_row_wise))?;
    check::row_wise(&written)?;
    check::divisions(&written)?;
    let typed = Analyzer::new()
        .execute_and_check(written.clone(), &context.options, |_, _| {})
        .map_err(foreign)?;
    check::conversions(&written, &typed)?;

    let mut stages = Vec::new();
    let rows = build(&typed, &mut stages, &Arc::new(context.options)).map_err(foreign)?;
    Ok(Transform { stages, schema: output::schema(rows.as_arrow())? })
}

/// Adds the stages of `plan`, innermost first, and gives the schema of their result. The schemas
/// of the plan itself may be stale once functions are rewritten, so that each stage's is taken
/// from its physical expressions.
fn build(
    plan: &LogicalPlan,
    stages: &mut Vec<Stage>,
    options: &Arc<ConfigOptions>,
) -> Result<DFSchema, DataFusionError> {
    match plan {
        LogicalPlan::TableScan(scan) => Ok(scan.projected_schema.as_ref().clone()),
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = build(&alias.input, stages, options)?;
            named_as(&alias.schema, inner.fields().iter().cloned())
        }
        LogicalPlan::Filter(filter) => {
            let input = build(&filter.input, stages, options)?;
            stages.push(Stage::Filter(physical(filter.predicate.clone(), &input, options)?));
            Ok(input)
        }
        LogicalPlan::Projection(projection) => {
            let input = build(&projection.input, stages, options)?;
            let columns = projection
                .expr
                .iter()
                .map(|expr| physical(expr.clone(), &input, options))
                .collect::<Result<Vec<_>, _>>()?;
            let fields = columns
                .iter()
                .zip(projection.schema.fields())
                .map(|(column, named)| {
                    let field = column.return_field(input.as_arrow())?;
                    let kind = field.data_type().clone();
                    Ok(Arc::new(Field::new(named.name(), kind, field.is_nullable())))
                })
                .collect::<Result<Vec<FieldRef>, DataFusionError>>()?;
            let schema = Arc::new(Schema::new(fields.clone()));
            stages.push(Stage::Project(columns, schema));
            named_as(&projection.schema, fields.into_iter())
        }
        _ => Err(DataFusionError::Plan("an unexpected plan node".to_owned())),
    }
}

fn named_as(
    names: &DFSchema,
    fields: impl Iterator<Item = FieldRef>,
) -> Result<DFSchema, DataFusionError> {
    let qualified = names.iter().map(|(qualifier, _)| qualifier.cloned()).zip(fields).collect();
    DFSchema::new_with_metadata(qualified, HashMap::new())
}

/// The expression as it is evaluated: checked arithmetic, and no constant folded, since folding
/// wraps around where evaluation fails.
fn physical(
    expr: Expr,
    input: &DFSchema,
    options: &Arc<ConfigOptions>,
) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let simplify = SimplifyContext::builder()
        .with_config_options(options.clone())
        .with_schema(Arc::new(input.clone()))
        .build();
    let expr = expr.transform_up(|expr| match expr {
        // Some functions (coalesce, nvl) exist only as what they are rewritten to.
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            Ok(match func.simplify(args, &simplify)? {
                ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
                ExprSimplifyResult::Original(args) => {
                    Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))
                }
            })
        }
        // Negation wraps around for the smallest integer; subtraction is checked.
        Expr::Negative(inner) => {
            let kind = inner.get_type(input)?;
            Ok(if kind.is_integer() {
                let zero = lit(ScalarValue::new_zero(&kind)?);
                Transformed::yes(binary_expr(zero, Operator::Minus, *inner))
            } else {
                Transformed::no(Expr::Negative(inner))
            })
        }
        // A time compared with text is compared in nanoseconds, which end in the year 2262.
        Expr::Cast(Cast { expr, field }) => {
            let narrow = match field.data_type() {
                DataType::Timestamp(TimeUnit::Nanosecond, zone) => match expr.get_type(input)? {
                    DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Utf8 => {
                        Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
                    }
                    _ => None,
                },
                _ => None,
            };
            Ok(match narrow {
                Some(kind) => {
                    let field = Arc::new(field.as_ref().clone().with_data_type(kind));
                    Transformed::yes(Expr::Cast(Cast { expr, field }))
                }
                None => Transformed::no(Expr::Cast(Cast { expr, field })),
            })
        }
        other => Ok(Transformed::no(other)),
    })?;
    create_physical_expr(&expr.data, input, &ExecutionProps::new(), &Default::default())?
        .transform_up(|expr| {
            Ok(match expr.downcast_ref::<BinaryExpr>() {
                Some(binary) => {
                    Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _)
                }
                None => Transformed::no(expr),
            })
        })
        .map(|expr| expr.data)
}

/// The one table.
struct Input(SchemaRef);

impl TableSource for Input {
    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }
}

/// What names in the SQL mean.
struct Context {
    input: Arc<dyn TableSource>,
    functions: HashMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
    /// What was asked for that is known, but not row-wise.
    refused: Cell<Option<&'static str>>,
}

impl Context {
    fn new(input: SchemaRef) -> Context {
        let mut functions = HashMap::new();
        for function in datafusion_functions::all_default_functions() {
            for alias in function.aliases() {
                functions.insert(alias.clone(), function.clone());
            }
            functions.insert(function.name().to_owned(), function);
        }
        let mut options = ConfigOptions::default();
        options.sql_parser.parse_float_as_decimal = true;
        options.sql_parser.collect_spans = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        Context {
            input: Arc::new(Input(input)),
            functions,
            planners: vec![Arc::new(DatetimeFunctionPlanner), Arc::new(UnicodeFunctionPlanner)],
            options,
            refused: Cell::new(None),
        }
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
        if name.schema().is_none() && name.table() == "input" {
            return Ok(self.input.clone());
        }
        Err(DataFusionError::Plan(format!("there is no table `{name}`; the one table is `input`")))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Microseconds))
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

/// TIMESTAMP is a time in microseconds here. DataFusion's nanoseconds end in the year 2262, and a
/// comparison with one would refuse every later row.
#[derive(Debug)]
struct Microseconds;

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, kind: &SqlType) -> Result<Option<FieldRef>, DataFusionError> {
        let zone = match kind {
            SqlType::Timestamp(
                None | Some(6),
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone,
            )
            | SqlType::Datetime(None) => None,
            SqlType::Timestamp(None | Some(6), _) => Some("UTC".into()),
            _ => return Ok(None),
        };
        let kind = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(Some(Arc::new(Field::new("", kind, true))))
    }
}
