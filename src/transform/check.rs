//! What a row-wise SELECT may not say, and where it would lose digits.

use std::collections::HashSet;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::expr::Cast;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, Operator, Volatility};

use super::join::{self, INPUT};
use super::plan::{foreign, not_row_wise, refuse};
use crate::error::{Error, Result};

/// How deep an expression may be nested; evaluation recurses on a worker's stack.
const MAX_DEPTH: usize = 100;

/// Refuses every plan node but those that work row by row, and every expression that needs more
/// than its row. It goes by what is allowed, so that what DataFusion learns later is refused too.
pub(super) fn row_wise(plan: &LogicalPlan) -> Result<()> {
    let found = match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() != INPUT => {
            let name = &scan.table_name;
            return Err(refuse(format!("the rows of `{name}` are looked up, and nothing else"))
                .help(format!("Begin with the rows: SELECT … FROM input LEFT JOIN {name} ON ….")));
        }
        LogicalPlan::TableScan(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => None,
        LogicalPlan::Join(join) => {
            join::form(join)?;
            None
        }
        LogicalPlan::Projection(projection) => {
            for expr in &projection.expr {
                if !matches!(expr, Expr::Column(_) | Expr::Alias(_)) {
                    return Err(refuse(format!("the result of {expr} has no name"))
                        .help("Name it: … AS name."));
                }
            }
            None
        }
        LogicalPlan::Aggregate(_) => Some("GROUP BY and aggregate functions"),
        LogicalPlan::Window(_) => Some("window functions"),
        LogicalPlan::Sort(_) => Some("ORDER BY"),
        LogicalPlan::Limit(_) => Some("LIMIT and OFFSET"),
        LogicalPlan::Distinct(_) => Some("DISTINCT"),
        LogicalPlan::Union(_) => Some("UNION"),
        LogicalPlan::Subquery(_) => Some("a subquery"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Some("rows that are not input's"),
        LogicalPlan::RecursiveQuery(_) => Some("a recursive query"),
        LogicalPlan::Unnest(_) => Some("unnest"),
        _ => Some("a statement that is no SELECT"),
    };
    if let Some(found) = found {
        return Err(not_row_wise(found));
    }
    for expr in plan.expressions() {
        if depth(&expr) > MAX_DEPTH {
            return Err(refuse(format!(
                "an expression is nested more than {MAX_DEPTH} levels deep"
            ))
            .help("A long OR of comparisons can be written with IN (…)."));
        }
        expression(&expr)?;
    }
    match plan {
        // The right side is a reference.
        LogicalPlan::Join(join) => row_wise(&join.left),
        plan => plan.inputs().into_iter().try_for_each(row_wise),
    }
}

fn depth(expr: &Expr) -> usize {
    let mut deepest = 0;
    // The closure never fails, and neither does the walk.
    let _ = expr.apply_children(|child| {
        deepest = deepest.max(depth(child));
        Ok(TreeNodeRecursion::Continue)
    });
    deepest + 1
}

fn expression(expr: &Expr) -> Result<()> {
    let mut refusal = None;
    expr.apply(|expr| {
        refusal = match expr {
            Expr::AggregateFunction(_) | Expr::GroupingSet(_) => {
                Some(not_row_wise("an aggregate function"))
            }
            Expr::WindowFunction(_) => Some(not_row_wise("a window function")),
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::ScalarSubquery(_)
            | Expr::OuterReferenceColumn(..) => Some(not_row_wise("a subquery")),
            Expr::Placeholder(_) => Some(
                refuse("placeholders have no value here")
                    .help("Use parameters in the source's query: :name."),
            ),
            Expr::ScalarVariable(..) => Some(refuse("variables have no value here")),
            Expr::Unnest(_)
            | Expr::HigherOrderFunction(_)
            | Expr::Lambda(_)
            | Expr::LambdaVariable(_) => Some(not_row_wise("a lambda or unnest")),
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some(
                    refuse(format!(
                        "{}() gives another result each time; the same row must give the same \
                         result",
                        call.func.name()
                    ))
                    .help("Compute it in the source's query, from :window_start for example."),
                )
            }
            _ => None,
        };
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(foreign)?;
    refusal.map_or(Ok(()), Err)
}

/// Calls `visit` with every expression of the plan, however deep, and the schema it is over. Lookups
/// have none of their own: what they compare is on their left side.
fn each(
    plan: &LogicalPlan,
    visit: &mut impl FnMut(&Expr, &DFSchema) -> Result<(), DataFusionError>,
) -> Result<(), DataFusionError> {
    if let Some(input) = plan.inputs().first() {
        for expr in plan.expressions() {
            expr.apply(|expr| visit(expr, input.schema()).map(|()| TreeNodeRecursion::Continue))?;
        }
        each(input, visit)?;
    }
    Ok(())
}

/// The names of all columns that the expressions of a plan use.
pub(super) fn columns(plan: &LogicalPlan) -> Result<HashSet<String>, DataFusionError> {
    let mut names = HashSet::new();
    each(plan, &mut |expr, _| {
        if let Expr::Column(column) = expr {
            names.insert(column.name.clone());
        }
        Ok(())
    })?;
    Ok(names)
}

/// Refuses divisions of decimals: their quotient is cut off four digits after the dividend's, in
/// silence. Where a CAST around it keeps fewer digits than that, it is the author's own rounding.
/// Works on the plan as written, where every cast is the author's.
pub(super) fn divisions(plan: &LogicalPlan) -> Result<()> {
    let (mut found, mut said) = (None, 0);
    let mut count = 0;
    each(plan, &mut |expr, schema| {
        if decimal_quotient(expr, schema)?.is_some() {
            count += 1;
            found.get_or_insert_with(|| expr.to_string());
        }
        if let Expr::Cast(Cast { expr, field }) = expr
            && let Some(scale) = decimal_quotient(expr, schema)?
            && match field.data_type() {
                DataType::Decimal128(_, kept) | DataType::Decimal256(_, kept) => *kept < scale,
                other => other.is_integer(),
            }
        {
            said += 1;
        }
        Ok(())
    })
    .map_err(foreign)?;
    match found {
        Some(found) if count > said => Err(refuse(format!(
            "the quotient of decimals in {found} would be cut off without a word"
        ))
        .help("Say how many digits are wanted: CAST(a / b AS decimal(18, 2)).")),
        _ => Ok(()),
    }
}

/// The scale of the quotient, if `expr` divides decimals.
fn decimal_quotient(expr: &Expr, schema: &DFSchema) -> Result<Option<i8>, DataFusionError> {
    match expr {
        Expr::BinaryExpr(binary) if binary.op == Operator::Divide => {
            Ok(match expr.get_type(schema)? {
                DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => Some(scale),
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

/// Refuses what DataFusion would convert on its own with a loss: an int64 or decimal to a float,
/// a civil time to an instant. `written` is the plan before it was given types, `typed` after.
pub(super) fn conversions(written: &LogicalPlan, typed: &LogicalPlan) -> Result<()> {
    let own = lossy_casts(written).map_err(foreign)?;
    let mut all = lossy_casts(typed).map_err(foreign)?;
    if all.len() > own.len() {
        all.retain(|cast| !own.contains(cast));
        let found = all.first().map_or("a conversion", String::as_str);
        return Err(refuse(format!(
            "{found} would happen in silence, and can lose digits or zone"
        ))
        .help("Write the CAST that is meant, or give both sides one type."));
    }
    wraps(typed)?;
    floats(typed)
}

/// Refuses conversions to decimals of more than 38 digits that wrap around without an error: arrow-cast
/// 59 takes one whose digits, moved to the new scale, are more than 127 for one that cannot fail, and the
/// scaling of a text for another.
fn wraps(typed: &LogicalPlan) -> Result<()> {
    let mut found = None;
    each(typed, &mut |expr, schema| {
        if let Expr::Cast(Cast { expr: inner, field }) = expr
            && may_wrap(&inner.get_type(schema)?, field.data_type())
        {
            found.get_or_insert_with(|| expr.to_string());
        }
        Ok(())
    })
    .map_err(foreign)?;
    match found {
        None => Ok(()),
        Some(found) => Err(refuse(format!("{found} could go wrong without a word"))
            .help("Give the decimal a smaller scale, or at most 38 digits.")),
    }
}

/// Whether a conversion may wrap around: see [`wraps`].
pub(super) fn may_wrap(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (
            DataType::Decimal256(precision, from),
            DataType::Decimal128(_, to) | DataType::Decimal256(_, to),
        ) => i16::from(*precision) + i16::from(*to) - i16::from(*from) > 127,
        (from, DataType::Decimal256(..)) => from.is_string(),
        _ => false,
    }
}

fn lossy_casts(plan: &LogicalPlan) -> Result<Vec<String>, DataFusionError> {
    let mut found = Vec::new();
    each(plan, &mut |expr, schema| {
        if let Expr::Cast(Cast { expr: inner, field }) = expr
            && !matches!(**inner, Expr::Literal(..))
            && lossy(&inner.get_type(schema)?, field.data_type())
        {
            found.push(expr.to_string());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a cast can lose something without failing.
fn lossy(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Date32, Decimal32, Decimal64, Decimal128, Decimal256, Float32, Float64, Int32, Int64,
        Timestamp, UInt32, UInt64,
    };
    let fine = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    match (from, to) {
        (Float64, Float32) => true,
        (Float32 | Float64, to) => to.is_integer() || to.is_decimal(),
        (Int32 | UInt32, Float32) => true,
        (Int64 | UInt64, to) => to.is_floating(),
        (
            Decimal32(_, from) | Decimal64(_, from) | Decimal128(_, from) | Decimal256(_, from),
            to,
        ) => match to {
            Decimal32(_, to) | Decimal64(_, to) | Decimal128(_, to) | Decimal256(_, to) => {
                to < from
            }
            to => to.is_floating() || to.is_integer(),
        },
        (Timestamp(from, zone), Timestamp(to, other)) => {
            fine(to) < fine(from) || zone.is_some() != other.is_some()
        }
        (Timestamp(..), to) => *to == Date32,
        _ => false,
    }
}

/// Refuses functions that answer an exact number with a float.
fn floats(plan: &LogicalPlan) -> Result<()> {
    let mut found: Option<Error> = None;
    each(plan, &mut |expr, schema| {
        let Expr::ScalarFunction(call) = expr else { return Ok(()) };
        // Whoever names the type in the call has said what is wanted.
        if call.func.name().contains("cast") || !expr.get_type(schema)?.is_floating() {
            return Ok(());
        }
        for argument in &call.args {
            let kind = argument.get_type(schema)?;
            if !matches!(argument, Expr::Literal(..))
                && (kind.is_decimal() || matches!(kind, DataType::Int64 | DataType::UInt64))
            {
                found.get_or_insert_with(|| {
                    refuse(format!(
                        "{}() gives a float for {argument}, which is {kind}: digits would be lost",
                        call.func.name()
                    ))
                    .help("Write CAST(… AS double) around its argument if that is meant.")
                });
            }
        }
        Ok(())
    })
    .map_err(foreign)?;
    found.map_or(Ok(()), Err)
}
