//! From SQL to the stages of a transform.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{Cast, ScalarFunction};
use datafusion_expr::logical_plan::Join;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{Expr, ExprSchemable, JoinType, LogicalPlan, Operator, binary_expr, lit};
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::{DFParser, Statement};
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::resolve::resolve_table_references;
use datafusion_sql::sqlparser::ast::Statement as SqlStatement;
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::context::{Context, no_function, no_table};
use super::join::{self, INPUT};
use super::table::{Table, Tables, comparable};
use super::{Lookup, Stage, Transform, check, output};
use crate::error::{Error, Result};

pub(super) const ALLOWED: &str = "A transform is one SELECT … FROM input [LEFT JOIN reference ON …] [WHERE …], \
                       row by row; the rest belongs into the source's query.";

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
        DataFusionError::Plan(words) => words.clone(),
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
    let error = in_own_words(what);
    match span.map(|span| (span.start.line, span.start.column)).or(told) {
        Some((line, character)) => placed(error, line, character),
        None => error,
    }
}

/// Where DataFusion's words are not those of somebody who writes SQL, our own.
fn in_own_words(what: &str) -> Error {
    const TYPES: &str = "Types have the names of contracts, or those of SQL: bool, int16, int32, int64, \
                         float32, float64, decimal(15, 2), string, bytes, date, time, timestamp, and of \
                         an instant timestamp with time zone.";
    let function = what.strip_prefix("Invalid function '").and_then(|rest| rest.split_once('\''));
    if let Some((name, _)) = function {
        return no_function(name);
    }
    if let Some((_, form)) = what.split_once("not implemented: ")
        && let Some((name, _)) = form.split_once(" not supported by ExprPlanner")
    {
        return refuse(format!("{name} cannot be written in this form"));
    }
    // Where a signature does not fit, DataFusion takes it for a fault of its own.
    let what = what.split(" This issue was likely").next().unwrap_or(what);
    let what = what.strip_prefix("Internal error: ").unwrap_or(what);
    if let Some((_, kind)) = what.split_once("Unsupported SQL type ") {
        return refuse(format!("there is no type {kind}")).help(TYPES);
    }
    // `time(us)` and `timestamp(us, UTC)` of contracts are no SQL.
    if what.ends_with("found: us") {
        return refuse("a type of SQL has no unit").help(TYPES);
    }
    refuse(what)
}

/// Where the result of this name is written in a SELECT that could be planned.
fn place_of(sql: &str, column: &str) -> Option<(u64, u64)> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    let named = tokens.iter().rev().find(|token| match &token.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(column),
        _ => false,
    })?;
    Some((named.span.start.line, named.span.start.column))
}

/// The error for an expression that fails whatever the row is.
pub(super) fn never(sql: &str, column: Option<&str>, cause: &DataFusionError) -> Error {
    let words = match cause.find_root() {
        DataFusionError::ArrowError(arrow, _) => match &**arrow {
            ArrowError::DivideByZero => "division by zero".to_owned(),
            ArrowError::ArithmeticOverflow(words)
            | ArrowError::CastError(words)
            | ArrowError::ParseError(words)
            | ArrowError::ComputeError(words)
            | ArrowError::InvalidArgumentError(words) => words.clone(),
            other => other.to_string(),
        },
        DataFusionError::Execution(words) => words.clone(),
        other => other.strip_backtrace(),
    };
    let Some(column) = column else {
        return refuse(format!("a condition cannot be evaluated for any row: {words}"));
    };
    let error = refuse(format!("column `{column}` cannot be evaluated for any row: {words}"));
    match place_of(sql, column) {
        Some((line, character)) => placed(error, line, character),
        None => error,
    }
}

/// The error at a line and a character of the SQL, both counted from 1.
fn placed(error: Error, line: u64, character: u64) -> Error {
    error.with(LINE, line).with(CHARACTER, character)
}

/// Plans `sql` over rows of `input`.
pub(super) fn plan(sql: &str, input: SchemaRef, tables: &Tables) -> Result<Transform> {
    deep(sql, || plan_here(sql, input, tables))
}

