//! Templates of paths and file names: `daily-orders/day={window_start:%Y-%m-%d}/{country}`.
//!
//! A placeholder is `{name}`, or `{window_start:FORMAT}` with a strftime format, in the export's
//! time zone. Values are percent-encoded: all bytes but letters and digits of ASCII, `-`, `_`, `.`
//! and `~`, and a `.` or `_manifest` (in any case) at their beginning. Where another placeholder
//! follows in the same segment, so is what ends the value there: in `{a}-{b}` a `-` of `a`.
//!
//! For any values and windows it holds that
//! - the path is relative, in ASCII but for what the template itself says, and has no empty segment,
//!   no `.` or `..`, no control character, no backslash, and as many segments as the template;
//! - no segment is a name of Longshore's own;
//! - a segment has at most 255 bytes, the path at most 1,024;
//! - two tuples of values never give one path. A template for which that cannot be held is refused,
//!   like `{a}{b}`.
//!
//! What cannot be named so fails the job: an empty value, one that is too long, and one that makes a
//! name of Longshore's own together with what stands before it.
//!
//! Letters stay as they are: where a store takes `se` and `SE` for one name, so do these paths.
//! Whether two windows may have one path is for `check` to see, since it follows from the windows.

mod apart;
mod meeting;
mod pattern;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::param::Bindings;
use super::{RunId, Window};
use crate::error::{Class, Error, Result};

use apart::Adjacent;
pub use meeting::Meeting;
pub use pattern::{Pattern, names};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// How a window's instant is written where the template says nothing.
const FORMAT: &str = "%Y-%m-%dT%H%M%S%z";
/// What object stores take at the most.
const LONGEST: usize = 1024;
/// What file systems take at the most between two `/`.
const LONGEST_SEGMENT: usize = 255;
/// The placeholders that every template may use.
pub const BUILT_IN: [&str; 4] = ["window_start", "window_end", "run", "export"];

/// A path with placeholders, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
    /// Of each piece that is a value: what is encoded in it since it ends there.
    ends: Vec<Option<char>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Start(String),
    End(String),
    Export,
    Run,
    Value(String),
}

/// Something that keeps a text from being a template.
#[derive(Debug)]
pub struct Mistake<'a> {
    /// What it is.
    pub fault: Fault<'a>,
    /// The same in words: of class `config`.
    pub error: Error,
}

/// What can be wrong with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault<'a> {
    /// Nothing fills the placeholder of this name.
    Unknown(&'a str),
    /// The placeholder of this name takes no format, or not this one.
    Format(&'a str),
    /// A brace lacks its other, or what comes of it is no path.
    Path,
}

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `{export}`.
    pub export: &'a str,
    /// `{run}`.
    pub run: RunId,
    /// `{window_start}` and `{window_end}`.
    pub window: Option<Window>,
    /// The export's time zone.
    pub zone: &'a TimeZone,
    /// The others, by name.
    pub values: &'a Bindings,
}

impl Template {
    /// Understands a template. Besides the window, `{export}` and `{run}` it may use the names in
    /// `also`: the export's params, and what its place adds, like `part`.
    ///
    /// # Errors
    /// `config`: an unknown placeholder, a bad format, a brace without its other, or a path that
    /// is not relative, or has an empty segment, `.` or `..`.
    pub fn parse(text: &str, also: &[&str]) -> Result<Template> {
        let (template, mistakes) = Template::read(text, also);
        match mistakes.into_iter().next() {
            None => Ok(template),
            Some(mistake) => Err(mistake.error.with("template", format!("`{text}`"))),
        }
    }

