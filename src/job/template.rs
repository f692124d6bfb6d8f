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
        let (mut pieces, mut mistakes) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            let braced = tail
                .strip_prefix('{')
                .and_then(|tail| tail.split_once('}'))
                .filter(|(inner, _)| !inner.contains('{'));
            let Some((inner, after)) = braced else {
                let error = wrong("a brace lacks its other")
                    .help("A placeholder is written {name} or {window_start:%Y-%m-%d}.");
                mistakes.push(Mistake { fault: Fault::Path, error });
                rest = "";
                break;
            };
            match piece(inner, also) {
                Ok(piece) => pieces.push(piece),
                Err(mistake) => mistakes.push(mistake),
            }
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
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

/// The piece that a placeholder is.
fn piece<'a>(inner: &'a str, also: &[&str]) -> Result<Piece, Mistake<'a>> {
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
        "export" => Piece::Export,
        "run" => Piece::Run,
        _ if also.contains(&name) => Piece::Value(name.to_owned()),
        _ => {
            let known: Vec<_> =
                BUILT_IN.iter().chain(also).map(|known| format!("{{{known}}}")).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::param::Value;
    use crate::job::window;
    use proptest::prelude::*;

    fn render(text: &str, country: &str, windowed: bool) -> Result<String> {
        let zone = window::zone("Europe/Oslo")?;
        let values: Bindings = [
            ("country".to_owned(), Value::String(country.to_owned())),
            ("part".to_owned(), Value::Int64(7)),
        ]
        .into();
        let window = Window {
            start: "2026-11-18T23:00:00Z".parse().unwrap(),
            end: "2026-11-19T23:00:00Z".parse().unwrap(),
        };
        Template::parse(text, &["country", "part"])?.render(&Context {
            export: "daily-orders",
            run: "01932f6e-0000-7000-8000-0000000000aa".parse().unwrap(),
            window: windowed.then_some(window),
            zone: &zone,
            values: &values,
        })
    }

    #[test]
    fn times_are_of_the_exports_zone() {
        for (text, expected) in [
            ("orders", "orders"),
            ("orders/day={window_start:%Y-%m-%d}/{country}", "orders/day=2026-11-19/SE"),
            ("{window_start:%Y/%m/%d}", "2026/11/19"),
            ("{window_end}", "2026-11-20T000000+0100"),
            ("{export}/{run}", "daily-orders/01932f6e-0000-7000-8000-0000000000aa"),
            ("ORDERS_{window_start:%Y%m%d}-{part}.csv.gz", "ORDERS_20261119-7.csv.gz"),
        ] {
            assert_eq!(render(text, "SE", true).unwrap(), expected);
        }
    }

    #[test]
    fn values_stay_in_their_place() {
        for (value, expected) in [
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a/b", "a%2Fb"),
            ("a\\b\n", "a%5Cb%0A"),
            ("_manifest.json", "%5Fmanifest.json"),
            ("%2E", "%252E"),
            ("Ål", "%C3%85l"),
            ("_Manifest.json", "%5FManifest.json"),
            ("a-b", "a-b"),
        ] {
            assert_eq!(render("{country}", value, true).unwrap(), expected);
        }
        let error = render("a/{country}/b", "", true).unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.to_string().contains("the value of `country` is empty"), "{error}");
        assert!(render("_{country}", "manifest.json", true).is_err());
        let long = |template: &str, length: usize| {
            render(template, &"x".repeat(length), true).map_err(|error| error.to_string())
        };
        assert!(long("a/{country}", 255).is_ok());
        assert!(long("a/{country}", 256).unwrap_err().contains("has 256 bytes; at most 255"));
        let deep = "{country}/{country}/{country}/{country}/{country}";
        assert!(long(deep, 255).unwrap_err().contains("has 1279 bytes; at most 1024"));
        assert_eq!(render("{country}-{part}", "no-se", true).unwrap(), "no%2Dse-7");
    }

    #[test]
    fn a_run_without_window_has_no_window_in_its_path() {
        let error = render("{window_start}", "SE", false).unwrap_err();
        assert_eq!(error.class(), Class::Permanent);
        assert!(error.to_string().contains("the run has none"));
        assert_eq!(render("all/{country}", "SE", false).unwrap(), "all/SE");
    }

    #[test]
    fn mistakes_are_found_before_any_run() {
        for (text, words) in [
            ("", "is empty"),
            ("/orders", "begins with `/`"),
            ("orders/", "is empty"),
            ("a//b", "is empty"),
            ("a/../b", "no names"),
            ("a\\b", "backslash"),
            ("a/_manifest.json", "Longshore's own"),
            ("{contry}", "no placeholder here"),
            ("{}", "no placeholder here"),
            ("{country:%Y}", "takes no format"),
            ("{window_start:%!}", "no time format"),
            ("{window_start:%n}", "control character"),
            ("{window_start:%Y", "lacks its other"),
            ("a}", "lacks its other"),
            ("{{country}}", "lacks its other"),
            ("{country}{country}", "nothing tells where `{country}` ends"),
        ] {
            let error = Template::parse(text, &["country"]).unwrap_err();
            assert_eq!(error.class(), Class::Config, "{text}");
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
        let error = Template::parse("{contry}", &["country"]).unwrap_err();
        assert_eq!(
            error.advice(),
            Some("Known are: {window_start}, {window_end}, {run}, {export}, {country}.")
        );
    }

    #[test]
    fn it_tells_what_it_uses() {
        let template = Template::parse("{export}/{window_start:%Y}/{part}", &["part"]).unwrap();
        assert!(template.placeholders().eq(["export", "window_start", "part"]));
    }

    /// Values as they come, and as nobody would give them but to do harm.
    fn values() -> impl Strategy<Value = String> {
        let odd =
            ["..", ".", "_manifest.json", "_MANIFEST", "%2E", "%", "a/../b", "\u{0}", "-", "é"];
        prop_oneof![
            any::<String>(),
            "[-_.~%/=xyA02]{0,8}",
            prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
            (250_usize..2000).prop_map(|length| "x".repeat(length)),
        ]
    }

    proptest! {
        /// Whatever the values are, the path is one below its folder, and tells them.
        #[test]
        fn no_value_leaves_its_place_or_takes_that_of_others(
            text in prop::sample::select(vec![
                "a/{x}/{y}", "{x}-{y}", "p={x}.{y}_z", "{x}xy{y}", "{x}=-{y}/b", "{x}~~{y}.csv",
                "{x}/{window_start:%F}-{y}", "in_{x}_{window_start:%Y%m%d}-{y}", "{x}/_{y}/{run}",
                "{x}_{window_start:%A}={y}",
            ]),
            one in (values(), values()),
            two in (values(), values()),
        ) {
            let template = Template::parse(text, &["x", "y"]).unwrap();
            let zone = window::zone("Europe/Oslo").unwrap();
            let at = |text: &str| text.parse().unwrap();
            let (start, end) = (at("2026-11-18T23:00:00Z"), at("2026-11-19T23:00:00Z"));
            let render = |(x, y): &(String, String)| {
                let named = [("x", x), ("y", y)];
                let values: Bindings = named
                    .map(|(name, value)| (name.to_owned(), Value::String(value.clone())))
                    .into();
                template.render(&Context {
                    export: "orders",
                    run: RunId(uuid::Uuid::nil()),
                    window: Some(Window { start, end }),
                    zone: &zone,
                    values: &values,
                })
            };
            match render(&one) {
                Ok(path) => {
                    let segments: Vec<_> = path.split('/').collect();
                    prop_assert_eq!(segments.len(), text.split('/').count());
                    for segment in segments {
                        prop_assert!(!segment.is_empty() && !segment.starts_with('.'));
                        prop_assert!(!segment.to_ascii_lowercase().starts_with("_manifest"));
                        prop_assert!(segment.len() <= 255);
                    }
                    prop_assert!(path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic()));
                    if one != two {
                        prop_assert_ne!(render(&two).ok(), Some(path));
                    }
                }
                Err(error) => {
                    // Encoded each byte may become three.
                    let long = one.0.len() + one.1.len() > 70;
                    let own = text.contains("_{y}") && one.1.to_ascii_lowercase().starts_with("manifest");
                    let empty = one.0.is_empty() || one.1.is_empty();
                    prop_assert!(empty || own || long, "{error}");
                    if empty {
                        prop_assert!(error.to_string().contains("is empty"), "{error}");
                    }
                }
            }
        }
    }
}