/// Checks that `sql` is one SELECT of rows of `input` and of the references of these names, whatever
/// their columns are. Answers which of the references it uses.
pub(super) fn parse(sql: &str, references: &BTreeSet<&str>) -> Result<BTreeSet<String>> {
    deep(sql, || {
        let statement = Statement::Statement(Box::new(select(sql)?));
        let (named, _) = resolve_table_references(&statement, true).map_err(foreign)?;
        let mut used = BTreeSet::new();
        for table in named {
            let name = table.to_string();
            match &table {
                TableReference::Bare { table } if **table == *INPUT => {}
                TableReference::Bare { table } if references.contains(&**table) => {
                    used.insert(table.to_string());
                }
                _ => return Err(refuse(no_table(&name, references.iter().copied()))),
            }
        }
        Ok(used)
    })
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

fn plan_here(sql: &str, input: SchemaRef, tables: &Tables) -> Result<Transform> {
    let statement = select(sql)?;
    let context = Context::new(input, tables);
    let written = SqlToRel::new(&context)
        .sql_statement_to_plan(statement)
        .map_err(|cause| context.refused.get().map_or_else(|| foreign(cause), not_row_wise))?;
    check::row_wise(&written)?;
    let written = join::lookups(written, tables)?;
    check::divisions(&written)?;
    let typed = Analyzer::new()
        .execute_and_check(written.clone(), &context.options, |_, _| {})
        .map_err(foreign)?;
    check::conversions(&written, &typed)?;

    let mut builder = Builder {
        stages: Vec::new(),
        options: Arc::new(context.options),
        tables,
        used: check::columns(&typed).map_err(foreign)?,
    };
    let rows = builder.build(&typed).map_err(foreign)?;
    Ok(Transform { stages: builder.stages, schema: output::schema(rows.as_arrow())? })
}

/// Makes the stages of a plan.
struct Builder<'a> {
    stages: Vec<Stage>,
    options: Arc<ConfigOptions>,
    tables: &'a Tables,
    /// The names of all columns that the SQL uses.
    used: HashSet<String>,
}

impl Builder<'_> {
    /// Adds the stages of `plan`, innermost first, and gives the schema of their result. The schemas
    /// of the plan itself may be stale once functions are rewritten, so that each stage's is taken
    /// from its physical expressions.
    fn build(&mut self, plan: &LogicalPlan) -> Result<DFSchema, DataFusionError> {
        match plan {
            LogicalPlan::TableScan(scan) => Ok(scan.projected_schema.as_ref().clone()),
            LogicalPlan::SubqueryAlias(alias) => {
                let inner = self.build(&alias.input)?;
                let name = Some(alias.alias.clone());
                named(inner.fields().iter().map(|field| (name.clone(), Arc::clone(field))))
            }
            LogicalPlan::Filter(filter) => {
                let input = self.build(&filter.input)?;
                let condition = physical(filter.predicate.clone(), &input, &self.options)?;
                self.stages.push(Stage::Filter(condition));
                Ok(input)
            }
            LogicalPlan::Projection(projection) => {
                let input = self.build(&projection.input)?;
                let columns = projection
                    .expr
                    .iter()
                    .map(|expr| physical(expr.clone(), &input, &self.options))
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
                self.stages.push(Stage::Project(columns, schema));
                let names = projection.schema.iter().map(|(qualifier, _)| qualifier.cloned());
                named(names.zip(fields))
            }
            LogicalPlan::Join(join) => self.lookup(join),
            _ => Err(unexpected()),
        }
    }

    /// A join as [`join::lookups`] leaves it.
    fn lookup(&mut self, join: &Join) -> Result<DFSchema, DataFusionError> {
        let (LogicalPlan::Projection(keyed), Some((name, _))) =
            (&*join.left, join::reference(&join.right))
        else {
            return Err(unexpected());
        };
        let table = Arc::clone(self.tables.get(name).ok_or_else(unexpected)?);
        let input = self.build(&keyed.input)?;
        let own = keyed.expr.len() - table.key_names().count();
        let keys = keyed
            .expr
            .iter()
            .skip(own)
            .map(|key| physical(key.clone(), &input, &self.options))
            .collect::<Result<Vec<_>, _>>()?;
        self.alike(&keys, &input, &table)?;
        let taken: Vec<usize> = (0..table.schema().fields().len())
            .filter(|at| self.used.contains(table.schema().field(*at).name()))
            .collect();
        let whole = join.join_type == JoinType::Left;
        let right = join.right.schema();
        let beside = taken.iter().map(|at| {
            let (qualifier, field) = right.qualified_field(*at);
            let nullable = whole || field.is_nullable();
            let field = Field::new(field.name(), field.data_type().clone(), nullable);
            (qualifier.cloned(), Arc::new(field))
        });
        let before = input.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let schema = named(before.chain(beside))?;
        self.stages.push(Stage::Lookup(Lookup {
            table,
            keys,
            whole,
            taken,
            schema: Arc::new(schema.as_arrow().clone()),
        }));
        Ok(schema)
    }

    /// The types of what is looked up were compared with the key's as they were written; this holds
    /// what is evaluated against it.
    fn alike(
        &self,
        keys: &[Arc<dyn PhysicalExpr>],
        input: &DFSchema,
        table: &Table,
    ) -> Result<(), DataFusionError> {
        for (key, wanted) in keys.iter().zip(table.key_kinds()) {
            let kind = key.data_type(input.as_arrow())?;
            if !comparable(&kind, wanted) {
                return Err(DataFusionError::Plan(format!(
                    "what is looked up is {kind}, and the key is {wanted}: write a CAST"
                )));
            }
        }
        Ok(())
    }
}

fn unexpected() -> DataFusionError {
    DataFusionError::Plan("an unexpected plan node".to_owned())
}

fn named(
    fields: impl Iterator<Item = (Option<TableReference>, FieldRef)>,
) -> Result<DFSchema, DataFusionError> {
    DFSchema::new_with_metadata(fields.collect(), HashMap::new())
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
