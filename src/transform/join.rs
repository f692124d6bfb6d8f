//! Joins with references. Each becomes a lookup: the left side with the values of the key behind its
//! own columns, beside the reference.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Column, TableReference};
use datafusion_expr::logical_plan::{Join, JoinConstraint, Projection};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, ExprSchemable, JoinType, LogicalPlan, Operator};

use super::plan::{ALLOWED, foreign, not_row_wise, refuse};
use super::table::{Table, Tables, comparable};
use crate::error::{Error, Result};

/// What rows are called that a transform is about.
pub(super) const INPUT: &str = "input";

/// The reference that the right side of a join is, and what it is called there.
pub(super) fn reference(plan: &LogicalPlan) -> Option<(&str, &TableReference)> {
    let (scan, name) = match plan {
        LogicalPlan::SubqueryAlias(alias) => (&*alias.input, Some(&alias.alias)),
        plan => (plan, None),
    };
    match scan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() != INPUT => {
            Some((scan.table_name.table(), name.unwrap_or(&scan.table_name)))
        }
        _ => None,
    }
}

/// Refuses the joins that are no lookups, as far as their form tells.
pub(super) fn form(join: &Join) -> Result<()> {
    let Some((table, name)) = reference(&join.right) else {
        return Err(no_reference());
    };
    let instead = match join.join_type {
        JoinType::Inner | JoinType::Left => None,
        JoinType::LeftSemi => Some(format!("JOIN {table} ON … keeps the rows that have one.")),
        JoinType::LeftAnti => Some(format!(
            "LEFT JOIN {table} ON … WHERE {name}.column IS NULL keeps the rows that have none, by a \
             column of its key."
        )),
        _ => Some(format!("Write FROM input LEFT JOIN {table} ON …, or JOIN {table} ON ….")),
    };
    if let Some(instead) = instead {
        let kind = match join.join_type {
            JoinType::LeftSemi | JoinType::RightSemi => "SEMI".to_owned(),
            JoinType::LeftAnti | JoinType::RightAnti => "ANTI".to_owned(),
            other => other.to_string().to_uppercase(),
        };
        return Err(refuse(format!("a {kind} JOIN is no lookup")).help(instead));
    }
    if join.join_constraint == JoinConstraint::Using {
        return Err(refuse("a lookup says by ON which values are compared")
            .help(format!("Write LEFT JOIN {table} ON input.column = {name}.column.")));
    }
    Ok(())
}

fn no_reference() -> Error {
    not_row_wise("a join with anything but a reference")
        .help(format!("Begin with FROM input, and join references by their names. {ALLOWED}"))
}

/// `plan` with lookups instead of joins: nothing is compared in them any more, and the left side of
/// each is a projection that ends with the values which are looked up, in the order of the key.
pub(super) fn lookups(plan: LogicalPlan, tables: &Tables) -> Result<LogicalPlan> {
    let mut number = 0;
    rewrite(plan, tables, &mut number)
}

fn rewrite(plan: LogicalPlan, tables: &Tables, number: &mut usize) -> Result<LogicalPlan> {
    let LogicalPlan::Join(join) = plan else {
        let inputs = plan.inputs();
        if inputs.is_empty() {
            return Ok(plan);
        }
        let inputs = inputs
            .into_iter()
            .map(|input| rewrite(input.clone(), tables, number))
            .collect::<Result<Vec<_>>>()?;
        return plan.with_new_exprs(plan.expressions(), inputs).map_err(foreign);
    };
    let left = rewrite(join.left.as_ref().clone(), tables, number)?;
    let named = reference(&join.right);
    let Some((table, name)) = named.and_then(|(one, name)| Some((tables.get(one)?, name))) else {
        return Err(no_reference());
    };
    let keys = keys(&join, &left, table, name)?;
    let own = left.schema().iter().map(|column| Expr::Column(Column::from(column)));
    let keys = keys.into_iter().map(|key| {
        *number += 1;
        key.alias(format!("__key_{number}"))
    });
    let all: Vec<Expr> = own.chain(keys).collect();
    let keyed = Projection::try_new(all, Arc::new(left)).map_err(foreign)?;
    let join = Join::try_new(
        Arc::new(LogicalPlan::Projection(keyed)),
        join.right,
        Vec::new(),
        None,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        false,
    );
    join.map(LogicalPlan::Join).map_err(foreign)
}

