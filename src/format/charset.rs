//! Encodings of text other than UTF-8, in which every character arrives or is refused.
//!
//! The tables are those of the Encoding Standard, with three differences, since a value must come
//! back as it was with anybody's reader: `iso-8859-1` and `us-ascii` are what their names say and
//! not windows-1252; the places that a Windows code page leaves empty stand for nothing; and a
//! character that would come back as another one cannot be written.

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::error::{Error, Result};

/// An encoding, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset {
    name: &'static str,
    table: Table,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Utf8,
    Utf16Le,
    Utf16Be,
    /// The first so many characters of Unicode, one byte each.
    First(u32),
    /// A table of the standard; whether the C1 controls are none of its characters.
    Standard(&'static Encoding, bool),
}

/// What stands in UTF-8 for bytes that mean nothing: a byte that UTF-8 does not have.
pub const WRONG: u8 = 0xff;

impl Charset {
    /// The encoding called `name`, in capitals or not.
    ///
    /// # Errors
    /// `config` for a name that is none, and for an encoding in which a text means another thing
    /// from place to place.
    pub fn named(name: &str) -> Result<Charset> {
        const DOING: &str = "find the encoding";
        const KNOWN: &str = "Use a name of the Encoding Standard, like utf-8, utf-16le, \
                             windows-1252 or iso-8859-15; or iso-8859-1, or us-ascii.";
        let plain = |name, table| Ok(Charset { name, table });
        match name.to_ascii_lowercase().as_str() {
            "iso-8859-1" => return plain("iso-8859-1", Table::First(0x100)),
            "us-ascii" => return plain("us-ascii", Table::First(0x80)),
            _ => {}
        }
        let Some(standard) = Encoding::for_label_no_replacement(name.as_bytes()) else {
            return Err(Error::config(DOING, format!("no encoding is called `{name}`")).help(KNOWN));
        };
        let its = standard.name();
        if !its.eq_ignore_ascii_case(name) {
            // An alias may mean another table elsewhere: latin5, iso-8859-9, x-sjis.
            return Err(Error::config(DOING, format!("`{name}` may mean more than one encoding"))
                .help(format!("If this is what you mean, write {}.", its.to_lowercase())));
        }
        if matches!(its, "ISO-2022-JP" | "x-user-defined") {
            return Err(Error::config(DOING, format!("{its} cannot be used")).help(KNOWN));
        }
        let table = if standard == UTF_8 {
            Table::Utf8
        } else if standard == UTF_16LE {
            Table::Utf16Le
        } else if standard == UTF_16BE {
            Table::Utf16Be
        } else {
            Table::Standard(standard, its.starts_with("windows-"))
        };
        plain(its, table)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is UTF-8, which needs no change.
    pub fn is_utf8(&self) -> bool {
        self.table == Table::Utf8
    }

    /// Whether it has all characters.
    pub fn is_whole(&self) -> bool {
        matches!(self.table, Table::Utf8 | Table::Utf16Le | Table::Utf16Be)
    }

    /// Appends `text` to `out`, and says whether all of it could be written. Where not, nothing was
    /// appended.
    pub fn encode(&self, text: &str, out: &mut Vec<u8>) -> bool {
        match self.table {
            Table::Utf8 => out.extend_from_slice(text.as_bytes()),
            Table::Utf16Le => out.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
            Table::Utf16Be => out.extend(text.encode_utf16().flat_map(u16::to_be_bytes)),
            Table::First(limit) => {
                if text.chars().any(|c| u32::from(c) >= limit) {
                    return false;
                }
                out.extend(text.chars().map(|c| u32::from(c) as u8));
            }
            Table::Standard(standard, without_c1) => {
                if without_c1 && text.chars().any(is_c1) {
                    return false;
                }
                let (bytes, _, replaced) = standard.encode(text);
                if replaced {
                    return false;
                }
                if !text.is_ascii() || bytes != text.as_bytes() {
                    // Some tables write two characters as one.
                    let (back, wrong) = standard.decode_without_bom_handling(&bytes);
                    if wrong || back != text {
                        return false;
                    }
                }
                out.extend_from_slice(&bytes);
            }
        }
        true
    }

    /// Whether all of `text` can be written.
    pub fn has(&self, text: &str) -> bool {
        self.is_whole() || text.is_ascii() && self.has_ascii() || {
            self.encode(text, &mut Vec::new())
        }
    }

    /// Whether ASCII is written as it is. In Shift_JIS and others a character beyond it takes the
    /// place of one when it is read, never the other way round.
    fn has_ascii(&self) -> bool {
        match self.table {
            Table::Standard(standard, _) => standard.is_ascii_compatible(),
            _ => true,
        }
    }

    /// The bytes by which a file says at its beginning which of the encodings of Unicode it has.
    pub fn mark(&self) -> &'static [u8] {
        match self.table {
            Table::Utf8 => b"\xef\xbb\xbf",
            Table::Utf16Le => b"\xff\xfe",
            Table::Utf16Be => b"\xfe\xff",
            Table::First(_) | Table::Standard(..) => b"",
        }
    }

