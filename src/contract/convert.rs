//! From the types that rows come with to those that the contract promises, without loss.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeTypeOp, DECIMAL128_MAX_PRECISION, Decimal128Type, Decimal256Type, Int16Type,
    Int32Type, Int64Type, i256,
};

use crate::error::{Error, Result};
use crate::format::FieldType;

/// How the values of a column become those of the promised type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Conversion {
    /// They are of that type.
    None,
    /// Arrow's cast, which is exact for every value here.
    Widen(FieldType),
    /// Value by value; one that does not fit exactly is refused.
    Fit(FieldType),
}

/// The conversion between two types, if there is one that cannot lose anything in silence.
pub(super) fn conversion(from: &FieldType, to: &FieldType) -> Option<Conversion> {
    use FieldType::{Decimal, Float32, Float64, Int16, Int32, Int64};
    Some(match (from, to) {
        (from, to) if from == to => Conversion::None,
        (Int16, Int32 | Int64 | Float32 | Float64) | (Int32, Int64 | Float64) => {
            Conversion::Widen(to.clone())
        }
        (Float32, Float64) => Conversion::Widen(to.clone()),
        (Int16 | Int32 | Int64 | Decimal(..), Int16 | Int32 | Int64 | Decimal(..)) => {
            Conversion::Fit(to.clone())
        }
        _ => return None,
    })
}

impl Conversion {
    /// Converts a column. What is NULL in the result and was not before did not fit.
    pub(super) fn convert(&self, column: &ArrayRef) -> Result<ArrayRef> {
        match self {
            Conversion::None => Ok(column.clone()),
            Conversion::Widen(to) => cast(column, &to.arrow()).map_err(mismatch),
            Conversion::Fit(to) => fit(column, to),
        }
    }
}

fn fit(column: &ArrayRef, to: &FieldType) -> Result<ArrayRef> {
    use arrow::datatypes::DataType;
    match (column.data_type(), to.arrow()) {
        (DataType::Decimal256(_, scale), _) => {
            return fit_wide(column.as_primitive::<Decimal256Type>(), *scale, to);
        }
        (from, DataType::Decimal256(..)) => {
            // Exact: it has room for every value of the narrower types.
            let scale = if let DataType::Decimal128(_, scale) = from { *scale } else { 0 };
            let values = cast(column, &DataType::Decimal256(76, scale)).map_err(mismatch)?;
            return fit_wide(values.as_primitive::<Decimal256Type>(), scale, to);
        }
        _ => {}
    }
    match column.data_type() {
        DataType::Int16 => fit_from(column.as_primitive::<Int16Type>(), 0, to),
        DataType::Int32 => fit_from(column.as_primitive::<Int32Type>(), 0, to),
        DataType::Int64 => fit_from(column.as_primitive::<Int64Type>(), 0, to),
        DataType::Decimal128(_, scale) => {
            fit_from(column.as_primitive::<Decimal128Type>(), *scale, to)
        }
        other => Err(mismatch(format!("a column of {other} has no digits to fit"))),
    }
}

fn fit_from<F>(from: &PrimitiveArray<F>, scale: i8, to: &FieldType) -> Result<ArrayRef>
where
    F: ArrowPrimitiveType,
    F::Native: Into<i128>,
{
    Ok(match to {
        FieldType::Int16 => Arc::new(fitted::<F, Int16Type>(from, scale, 0, i128::MAX)),
        FieldType::Int32 => Arc::new(fitted::<F, Int32Type>(from, scale, 0, i128::MAX)),
        FieldType::Int64 => Arc::new(fitted::<F, Int64Type>(from, scale, 0, i128::MAX)),
        FieldType::Decimal(precision, wanted) => {
            let limit = power(u32::from(*precision)).unwrap_or(i128::MAX);
            let values = fitted::<F, Decimal128Type>(from, scale, *wanted, limit);
            Arc::new(values.with_precision_and_scale(*precision, *wanted).map_err(mismatch)?)
        }
        other => return Err(mismatch(format!("digits cannot be fitted into {other}"))),
    })
}

