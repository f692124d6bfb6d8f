//! Paths of files to read: templates in which `*` stands for any part of one name and `**` for any
//! folders.
//!
//! Somebody else has named these files. So values stand in the path as they are, and one that would
//! reach beyond its name is refused.

use jiff::tz::TimeZone;

use super::{Fault, Mistake, Part, Piece, pieces, sample, split, time};
use crate::error::{Error, Result};
use crate::job::Window;
use crate::job::param::{self, Bindings};

/// A path to read, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

impl Pattern {
    /// What is understood of a text that may use the window and the names in `params`, and everything
    /// that is wrong with it.
    pub fn read<'a>(text: &'a str, params: &[&str]) -> (Pattern, Vec<Mistake<'a>>) {
        let (pieces, mut mistakes) = pieces(text, params, &param::WINDOW);
        let pattern = Pattern { text: text.to_owned(), pieces };
        if mistakes.is_empty()
            && let Err(error) = pattern.check()
        {
            mistakes.push(Mistake { fault: Fault::Path, error });
        }
        (pattern, mistakes)
    }

    /// The path of a run. `values` are those of its params.
    ///
    /// # Errors
    /// `permanent`: it uses the window of a run without one, or a value is no part of a name.
    pub fn render(
        &self,
        window: Option<Window>,
        zone: &TimeZone,
        values: &Bindings,
    ) -> Result<String> {
        let wrong = |message: String| {
            Error::permanent("fill in the path", message).with("path", &self.text)
        };
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => path.push_str(text),
                Piece::Start(format) | Piece::End(format) => {
                    let window = window.ok_or_else(|| {
                        wrong("it uses the window, and the run has none".to_owned())
                            .help("Give the job a window.")
                    })?;
                    let start = matches!(piece, Piece::Start(_));
                    let at = if start { window.start } else { window.end };
                    path.push_str(&time(format, &at.to_zoned(zone.clone())).map_err(wrong)?);
                }
                Piece::Value(name) => {
                    let value = values
                        .get(name)
                        .ok_or_else(|| {
                            wrong(format!("`{{{name}}}` has no value"))
                                .help(param::advice(name, values))
                        })?
                        .to_string();
                    if value.is_empty() || value.contains(['/', '*']) || value.starts_with('.') {
                        return Err(wrong(format!(
                            "the value of `{{{name}}}` is no part of a file's name"
                        ))
                        .help(
                            "Such a value must not be empty, start with a dot, or hold / or *.",
                        ));
                    }
                    path.push_str(&value);
                }
                // No pattern has them.
                Piece::Export | Piece::Run => {}
            }
        }
        Ok(path)
    }

    /// Finds what is wrong whatever the values are.
    fn check(&self) -> Result<()> {
        let wrong = |message: String, help: &str| {
            Err(Error::config("read the path", message).with("path", &self.text).help(help))
        };
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => path.push_str(text),
                Piece::Start(format) | Piece::End(format) => match sample(format) {
                    Ok(text) => path.push_str(&text),
                    Err(why) => return wrong(why, "Write one like %Y-%m-%d."),
                },
                Piece::Export | Piece::Run | Piece::Value(_) => path.push('x'),
            }
        }
        if path.starts_with('/') {
            let message = "the path begins with `/`".to_owned();
            return wrong(message, "It is relative to the connection's url.");
        }
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            let message = "a name in the path is empty, `.` or `..`".to_owned();
            return wrong(message, "Write a path like in/*.csv.");
        }
        if path.chars().any(char::is_control) {
            return wrong("the path has a control character".to_owned(), "Leave it out.");
        }
        Ok(())
    }
}

/// The names that stand in braces in a text, without formats, whatever they are.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    split(text).filter_map(|part| match part? {
        Part::Plain(_) => None,
        Part::Braced(inner) => Some(inner.split_once(':').map_or(inner, |(name, _)| name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::param::Value;
    use crate::job::window;

    fn render(text: &str, value: &str, windowed: bool) -> Result<String> {
        let (pattern, mistakes) = Pattern::read(text, &["c"]);
        if let Some(mistake) = mistakes.into_iter().next() {
            return Err(mistake.error);
        }
        let values = Bindings::from([("c".to_owned(), Value::String(value.to_owned()))]);
        let window = Window {
            start: "2026-11-18T23:00:00Z".parse().unwrap(),
            end: "2026-11-19T23:00:00Z".parse().unwrap(),
        };
        let zone = window::zone("Europe/Oslo").unwrap();
        pattern.render(windowed.then_some(window), &zone, &values)
    }

    #[test]
    fn times_are_of_the_exports_zone_and_values_as_they_are() {
        for (text, expected) in [
            ("in/{c}-*.csv", "in/Ål+1-*.csv"),
            ("in/{window_start:%Y%m%d}/**/{c}{c}.csv", "in/20261119/**/Ål+1Ål+1.csv"),
            ("{window_end:%Y/%m}/x_{window_start:%d}.csv", "2026/11/x_19.csv"),
            ("{window_start}", "2026-11-19T000000+0100"),
            ("_manifest/*", "_manifest/*"),
        ] {
            assert_eq!(render(text, "Ål+1", true).unwrap(), expected);
        }
        assert_eq!(render("in/{c}", "x", false).unwrap(), "in/x");
        let error = render("in/{window_start:%Y}", "x", false).unwrap_err();
        assert_eq!(error.advice(), Some("Give the job a window."));
        for bad in ["..", ".x", "a/b", "*", ""] {
            let error = render("in/{c}.csv", bad, true).unwrap_err();
            assert!(error.to_string().contains("no part of a file's name"), "{bad}: {error}");
        }
    }

    #[test]
    fn mistakes_are_found_before_any_run() {
        for (bad, words) in [
            ("", "is empty"),
            ("/in/x.csv", "begins with `/`"),
            ("in//x.csv", "is empty"),
            ("in/", "is empty"),
            ("../x.csv", "`..`"),
            ("in/{c", "lacks its other"),
            ("in/c}", "lacks its other"),
            ("in/\n", "control character"),
            ("in/{run}", "no placeholder here"),
            ("in/{export}", "no placeholder here"),
            ("in/{d}", "no placeholder here"),
            ("in/{c:%Y}", "takes no format"),
            ("in/{window_start:%!}", "no time format"),
        ] {
            let error = render(bad, "x", true).unwrap_err();
            assert!(error.to_string().contains(words), "{bad}: {error}");
        }
        assert!(names("{a}/{window_start:%Y}-{b").eq(["a", "window_start"]));
    }
}
