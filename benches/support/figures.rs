//! Figures of several rounds, the bars that they are held against, and the page they stand on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Done;

/// What was found in each round, by what it is called.
pub struct Rounds<T>(BTreeMap<&'static str, Vec<T>>);

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Rounds(BTreeMap::new())
    }
}

impl<T> Rounds<T> {
    pub fn add(&mut self, name: &'static str, found: T) {
        self.0.entry(name).or_default().push(found);
    }

    /// Nothing, where it was left out.
    pub fn of(&self, name: &str) -> &[T] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

/// How often the one contains the other, round by round: a server's own speed drifts, and only what
/// was measured soon after each other can be compared.
pub fn ratios(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| one / other).collect()
}

/// The middle, the least and the greatest of some measurements.
pub struct Spread {
    pub median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` where nothing was measured.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let upper = *sorted.get(half)?;
        let median = match sorted.len() % 2 {
            1 => upper,
            _ => (sorted.get(half.saturating_sub(1))? + upper) / 2.0,
        };
        Some(Spread { median, min, max })
    }

    /// `5.21 (5.02–5.60)`
    pub fn show(&self, digits: usize) -> String {
        let [median, min, max] =
            [self.median, self.min, self.max].map(|value| number(value, digits));
        format!("{median} ({min}–{max})")
    }
}

/// The median with the least and the greatest, or a dash where nothing was measured.
pub fn shown(values: &[f64], digits: usize) -> String {
    Spread::of(values).map_or("–".to_owned(), |spread| spread.show(digits))
}

/// In what a bar is told.
#[derive(Clone, Copy)]
pub struct Unit {
    digits: usize,
    word: &'static str,
}

pub const TIMES: Unit = Unit { digits: 2, word: "" };
pub const MEBIBYTES: Unit = Unit { digits: 0, word: " MiB" };
pub const JOBS: Unit = Unit { digits: 0, word: " jobs/s" };
pub const MILLISECONDS: Unit = Unit { digits: 1, word: " ms" };

/// What a piece of work is held against.
pub struct Bar {
    work: &'static str,
    sign: char,
    bar: f64,
    beyond: Option<f64>,
    unit: Unit,
}

/// The head of a table of bars.
pub const BARS: &str = "| work | bar | beyond it | measured | |\n|---|---|---|---|---|\n";

impl Bar {
    pub fn at_most(work: &'static str, bar: f64, unit: Unit) -> Bar {
        Bar { work, sign: '≤', bar, beyond: None, unit }
    }

    pub fn at_least(work: &'static str, bar: f64, unit: Unit) -> Bar {
        Bar { work, sign: '≥', bar, beyond: None, unit }
    }

    /// What is better than the bar asks for.
    pub fn beyond(self, beyond: f64) -> Bar {
        Bar { beyond: Some(beyond), ..self }
    }

    /// The row of the table.
    pub fn row(&self, measured: &[f64]) -> String {
        let Unit { digits, word } = self.unit;
        let mark = |mark: f64| format!("{} {}{word}", self.sign, number(mark, digits));
        let verdict = match Spread::of(measured) {
            None => "not measured",
            Some(Spread { median, .. }) if !self.holds(median, self.bar) => "not met",
            Some(Spread { median, .. }) => match self.beyond {
                Some(beyond) if self.holds(median, beyond) => "met, and beyond",
                _ => "met",
            },
        };
        format!(
            "| {} | {} | {} | {} | {verdict} |\n",
            self.work,
            mark(self.bar),
            self.beyond.map(mark).unwrap_or_default(),
            shown(measured, digits),
        )
    }

    fn holds(&self, median: f64, mark: f64) -> bool {
        if self.sign == '≤' { median <= mark } else { median >= mark }
    }
}

/// A number, with the thousands of a whole one parted.
pub fn number(value: f64, digits: usize) -> String {
    if digits == 0 { grouped(value) } else { format!("{value:.digits$}") }
}

/// A whole number with its thousands parted.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// This machine, this day and this Longshore, in one line.
pub fn circumstances() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let field = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let models = || cpus.lines().filter(|line| line.starts_with("model name"));
    let model = models().next().and_then(field).unwrap_or_else(|| "unknown processor".to_owned());
    let kib = memory.lines().next().and_then(field).unwrap_or_default();
    let kib = kib.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    format!(
        "Measured on {} with Longshore {}, on {} cores of {model}, {:.0} GiB of memory, Linux {}",
        jiff::Zoned::now().date(),
        env!("CARGO_PKG_VERSION"),
        models().count(),
        kib / f64::from(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// Puts results into `docs/benchmarks.md` in the place of the last ones. It is done after each
/// round, so that what was measured is not lost where a later one fails.
pub fn publish(section: &str, text: &str) -> Done {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let old = fs::read_to_string(&page)?;
    let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->"));
    let parts = old.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or_else(|| format!("docs/benchmarks.md lacks {begin}"))?;
    fs::write(&page, format!("{before}{begin}{}\n{end}{after}", text.trim_end()))?;
    Ok(())
}