/// As [`fit_from`], from or to decimals of more than 38 digits.
fn fit_wide(from: &PrimitiveArray<Decimal256Type>, scale: i8, to: &FieldType) -> Result<ArrayRef> {
    let ten = i256::from_i128(10);
    let moved = |value: i256, wanted: i8, digits: u8| {
        let steps = u32::from((i16::from(wanted) - i16::from(scale)).unsigned_abs());
        let factor = ten.pow_checked(steps).ok();
        let value = match (wanted >= scale, factor) {
            _ if value.is_zero() => value,
            (true, factor) => value.checked_mul(factor?)?,
            (false, factor) => {
                let factor = factor?;
                value.checked_rem(factor)?.is_zero().then(|| value.checked_div(factor)).flatten()?
            }
        };
        let limit = ten.pow_checked(digits.into()).ok()?;
        (value < limit && value > limit.wrapping_neg()).then_some(value)
    };
    // More digits than any whole number here has; the conversion tells whether it fits.
    const WHOLE: u8 = 20;
    let narrow = |value: i256| moved(value, 0, WHOLE).and_then(i256::to_i128);
    Ok(match to {
        FieldType::Int16 => Arc::new(
            from.unary_opt::<_, Int16Type>(|v| narrow(v).and_then(|v| i16::try_from(v).ok())),
        ),
        FieldType::Int32 => Arc::new(
            from.unary_opt::<_, Int32Type>(|v| narrow(v).and_then(|v| i32::try_from(v).ok())),
        ),
        FieldType::Int64 => Arc::new(
            from.unary_opt::<_, Int64Type>(|v| narrow(v).and_then(|v| i64::try_from(v).ok())),
        ),
        FieldType::Decimal(precision, wanted) if *precision <= DECIMAL128_MAX_PRECISION => {
            let values = from.unary_opt::<_, Decimal128Type>(|value| {
                moved(value, *wanted, *precision).and_then(i256::to_i128)
            });
            Arc::new(values.with_precision_and_scale(*precision, *wanted).map_err(mismatch)?)
        }
        FieldType::Decimal(precision, wanted) => {
            let values =
                from.unary_opt::<_, Decimal256Type>(|value| moved(value, *wanted, *precision));
            Arc::new(values.with_precision_and_scale(*precision, *wanted).map_err(mismatch)?)
        }
        other => return Err(mismatch(format!("digits cannot be fitted into {other}"))),
    })
}

/// The values moved from one scale to another; NULL where a digit would be lost, or where the
/// result does not fit or is not less than `limit`.
fn fitted<F, T>(values: &PrimitiveArray<F>, from: i8, to: i8, limit: i128) -> PrimitiveArray<T>
where
    F: ArrowPrimitiveType,
    F::Native: Into<i128>,
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i128>,
{
    let bounded = |value: i128| {
        (value > -limit && value < limit).then(|| T::Native::try_from(value).ok()).flatten()
    };
    let factor = power(u32::from((i16::from(to) - i16::from(from)).unsigned_abs()));
    match (to.cmp(&from), factor) {
        (std::cmp::Ordering::Equal, _) => values.unary_opt(|value| bounded(value.into())),
        (std::cmp::Ordering::Greater, factor) => values.unary_opt(|value| {
            let value: i128 = value.into();
            if value == 0 { bounded(0) } else { bounded(value.checked_mul(factor?)?) }
        }),
        (std::cmp::Ordering::Less, factor) => values.unary_opt(|value| {
            let (value, factor): (i128, i128) = (value.into(), factor?);
            (value % factor == 0).then(|| bounded(value / factor)).flatten()
        }),
    }
}

/// 10 to the power of `exponent`, up to 38.
pub(super) fn power(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

fn mismatch(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::permanent("keep the contract", "a batch has other types than were planned for")
        .caused_by(cause)
}
