//! PostgreSQL's numeric on the wire: a count of digits in base 10,000, the weight of the first, a
//! sign, the scale to show, and the digits.

use arrow::datatypes::i256;

use super::decode::Trouble;
use crate::format::decode::exact;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

const POWERS: [u128; 39] = {
    let mut powers = [1; 39];
    let mut at = 1;
    while at < 39 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// Below this, one more digit in base 10,000 can be taken.
const ROOM: u128 = (u128::MAX - 9_999) / 10_000;

struct Numeric<'a> {
    weight: i32,
    sign: u16,
    scale: u16,
    digits: &'a [u8],
}

fn parse(field: &[u8]) -> Option<Numeric<'_>> {
    let (&[c0, c1, w0, w1, s0, s1, d0, d1], digits) = field.split_first_chunk::<8>()?;
    (digits.len() == 2 * usize::from(u16::from_be_bytes([c0, c1]))).then_some(Numeric {
        weight: i32::from(i16::from_be_bytes([w0, w1])),
        sign: u16::from_be_bytes([s0, s1]),
        scale: u16::from_be_bytes([d0, d1]),
        digits,
    })
}

/// The value in units of 10^-`scale`, exactly.
#[inline]
pub(super) fn decimal(field: &[u8], precision: u8, scale: i8) -> Result<i128, Trouble> {
    let Numeric { weight, sign, digits, .. } = parse(field).ok_or(Trouble::Malformed)?;
    if sign != 0 && sign != NEGATIVE {
        return Err(Trouble::Type);
    }
    // The power of ten, in those units, that the digit at hand counts.
    let mut power = 4 * weight + i32::from(scale);
    let mut total: u128 = 0;
    for digit in digits.as_chunks::<2>().0 {
        let digit = u128::from(u16::from_be_bytes(*digit));
        if power >= 0 {
            if total > ROOM {
                return Err(Trouble::Type);
            }
            total = total * 10_000 + digit;
        } else {
            // The point lies within this digit, or before it: what is behind must be zeros.
            let cut = power_of_ten(-power.max(-4));
            if digit % cut != 0 {
                return Err(Trouble::Type);
            }
            if power > -4 {
                let moved = total.checked_mul(10_000 / cut).ok_or(Trouble::Type)?;
                total = moved.checked_add(digit / cut).ok_or(Trouble::Type)?;
            }
        }
        power -= 4;
    }
    let zeros = power + 4;
    if zeros > 0 && total > 0 {
        if zeros > 38 {
            return Err(Trouble::Type);
        }
        total = total.checked_mul(power_of_ten(zeros)).ok_or(Trouble::Type)?;
    }
    if total >= power_of_ten(i32::from(precision)) {
        return Err(Trouble::Type);
    }
    // Below 10^38, so it fits.
    let total = total as i128;
    Ok(if sign == NEGATIVE { -total } else { total })
}

/// As [`decimal`], of more than 38 digits: by the text, which is slower.
pub(super) fn wide(field: &[u8], precision: u8, scale: i8) -> Result<i256, Trouble> {
    let numeric = parse(field).ok_or(Trouble::Malformed)?;
    // All digits that there are, however many are to be shown.
    let behind = 2 * numeric.digits.len() as i32 - 4 * (numeric.weight + 1);
    let shown = Numeric { scale: behind.clamp(0, u16::MAX.into()) as u16, ..numeric };
    exact::wide(&shown.text(), precision, scale).ok_or(Trouble::Type)
}

#[inline]
fn power_of_ten(power: i32) -> u128 {
    usize::try_from(power).ok().and_then(|power| POWERS.get(power)).copied().unwrap_or(u128::MAX)
}

/// The value as PostgreSQL prints it.
pub(super) fn text(field: &[u8]) -> String {
    match parse(field) {
        Some(numeric) => numeric.text(),
        None => format!("\\x{}", hex::encode(field)),
    }
}