/// What is looked up: an expression over the left side for each column of the key.
fn keys(
    join: &Join,
    left: &LogicalPlan,
    table: &Table,
    name: &TableReference,
) -> Result<Vec<Expr>> {
    let whole: Vec<String> =
        table.key_names().map(|column| format!("… = {name}.{column}")).collect();
    let wrong = |what: String| {
        refuse(what).help(format!(
            "A row of `{name}` is found by its whole key and nothing else: ON {}. Other conditions \
             belong into WHERE, or into the reference's own query.",
            whole.join(" AND ")
        ))
    };
    let Some(filter) = &join.filter else {
        return Err(wrong(format!("nothing says which row of `{name}` is meant")));
    };
    let is_own = |expr: &Expr| match expr {
        Expr::Column(column) => join.right.schema().index_of_column(column).ok(),
        _ => None,
    };
    let is_left = |expr: &Expr| {
        let columns = expr.column_refs();
        columns.into_iter().all(|column| left.schema().has_column(column))
    };
    let mut found: Vec<Option<Expr>> = table.key_names().map(|_| None).collect();
    for condition in split_conjunction(filter) {
        let sides = match condition {
            Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
                match (is_own(&binary.left), is_own(&binary.right)) {
                    (Some(at), None) if is_left(&binary.right) => Some((at, &*binary.right)),
                    (None, Some(at)) if is_left(&binary.left) => Some((at, &*binary.left)),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some((at, value)) = sides else {
            let condition = condition.human_display();
            let what = format!("{condition} does not compare a value of the row with a key");
            return Err(wrong(what));
        };
        let column = join.right.schema().field(at);
        let place = table.key_names().position(|key| key == column.name());
        let Some(slot) = place.and_then(|place| found.get_mut(place)) else {
            return Err(wrong(format!("`{}` is not in the key of `{name}`", column.name())));
        };
        if slot.is_some() {
            return Err(wrong(format!("`{name}.{}` is compared twice", column.name())));
        }
        let kind = value.get_type(left.schema()).map_err(foreign)?;
        if !comparable(&kind, column.data_type()) {
            return Err(unlike(
                value,
                &kind,
                &format!("{name}.{}", column.name()),
                column.data_type(),
            ));
        }
        *slot = Some(value.clone());
    }
    let missing = table.key_names().zip(&found).find(|(_, value)| value.is_none());
    if let Some((column, _)) = missing {
        return Err(wrong(format!("nothing is compared with `{name}.{column}`")));
    }
    Ok(found.into_iter().flatten().collect())
}

/// The refusal of two types that cannot be compared without loss.
pub(super) fn unlike(value: &Expr, kind: &DataType, column: &str, key: &DataType) -> Error {
    let told = |kind: &DataType| match crate::format::FieldType::of_arrow(kind) {
        Some(kind) => kind.to_string(),
        None => kind.to_string(),
    };
    let cast = match key {
        DataType::Boolean => "boolean".to_owned(),
        key if key.is_integer() => "bigint".to_owned(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision}, {scale})")
        }
        DataType::Date32 => "date".to_owned(),
        DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(..) => "timestamp with time zone".to_owned(),
        DataType::Binary => "bytea".to_owned(),
        _ => "varchar".to_owned(),
    };
    let value = value.human_display();
    refuse(format!("{value} is {}, and {column} is {}", told(kind), told(key)))
        .help(format!("Give both one type, if that is what is meant: CAST({value} AS {cast})."))
}
