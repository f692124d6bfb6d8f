//! How far something is: a bar where a terminal shows it, else a line every five seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{plain, thousands};
use super::told;

/// How often a line is written.
const EVERY: Duration = Duration::from_secs(5);

/// Progress on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    told: Instant,
    total: Option<u64>,
    what: &'static str,
}

impl Progress {
    /// Of `total` things (runs, rows, letters), or of nobody knows how many.
    pub fn new(total: Option<u64>, what: &'static str) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) if total > 1 => {
                    (ProgressBar::new(total), "{bar:30} {pos}/{len}  {elapsed}  {wide_msg}")
                }
                _ => (ProgressBar::new_spinner(), "{spinner} {elapsed}  {wide_msg}"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Progress { bar, told: Instant::now(), total, what }
    }

    /// So many are done; `now` says what is going on.
    pub fn at(&mut self, done: u64, now: &str) {
        let now = plain(now);
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(now);
            }
            None if self.told.elapsed() >= EVERY => {
                self.told = Instant::now();
                let of = self.total.map(|total| format!(" of {}", thousands(total)));
                let (done, of) = (thousands(done), of.unwrap_or_default());
                told(&format!("{done}{of} {}  {now}\n", self.what));
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
