//! Processes that are timed from outside, and what the kernel's accounts tell of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::figures::{Rounds, Spread, grouped, ratios, shown};
use super::{Done, Options, variable};

/// What one process took: seconds of the clock and of the processor, and bytes at its peak where it
/// tells them.
#[derive(Clone, Copy)]
pub struct Lap {
    pub wall: f64,
    pub cpu: f64,
    pub peak: Option<f64>,
}

/// Runs a process to its end. Answers what it took, and what it said.
pub fn timed(command: &mut Command) -> Done<(Lap, Vec<u8>)> {
    let (cpu, start) = (cpu_of_children()?, Instant::now());
    let output = command.stderr(Stdio::inherit()).output()?;
    let wall = start.elapsed().as_secs_f64();
    let lap = Lap { wall, cpu: cpu_of_children()? - cpu, peak: None };
    match output.status.success() {
        true => Ok((lap, output.stdout)),
        false => Err(format!("{:?} ended with {}", command.get_program(), output.status).into()),
    }
}

/// What a process has told as JSON in its last line.
pub fn told(output: &[u8]) -> Done<Value> {
    let text = std::str::from_utf8(output)?;
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(serde_json::from_str(last.ok_or("a process has told nothing")?)?)
}

/// A number out of what a process has told.
pub fn figure(told: &Value, name: &str) -> Done<f64> {
    let found = told.get(name).and_then(Value::as_f64);
    Ok(found.ok_or_else(|| format!("{told} has no number `{name}`"))?)
}

impl Rounds<Lap> {
    pub fn walls(&self, way: &str) -> Vec<f64> {
        self.of(way).iter().map(|lap| lap.wall).collect()
    }

    /// In mebibytes.
    pub fn peaks(&self, way: &str) -> Vec<f64> {
        let peaks = self.of(way).iter().filter_map(|lap| lap.peak);
        peaks.map(|peak| peak / f64::from(1 << 20)).collect()
    }

    /// How many times as long one way took as another in the same round.
    pub fn against(&self, way: &str, other: &str) -> Vec<f64> {
        ratios(&self.walls(way), &self.walls(other))
    }

    /// What each way took, each of which had so many rows to read.
    pub fn table(&self, ways: &[&str], rows: f64) -> String {
        let mut text = "| | rows/s | wall, s | cpu of the client, s | peak resident, MiB |\n\
                        |---|---|---|---|---|\n"
            .to_owned();
        for way in ways {
            let walls = self.walls(way);
            let Some(Spread { median, .. }) = Spread::of(&walls) else { continue };
            let cpus: Vec<f64> = self.of(way).iter().map(|lap| lap.cpu).collect();
            text += &format!(
                "| {way} | {} | {} | {} | {} |\n",
                grouped(rows / median),
                shown(&walls, 2),
                shown(&cpus, 2),
                shown(&self.peaks(way), 0),
            );
        }
        text
    }
}

/// The other systems: a folder with a Python that has them.
pub struct Peers(PathBuf);

impl Peers {
    /// `None` where they are to be left out.
    pub fn find(options: &Options) -> Done<Option<Peers>> {
        if options.without_peers {
            return Ok(None);
        }
        let folder = variable("PEERS").ok_or(
            "LONGSHORE_TEST_PEERS does not say where the other systems are: `make bench` installs \
             them, as scripts/peers-env.sh does, which prints it; --without-peers leaves them out",
        )?;
        Ok(Some(Peers(PathBuf::from(folder))))
    }

    /// One of the programs in `benches/peers`.
    pub fn program(&self, name: &str) -> Command {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let mut command = Command::new(self.0.join("bin/python"));
        command.arg(programs.join(name));
        // Nothing is left behind in the checkout.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// psql, which speaks without TLS to this machine, as Longshore does. With it, it would be twice as
/// slow.
pub fn psql() -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).env("PGSSLMODE", "disable");
    command
}

/// Seconds of processor that ended and awaited children took. The kernel counts in hundredths
/// (proc(5), `cutime` and `cstime`).
pub fn cpu_of_children() -> Done<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, after) = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?;
    let ticks = |index| after.split_whitespace().nth(index).and_then(|t| t.parse::<f64>().ok());
    let (user, system) = ticks(13).zip(ticks(14)).ok_or("/proc/self/stat has no times")?;
    Ok((user + system) / 100.0)
}

/// The most memory that this process had resident at any time, in bytes (proc(5), `VmHWM`).
pub fn peak_memory() -> Done<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?;
    Ok(kib.parse::<u64>()? << 10)
}