    /// What [`Template::parse`] understands of a text, and everything that is wrong with it.
    pub fn read<'a>(text: &'a str, also: &[&str]) -> (Template, Vec<Mistake<'a>>) {
        let (pieces, mut mistakes) = pieces(text, also, &BUILT_IN);
        let mut template = Template { text: text.to_owned(), pieces, ends: Vec::new() };
        if mistakes.is_empty()
            && let Err(why) = template.check_sample()
        {
            mistakes.push(Mistake { fault: Fault::Path, error: wrong(why) });
        }
        match template.ends() {
            Ok(ends) => template.ends = ends,
            Err(Adjacent(one, two)) if mistakes.is_empty() => {
                let why = format!("nothing tells where `{{{one}}}` ends and `{{{two}}}` begins");
                let error = wrong(why).help(format!(
                    "Write something between them, like {{{one}}}-{{{two}}}, or different values \
                     may have one path."
                ));
                mistakes.push(Mistake { fault: Fault::Path, error });
            }
            Err(_) => {}
        }
        (template, mistakes)
    }

    /// The names that it uses, in order.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Start(_) => Some("window_start"),
            Piece::End(_) => Some("window_end"),
            Piece::Export => Some("export"),
            Piece::Run => Some("run"),
            Piece::Value(name) => Some(name),
        })
    }

    /// The path, relative and with `/` between its segments.
    ///
    /// # Errors
    /// `permanent`: it uses the window of a run without one, or a value makes it no path.
    pub fn render(&self, context: &Context) -> Result<String> {
        let wrong = |why: String| {
            Error::new(Class::Permanent, "name the delivery's place", why)
                .with("template", format!("`{}`", self.text))
        };
        let mut path = String::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Literal(text) => path.push_str(text),
                Piece::Start(format) | Piece::End(format) => {
                    let window = context.window.ok_or_else(|| {
                        wrong("it uses the window, and the run has none".to_owned())
                            .help("Give the job a window, or use {run} in the path.")
                    })?;
                    let start = matches!(piece, Piece::Start(_));
                    let at = if start { window.start } else { window.end };
                    path.push_str(
                        &time(format, &at.to_zoned(context.zone.clone())).map_err(&wrong)?,
                    );
                }
                Piece::Export => path.push_str(context.export),
                Piece::Run => write!(path, "{}", context.run).map_err(|error| {
                    wrong("the run cannot be written".to_owned()).caused_by(error)
                })?,
                Piece::Value(name) => {
                    let value = context
                        .values
                        .get(name)
                        .ok_or_else(|| wrong(format!("`{name}` has no value")))?
                        .to_string();
                    if value.is_empty() {
                        return Err(wrong(format!("the value of `{name}` is empty"))
                            .with("param", name)
                            .help("A path needs one."));
                    }
                    path.push_str(&encode(&value, self.ends.get(at).copied().flatten()));
                }
            }
        }
        check(&path).map_err(wrong)?;
        Ok(path)
    }

    /// Finds what is wrong whatever the values are.
    fn check_sample(&self) -> Result<(), String> {
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => path.push_str(text),
                Piece::Start(format) | Piece::End(format) => path.push_str(&sample(format)?),
                Piece::Export | Piece::Run | Piece::Value(_) => path.push('x'),
            }
        }
        check(&path)
    }
}

/// A part of a text: as it stands there, or within braces.
enum Part<'a> {
    Plain(&'a str),
    Braced(&'a str),
}

/// The parts of a text; `None` for a brace without its other, which ends it.
fn split(text: &str) -> impl Iterator<Item = Option<Part<'_>>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let open = rest.find(['{', '}']).unwrap_or(rest.len());
        if open > 0 {
            let (plain, tail) = rest.split_at(open);
            rest = tail;
            return Some(Some(Part::Plain(plain)));
        }
        if rest.is_empty() {
            return None;
        }
        let braced = rest.strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let braced = braced.filter(|(inner, _)| !inner.contains('{'));
        rest = braced.map_or("", |(_, after)| after);
        Some(braced.map(|(inner, _)| Part::Braced(inner)))
    })
}

