//! Whether two tuples of values can be told apart by the paths that they give.
//!
//! Within a segment a value ends where the literal behind it begins. That must be seen in the path
//! alone: of each literal between two placeholders one character stands in no value before it,
//! either since no value ever has it, or since it is encoded in this one.

use super::{Piece, Template, sample};

/// Characters that stand in encoded values as they are, besides letters and digits.
const PLAIN: [char; 5] = ['-', '_', '.', '~', '%'];
/// What of strftime is always of one length.
const FIXED: &str = "YmdHMSyjFTRDzCGgVUWuwab%";

/// A placeholder whose text may be of any length, and what is known to follow it.
struct Open<'a> {
    at: usize,
    name: &'a str,
    /// The format, of a time.
    format: Option<&'a str>,
    /// The literal that follows at once.
    behind: Option<&'a str>,
}

/// Two placeholders between which nothing tells where the first ends.
pub(super) struct Adjacent<'a>(pub &'a str, pub &'a str);

impl Template {
    /// For each piece that is a value the character that is encoded in it besides the usual ones.
    pub(super) fn ends(&self) -> Result<Vec<Option<char>>, Adjacent<'_>> {
        let mut ends = vec![None; self.pieces.len()];
        let mut open: Option<Open<'_>> = None;
        for (at, piece) in self.pieces.iter().enumerate() {
            let (name, format) = match piece {
                Piece::Literal(text) => {
                    if text.contains('/') {
                        open = None;
                    } else if let Some(open) = &mut open
                        && open.at + 1 == at
                    {
                        open.behind = Some(text);
                    }
                    continue;
                }
                // Of one length, or one text.
                Piece::Run | Piece::Export => continue,
                Piece::Start(format) => ("window_start", Some(format.as_str())),
                Piece::End(format) => ("window_end", Some(format.as_str())),
                Piece::Value(name) => (name.as_str(), None),
            };
            let parts = format.map(|format| sample(format).unwrap_or_default());
            let segments = parts.as_deref().is_some_and(|shown| shown.contains('/'));
            if format.is_some_and(is_fixed) {
                if segments {
                    open = None;
                }
                continue;
            }
            if let Some(before) = open.take() {
                let end = before.end().ok_or(Adjacent(before.name, name))?;
                if let Some(slot) = ends.get_mut(before.at) {
                    *slot = end;
                }
            }
            open = Some(Open { at, name, format, behind: None });
        }
        Ok(ends)
    }
}

impl Open<'_> {
    /// By what its end is seen: a character that has to be encoded in it, or `Some(None)` where one
    /// behind it never stands in it. `None`: by nothing.
    fn end(&self) -> Option<Option<char>> {
        let behind = self.behind?;
        let foreign = |c: &char| !c.is_ascii_alphanumeric() && !PLAIN.contains(c);
        match self.format {
            // A time has signs of its own, and is not encoded.
            Some(format) => {
                let free = |c: &char| foreign(c) && !"+: ,".contains(*c) && !format.contains(*c);
                behind.chars().any(|c| free(&c)).then_some(None)
            }
            None if behind.chars().any(|c| foreign(&c)) => Some(None),
            // What an encoded character is written with cannot be encoded itself.
            None => behind.chars().find(|c| !matches!(c, '0'..='9' | 'A'..='F' | '%')).map(Some),
        }
    }
}

/// Whether all times have texts of one length in a format.
fn is_fixed(format: &str) -> bool {
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c == '%' && !chars.next().is_some_and(|what| FIXED.contains(what)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Result<Vec<Option<char>>, (String, String)> {
        let template = Template::read(text, &["a", "b"]).0;
        template.ends().map_err(|Adjacent(one, two)| (one.to_owned(), two.to_owned()))
    }

    #[test]
    fn what_ends_a_value_is_encoded_in_it_where_it_may_stand_there() {
        for (text, expected) in [
            ("{a}", vec![None]),
            ("{a}/{b}", vec![None, None, None]),
            ("{a}-{b}", vec![Some('-'), None, None]),
            ("{a}--x{b}", vec![Some('-'), None, None]),
            ("{a}-={b}", vec![None, None, None]),
            ("{a}2x{b}", vec![Some('x'), None, None]),
            ("{a}-{run}_{b}", vec![Some('-'), None, None, None, None]),
            ("{a}-{window_start:%F}", vec![None, None, None]),
            ("{window_start:%F}{a}", vec![None, None]),
            ("{window_start:%Y/%m/%d}{a}", vec![None, None]),
            ("{a}{window_start:%Y/%m}-{b}", vec![None, None, None, None]),
            ("{a}-{window_start:%A}", vec![Some('-'), None, None]),
            ("{window_start:%A}={a}", vec![None, None, None]),
        ] {
            assert_eq!(ends(text), Ok(expected), "{text}");
        }
        for text in ["{a}{b}", "{a}2{b}", "{a}%{b}", "{a}{run}-{b}", "{a}{window_start:%F}-{b}"] {
            assert_eq!(ends(text), Err(("a".to_owned(), "b".to_owned())), "{text}");
        }
        for text in ["{window_start:%A}{a}", "{window_start:%A}-{a}", "{window_start:%A=%d}={a}"] {
            assert!(ends(text).is_err(), "{text}");
        }
    }
}