impl Numeric<'_> {
    fn text(&self) -> String {
        let Numeric { weight, sign, scale, digits } = *self;
        match sign {
            NAN => return "NaN".to_owned(),
            INFINITY => return "Infinity".to_owned(),
            NEGATIVE_INFINITY => return "-Infinity".to_owned(),
            _ => {}
        }
        let digit = |place: i32| {
            let index = usize::try_from(weight - place).ok();
            let pair = index.and_then(|index| digits.as_chunks::<2>().0.get(index));
            pair.map_or(0, |pair| u16::from_be_bytes(*pair))
        };
        let mut text = String::from(if sign == NEGATIVE { "-" } else { "" });
        text.push_str(&digit(weight.max(0)).to_string());
        for place in (0..weight.max(0)).rev() {
            text.push_str(&format!("{:04}", digit(place)));
        }
        if scale > 0 {
            let mut fraction = String::new();
            for place in 1..=i32::from(scale.div_ceil(4)) {
                fraction.push_str(&format!("{:04}", digit(-place)));
            }
            fraction.truncate(usize::from(scale));
            text.push('.');
            text.push_str(&fraction);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((digits.len() as u16).to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(scale.to_be_bytes());
        digits.iter().for_each(|digit| bytes.extend(digit.to_be_bytes()));
        bytes
    }

    #[test]
    fn values_are_exact_or_refused() {
        let long = format!("1{}", "0".repeat(120));
        for (bytes, precision, scale, expected, shown) in [
            (wire(0, 0, 2, &[1, 2500]), 15, 2, Ok(125), "1.25"),
            (wire(0, NEGATIVE, 2, &[1, 2500]), 15, 2, Ok(-125), "-1.25"),
            (wire(0, 0, 2, &[1, 2550]), 15, 2, Err(Trouble::Type), "1.25"),
            (wire(0, 0, 0, &[]), 15, 2, Ok(0), "0"),
            (wire(2, 0, 0, &[1]), 15, 2, Ok(10_000_000_000), "100000000"),
            (wire(-2, 0, 8, &[12]), 15, 8, Ok(12), "0.00000012"),
            (wire(-2, 0, 8, &[12]), 15, 7, Err(Trouble::Type), "0.00000012"),
            (wire(0, 0, 6, &[7]), 9, 2, Ok(700), "7.000000"),
            (wire(0, 0, 0, &[100]), 4, 2, Err(Trouble::Type), "100"),
            (wire(0, NAN, 0, &[]), 4, 2, Err(Trouble::Type), "NaN"),
            (wire(0, INFINITY, 0, &[]), 4, 2, Err(Trouble::Type), "Infinity"),
            (wire(30, 0, 0, &[1]), 38, 0, Err(Trouble::Type), &long),
        ] {
            assert_eq!(decimal(&bytes, precision, scale), expected, "{shown}");
            let expected = expected.map(i256::from_i128);
            assert_eq!(wide(&bytes, precision, scale), expected, "{shown}, wide");
            assert_eq!(text(&bytes), shown);
        }
        assert_eq!(decimal(&[0, 1, 0, 0, 0, 0, 0, 0], 4, 2), Err(Trouble::Malformed));
    }

    #[test]
    fn thirty_eight_digits_fit_wherever_the_point_is() {
        for scale in 0..=38_i8 {
            let nines = "9".repeat(38);
            let (whole, fraction) = nines.split_at(38 - scale as usize);
            let whole = format!("{whole:0>40}");
            let fraction = format!("{fraction:0<40}");
            let digits: Vec<u16> = format!("{whole}{fraction}")
                .as_bytes()
                .chunks(4)
                .map(|four| std::str::from_utf8(four).unwrap().parse().unwrap())
                .collect();
            let bytes = wire(9, 0, scale as u16, &digits);
            assert_eq!(decimal(&bytes, 38, scale), Ok(10_i128.pow(38) - 1), "{scale}");
        }
    }
}
