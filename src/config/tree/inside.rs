//! Places inside a text: SQL and paths are values of TOML, and what is wrong in them is at a place
//! of their own.

use super::Place;

impl Place {
    /// The place of the word that begins at byte `offset` of the text `value`, which stands here.
    /// This place itself where that cannot be told.
    pub fn inside(&self, value: &str, offset: usize) -> Place {
        let narrowed = || {
            let span = self.span.clone()?;
            let raw = self.file.text.get(span.clone())?;
            let offsets = offsets(raw, value)?;
            let rest = value.get(offset..)?;
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let one = rest.chars().next().map_or(0, char::len_utf8);
            let end = offset + word.max(one);
            let at = |offset: usize| offsets.get(offset).copied().flatten();
            Some(span.start + at(offset)?..span.start + at(end)?)
        };
        Place { file: self.file.clone(), span: narrowed().or_else(|| self.span.clone()) }
    }

    /// The place at a line and a character of the text `value`, both counted from 1.
    pub fn inside_at(&self, value: &str, line: usize, character: usize) -> Place {
        let Some(text) = value.split('\n').nth(line.saturating_sub(1)) else { return self.clone() };
        let before: usize = value.split('\n').take(line - 1).map(|line| line.len() + 1).sum();
        let within = text.char_indices().nth(character.saturating_sub(1)).map(|(at, _)| at);
        let mut offset = before + within.unwrap_or(text.len());
        // What ends too early is wrong after its last word.
        if value.get(offset..).is_none_or(|rest| rest.trim().is_empty()) {
            let words = value.trim_end();
            offset = words.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        }
        self.inside(value, offset)
    }
}

/// For each byte of `value` where it stands in `raw`, which is the same text as TOML writes it, and
/// for its end. `None` where they are not the same.
fn offsets(raw: &str, value: &str) -> Option<Vec<Option<usize>>> {
    let long = ["\"\"\"", "'''"].into_iter().find(|quote| raw.starts_with(quote));
    let quote = long.unwrap_or(raw.get(..1)?);
    let escapes = quote.starts_with('"');
    let mut at = quote.len();
    let end = raw.len().checked_sub(at).filter(|end| *end >= at)?;
    if long.is_some() {
        // The line break after the opening quotes is no part of the text.
        let rest = raw.get(at..end)?;
        at += ["\r\n", "\n"].into_iter().find(|b| rest.starts_with(b)).map_or(0, str::len);
    }
    let mut found = vec![None; value.len() + 1];
    let mut offset = 0;
    while at < end {
        let rest = raw.get(at..end)?;
        let first = rest.chars().next()?;
        if !(escapes && first == '\\') {
            if !value.get(offset..)?.starts_with(first) {
                return None;
            }
            *found.get_mut(offset)? = Some(at);
            offset += first.len_utf8();
            at += first.len_utf8();
            continue;
        }
        let after = rest.get(1..)?;
        let gap = after.len() - after.trim_start().len();
        if after.get(..gap)?.contains('\n') {
            // A backslash at the end of a line leaves out all space up to the next word.
            at += 1 + gap;
            continue;
        }
        *found.get_mut(offset)? = Some(at);
        offset += value.get(offset..)?.chars().next()?.len_utf8();
        at += 2 + match after.chars().next()? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
    }
    *found.get_mut(offset)? = Some(end);
    (offset == value.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_text_is_followed() {
        for (raw, value, word) in [
            ("\"a:b c\"", "a:b c", "c"),
            ("'a\\b c'", "a\\b c", "c"),
            ("\"a\\n\\u00e5 \\\"c\"", "a\nå \"c", "c"),
            ("\"\"\"\n  a\n  c\"\"\"", "  a\n  c", "c"),
            ("\"\"\"\r\na\\\r\n   c\"\"\"", "ac", "c"),
            ("'''\na\nc'''", "a\nc", "c"),
        ] {
            let offsets = offsets(raw, value).unwrap_or_else(|| panic!("{raw}"));
            let at = offsets[value.rfind(word).unwrap()].unwrap();
            assert!(raw[at..].starts_with(word), "{raw}: {at}");
        }
        assert_eq!(offsets("\"ab\"", "ac"), None);
        assert_eq!(offsets("\"ab\"", "a"), None);
        assert_eq!(offsets("\"a\"", "ab"), None);
        assert_eq!(offsets("\"", ""), None);
        assert_eq!(offsets("", ""), None);
    }
}