/// The pieces of a text that may use the names in `also` and some of the [`BUILT_IN`] ones, and what
/// of it is none.
fn pieces<'a>(text: &'a str, also: &[&str], built_in: &[&str]) -> (Vec<Piece>, Vec<Mistake<'a>>) {
    let (mut pieces, mut mistakes) = (Vec::new(), Vec::new());
    for part in split(text) {
        match part {
            Some(Part::Plain(text)) => pieces.push(Piece::Literal(text.to_owned())),
            Some(Part::Braced(inner)) => match piece(inner, also, built_in) {
                Ok(piece) => pieces.push(piece),
                Err(mistake) => mistakes.push(mistake),
            },
            None => {
                let error = wrong("a brace lacks its other")
                    .help("A placeholder is written {name} or {window_start:%Y-%m-%d}.");
                mistakes.push(Mistake { fault: Fault::Path, error });
            }
        }
    }
    (pieces, mistakes)
}

/// The piece that a placeholder is.
fn piece<'a>(inner: &'a str, also: &[&str], built_in: &[&str]) -> Result<Piece, Mistake<'a>> {
    let (name, format) = match inner.split_once(':') {
        Some((name, format)) => (name, Some(format)),
        None => (inner, None),
    };
    let misformed = |error: Error| Mistake { fault: Fault::Format(name), error };
    let timed = || {
        let format = format.unwrap_or(FORMAT);
        sample(format).map(|_| format.to_owned()).map_err(|why| misformed(wrong(why)))
    };
    let piece = match name {
        "window_start" => return timed().map(Piece::Start),
        "window_end" => return timed().map(Piece::End),
        "export" if built_in.contains(&name) => Piece::Export,
        "run" if built_in.contains(&name) => Piece::Run,
        _ if also.contains(&name) => Piece::Value(name.to_owned()),
        _ => {
            let known: Vec<_> =
                built_in.iter().chain(also).map(|known| format!("{{{known}}}")).collect();
            let error = wrong(format!("`{{{name}}}` is no placeholder here"))
                .help(format!("Known are: {}.", known.join(", ")));
            return Err(Mistake { fault: Fault::Unknown(name), error });
        }
    };
    if format.is_some() {
        return Err(misformed(
            wrong(format!("`{{{name}}}` takes no format"))
                .help("Only window_start and window_end do."),
        ));
    }
    Ok(piece)
}

fn wrong(why: impl Into<String>) -> Error {
    Error::config("read a path template", why)
}

/// Any time in a format.
fn sample(format: &str) -> Result<String, String> {
    time(format, &Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC))
}

fn time(format: &str, at: &Zoned) -> Result<String, String> {
    strtime::format(format, at).map_err(|error| format!("`{format}` is no time format: {error}"))
}

/// A value as it stands in a path; `end` is what ends it there.
fn encode(value: &str, end: Option<char>) -> String {
    let mut encoded = utf8_percent_encode(value, ENCODED).to_string();
    if let Some(end) = end.filter(char::is_ascii) {
        encoded = encoded.replace(end, &format!("%{:02X}", u32::from(end)));
    }
    match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None if is_own(&encoded) => encoded.replacen('_', "%5F", 1),
        None => encoded,
    }
}

/// Whether a name may be one of Longshore's own, where a store does not tell large letters from
/// small ones.
fn is_own(name: &str) -> bool {
    const OWN: &str = "_manifest";
    name.get(..OWN.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN))
}

/// Whether it is a path that names one place below its root.
fn check(path: &str) -> Result<(), String> {
    if path.len() > LONGEST {
        return Err(format!("the path has {} bytes; at most {LONGEST} are possible", path.len()));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err("the path has a control character or a backslash".to_owned());
    }
    if path.starts_with('/') {
        return Err("the path begins with `/`; it is relative to the connection's url".to_owned());
    }
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err("the path, or a part of it between two `/`, is empty".to_owned());
        }
        if segment == "." || segment == ".." {
            return Err("`.` and `..` are no names".to_owned());
        }
        if is_own(segment) {
            return Err("names that begin with `_manifest` are Longshore's own".to_owned());
        }
        if segment.len() > LONGEST_SEGMENT {
            return Err(format!(
                "a part of the path between two `/` has {} bytes; at most {LONGEST_SEGMENT} are \
                 possible",
                segment.len()
            ));
        }
    }
    Ok(())
}
