//! How results are printed: tables for people, one JSON object a line for programs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Failure;
use crate::config;
use crate::connect::{Connection, System};
use crate::error::Error;

/// Between two columns.
const GAP: usize = 2;
/// The last column is not cut shorter than this, however narrow the terminal.
const NARROW: usize = 20;

/// Standard output, as this command uses it.
pub struct Out {
    /// Whether programs read it.
    pub json: bool,
    terminal: bool,
    color: bool,
}

impl Out {
    /// Colour only on a terminal, and where nobody said otherwise.
    pub fn new(json: bool) -> Out {
        let terminal = io::stdout().is_terminal();
        Out { json, terminal, color: terminal && !config::no_color() }
    }

    /// Whether people look at it directly.
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    /// Prints text and a line break.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_ref().as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// Ends what a dry run tells to people.
    pub fn nothing_changed(&self) -> Result<(), Failure> {
        self.line("Nothing was changed. Run again without --dry-run.")
    }

    /// Prints one object on a line of its own.
    pub fn object(&self, object: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(object).map_err(|cause| {
            Error::permanent("print the result", "it has no form in JSON").caused_by(cause)
        })?;
        self.line(text)
    }

    /// Prints a table without lines. On a terminal the last column is cut to fit.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = Table::new();
        let width = if self.terminal { table.width() } else { None };
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        let room = width.map(|width| room_of_last(header, &rows, usize::from(width)));
        table.set_header(header.iter().copied());
        let last = header.len().saturating_sub(1);
        for row in rows {
            table.add_row(row.into_iter().enumerate().map(|(index, text)| {
                let text = match room {
                    Some(room) if index == last => cut(&text, room),
                    _ => text,
                };
                let color = header.get(index).and_then(|name| color(name, &text));
                match color {
                    Some(color) if self.color => Cell::new(text).fg(color),
                    _ => Cell::new(text),
                }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP as u16));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// How wide the last column may be.
fn room_of_last(header: &[&str], rows: &[Vec<String>], width: usize) -> usize {
    let others = header.len().saturating_sub(1);
    let taken: usize = (0..others)
        .map(|index| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(header.get(index).map_or(0, |name| name.len())) + GAP
        })
        .sum();
    width.saturating_sub(taken + GAP).max(NARROW)
}

fn color(column: &str, word: &str) -> Option<Color> {
    if !matches!(column, "STATE" | "OUTCOME" | "CHANGE" | "LEVEL") {
        return None;
    }
    match word {
        "done" | "new" | "ok" => Some(Color::Green),
        "dead" | "expired" | "conflict" | "retired" | "error" | "away" => Some(Color::Red),
        "waiting" | "running" | "fanned" | "committing" | "closing" | "changed" | "warning" => {
            Some(Color::Yellow)
        }
        _ => None,
    }
}

/// The text on one line, without what a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text, ending in `…` where it had to be cut.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Where a delivery's target is: for files an address, as `longshore verify` takes it.
pub fn place(target: &str, connections: &BTreeMap<String, Arc<Connection>>) -> String {
    let found =
        target.split_once('/').and_then(|(name, within)| Some((connections.get(name)?, within)));
    match found {
        Some((connection, folder)) if connection.kind == System::Files => {
            let url = connection.url.trim_end_matches('/');
            match url.starts_with("file:") {
                // These are percent-encoded.
                true => format!("{url}/{}", folder.replace('%', "%25")),
                false => format!("{url}/{folder}"),
            }
        }
        Some((connection, table)) if connection.kind != System::Discard => {
            format!("table {table} of {}", connection.name)
        }
        _ => target.to_owned(),
    }
}

/// `1,204,331`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`
pub fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `6.2 s`, `4 min 05 s`, `2 h 10 min`
pub fn took(duration: SignedDuration) -> String {
    let duration = Duration::try_from(duration).unwrap_or_default();
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `in 40 s`, `in 12 min`; rounded up, so that it has happened by then.
pub fn ahead(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.duration_since(now).as_millis().max(0).unsigned_abs().div_ceil(1000);
    match seconds {
        0..120 => format!("in {seconds} s"),
        120..7200 => format!("in {} min", seconds.div_ceil(60)),
        7200..172_800 => format!("in {} h", seconds.div_ceil(3600)),
        _ => format!("in {} d", seconds.div_ceil(86_400)),
    }
}

/// A time of this machine's clock: of today `04:15:04`, else with the day.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = TimeZone::system();
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let format = if at.date() == now.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_204_331), "1,204,331");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(took(SignedDuration::from_millis(6_240)), "6.2 s");
        assert_eq!(took(SignedDuration::from_secs(245)), "4 min 05 s");
        assert_eq!(took(SignedDuration::from_secs(7_800)), "2 h 10 min");
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let after = |seconds| ahead(now + SignedDuration::from_secs(seconds), now);
        assert_eq!(after(40), "in 40 s");
        assert_eq!(after(601), "in 11 min");
        assert_eq!(after(-5), "in 0 s");
    }

    #[test]
    fn a_target_becomes_a_place() {
        let connection = |name: &str, kind: &str, url: &str| {
            let mut one: Connection =
                serde_json::from_value(serde_json::json!({"type": kind, "url": url})).unwrap();
            one.name = name.to_owned();
            (name.to_owned(), Arc::new(one))
        };
        let connections = BTreeMap::from([
            connection("out", "files", "file:out/mine"),
            connection("lake", "files", "s3://acme/exports/"),
            connection("dw", "postgres", "postgres://h/d"),
            connection("null", "discard", "discard:"),
        ]);
        for (target, expected) in [
            ("out/orders/100%", "file:out/mine/orders/100%25"),
            ("lake/orders", "s3://acme/exports/orders"),
            ("dw/sales.orders", "table sales.orders of dw"),
            ("null/orders", "null/orders"),
            ("gone/orders", "gone/orders"),
        ] {
            assert_eq!(place(target, &connections), expected);
        }
    }

    #[test]
    fn texts_of_others_stay_on_their_line() {
        assert_eq!(plain("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn the_last_column_gets_what_the_others_leave() {
        let rows = vec![vec!["12345678".to_owned(), "long".repeat(50)]];
        assert_eq!(room_of_last(&["RUN", "WHEN"], &rows, 80), 80 - 8 - 2 * GAP);
        assert_eq!(room_of_last(&["RUN", "WHEN"], &rows, 5), NARROW);
    }
}