    /// A reader of a whole text, piece by piece.
    pub fn reader(&self) -> Unpacker {
        let decoder = match self.table {
            Table::Utf8 | Table::First(_) => None,
            Table::Utf16Le => Some(UTF_16LE.new_decoder_without_bom_handling()),
            Table::Utf16Be => Some(UTF_16BE.new_decoder_without_bom_handling()),
            Table::Standard(standard, _) => Some(standard.new_decoder_without_bom_handling()),
        };
        Unpacker { table: self.table, decoder }
    }
}

fn is_c1(c: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&c)
}

/// Turns bytes into UTF-8; what cannot be understood becomes [`WRONG`].
pub struct Unpacker {
    table: Table,
    decoder: Option<Decoder>,
}

impl Unpacker {
    /// Appends to `out` what `bytes` mean. `last`: nothing follows.
    pub fn push(&mut self, mut bytes: &[u8], last: bool, out: &mut Vec<u8>) {
        let from = out.len();
        let Some(decoder) = &mut self.decoder else {
            match self.table {
                Table::First(limit) => {
                    for byte in bytes {
                        if u32::from(*byte) < limit {
                            out.extend_from_slice(
                                char::from(*byte).encode_utf8(&mut [0; 4]).as_bytes(),
                            );
                        } else {
                            out.push(WRONG);
                        }
                    }
                }
                _ => out.extend_from_slice(bytes),
            }
            return;
        };
        loop {
            let at = out.len();
            let room = decoder
                .max_utf8_buffer_length_without_replacement(bytes.len())
                .unwrap_or(bytes.len());
            out.resize(at + room.max(16), 0);
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(bytes, &mut out[at..], last);
            out.truncate(at + written);
            bytes = bytes.get(read..).unwrap_or_default();
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => out.push(WRONG),
            }
        }
        if matches!(self.table, Table::Standard(_, true)) {
            // C1 controls are C2 80 to C2 9F in UTF-8.
            for at in from..out.len().saturating_sub(1) {
                if out[at] == 0xc2 && (0x80..=0x9f).contains(&out[at + 1]) {
                    out[at] = WRONG;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(charset: &str, text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        Charset::named(charset).unwrap().encode(text, &mut out).then_some(out)
    }

    fn text(charset: &str, bytes: &[u8]) -> Vec<u8> {
        let mut reader = Charset::named(charset).unwrap().reader();
        let mut out = Vec::new();
        for byte in bytes {
            reader.push(&[*byte], false, &mut out);
        }
        reader.push(b"", true, &mut out);
        out
    }

    #[test]
    fn characters_arrive_or_are_refused() {
        for (charset, char, expected) in [
            ("windows-1252", "€", Some(&b"\x80"[..])),
            ("windows-1252", "\u{81}", None),
            ("windows-1252", "Ω", None),
            ("iso-8859-1", "é\u{80}", Some(b"\xe9\x80")),
            ("iso-8859-1", "€", None),
            ("ISO-8859-15", "€", Some(b"\xa4")),
            ("us-ascii", "é", None),
            ("utf-16le", "a😀", Some(b"a\0\x3d\xd8\0\xde")),
            ("utf-16be", "a", Some(b"\0a")),
            ("shift_jis", "¥", None),
            ("shift_jis", "\\", Some(b"\\")),
            ("gb18030", "😀", Some(b"\x94\x39\xfc\x36")),
        ] {
            assert_eq!(bytes(charset, char).as_deref(), expected, "{charset} {char}");
            assert_eq!(Charset::named(charset).unwrap().has(char), expected.is_some());
            if let Some(expected) = expected {
                assert_eq!(text(charset, expected), char.as_bytes(), "{charset} {char}");
            }
        }
    }

    #[test]
    fn what_means_nothing_is_marked_in_its_place() {
        assert_eq!(text("windows-1252", b"a\x81b"), b"a\xff\x81b");
        assert!(std::str::from_utf8(&text("us-ascii", b"\xe9")).is_err());
        assert_eq!(text("utf-16le", b"a\0\0\xd8b\0"), b"a\xffb");
        assert_eq!(text("utf-16le", b"a\0b"), b"a\xff");
        assert_eq!(text("euc-jp", b"\x8fa"), b"\xffa");
    }

    #[test]
    fn names_that_may_mean_another_table_are_refused() {
        for name in ["latin1", "cp1252", "iso-8859-9", "utf8", "iso-2022-jp", "replacement", "x"] {
            assert!(Charset::named(name).is_err(), "{name}");
        }
        let error = Charset::named("cp1252").unwrap_err();
        assert!(error.advice().unwrap().contains("windows-1252"));
    }
}
