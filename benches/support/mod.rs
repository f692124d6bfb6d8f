//! What both benchmarks need: their options, the servers, the kernel's accounts of processes, and
//! the page of results.

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::Parser;
use longshore::config::{self, Config, LoadOptions};
use longshore::ledger::{Ledger, NewDefinition};
use url::Url;

pub type Done<T = ()> = Result<T, Box<dyn Error>>;

/// The options of all benchmarks, so that `cargo bench -- …` may give any of them.
#[derive(Parser)]
pub struct Options {
    /// The scale of the TPC-H data; 1 has 6,001,215 rows in lineitem.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// How many rounds of each export.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How many jobs are dispatched.
    #[arg(long, default_value_t = 100_000)]
    pub jobs: u64,
    /// How many jobs each worker works on at once.
    #[arg(long, default_value_t = 16)]
    pub concurrency: u16,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What this process is: the benchmark, or a child of it, with its arguments.
pub enum Role {
    Bench(Options),
    Child(Vec<String>),
}

impl Role {
    pub fn of_this_process() -> Role {
        let mut args = std::env::args().skip(1);
        match args.next().as_deref() {
            Some("child") => Role::Child(args.collect()),
            _ => Role::Bench(Options::parse()),
        }
    }
}

/// The address of a server of the tests.
#[expect(clippy::disallowed_methods, reason = "as the tests, benchmarks find their servers so")]
pub fn server(name: &str, default: &str) -> Done<Address> {
    let text = std::env::var(format!("LONGSHORE_TEST_{name}")).unwrap_or(default.to_owned());
    let mut url = Url::parse(&text).map_err(|_| format!("LONGSHORE_TEST_{name} is no URL"))?;
    let password = url.password().map(str::to_owned);
    let _ = url.set_password(None);
    Ok(Address { url, password })
}

/// The PostgreSQL server, which most of this needs.
pub fn postgres() -> Done<Address> {
    server("POSTGRES", "postgres://postgres@127.0.0.1:5432/postgres")
}

/// Where a server is, with the password apart, as the configuration wants it.
#[derive(Clone)]
pub struct Address {
    pub url: Url,
    pub password: Option<String>,
}

impl Address {
    /// The same server's database of this name.
    pub fn database(&self, name: &str) -> Address {
        let mut other = self.clone();
        other.url.set_path(name);
        other
    }

    /// With the password in it.
    pub fn whole(&self) -> String {
        let mut url = self.url.clone();
        let _ = url.set_password(self.password.as_deref());
        url.into()
    }

    /// The lines of a table in TOML. The password goes into a file in `folder`.
    pub fn toml(&self, folder: &Path) -> Done<String> {
        let mut lines = format!("url = {:?}\n", self.url.as_str());
        if let Some(password) = &self.password {
            fs::create_dir_all(folder)?;
            let file = folder.join(format!("{}.password", self.url.scheme()));
            fs::write(&file, password)?;
            lines += &format!("password = \"${{file:{}}}\"\n", file.display());
        }
        Ok(lines)
    }
}

/// A client of PostgreSQL.
pub async fn connect(address: &Address) -> Done<tokio_postgres::Client> {
    let (client, link) = tokio_postgres::connect(&address.whole(), tokio_postgres::NoTls).await?;
    tokio::spawn(link);
    Ok(client)
}

/// Reads the configuration that was written into `folder`.
pub fn load(folder: &Path) -> Done<Config> {
    config::load(folder, LoadOptions::default()).map_err(|problems| problems.to_string().into())
}

/// Makes all definitions of a configuration active.
pub async fn activate(ledger: &dyn Ledger, config: &Config) -> Done {
    let definitions: Vec<_> = config.exports.values().map(NewDefinition::from).collect();
    ledger.activate(&definitions, true, "bench", "", false).await?;
    Ok(())
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

/// Prints the results, and puts them into `docs/benchmarks.md` in the place of the last ones.
pub fn publish(section: &str, text: &str) -> Done {
    println!("{text}");
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
