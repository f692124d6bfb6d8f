//! What the benchmarks share: their options, the servers, and how they are reached.

pub mod figures;
pub mod job;
pub mod lineitem;
pub mod processes;

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::Parser;
use longshore::config::{self, Config, LoadOptions};
use longshore::ledger::{Ledger, NewDefinition};
use url::Url;

pub type Done<T = ()> = Result<T, Box<dyn Error>>;

/// The options of all benchmarks, so that `cargo bench -- …` may give any of them. Of what is
/// counted, 0 leaves out what it belongs to.
#[derive(Parser)]
pub struct Options {
    /// The scale of the TPC-H data; 1 has 6,001,215 rows in lineitem.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// How many rounds; everything is measured once in each.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Also measures the memory of an export of ten times as many rows, whose table takes gigabytes
    /// and minutes.
    #[arg(long)]
    pub large: bool,
    /// How many rows of a mebibyte are exported.
    #[arg(long, default_value_t = 5_000)]
    pub wide: u32,
    /// How many jobs that do nothing are dispatched.
    #[arg(long, default_value_t = 100_000)]
    pub jobs: u64,
    /// How many jobs that deliver a file are dispatched.
    #[arg(long, default_value_t = 20_000)]
    pub files: u64,
    /// How many jobs are started one by one on an idle pool.
    #[arg(long, default_value_t = 300)]
    pub single: u64,
    /// How many jobs wait on the queue where they are many.
    #[arg(long, default_value_t = 1_000_000)]
    pub waiting: u64,
    /// How many runs the ledger has had before.
    #[arg(long, default_value_t = 1_000_000)]
    pub history: u64,
    /// How many jobs each worker works on at once.
    #[arg(long, default_value_t = 512)]
    pub concurrency: u16,
    /// Leaves the other systems out.
    #[arg(long)]
    pub without_peers: bool,
    /// How many jobs the other systems dispatch.
    #[arg(long, default_value_t = 20_000)]
    pub peer_jobs: u64,
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

/// What `make bench` has found out for the benchmarks, as the tests are told.
#[expect(clippy::disallowed_methods, reason = "as the tests, benchmarks find their servers so")]
fn variable(name: &str) -> Option<String> {
    std::env::var(format!("LONGSHORE_TEST_{name}")).ok()
}

/// The address of a server of the tests.
pub fn server(name: &str, default: &str) -> Done<Address> {
    let text = variable(name).unwrap_or(default.to_owned());
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

/// Makes sure of a database. Answers where it is.
pub async fn database(name: &str) -> Done<Address> {
    let server = postgres()?;
    let admin = connect(&server).await?;
    let there = "SELECT 1 FROM pg_database WHERE datname = $1";
    if admin.query_opt(there, &[&name]).await?.is_none() {
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    }
    Ok(server.database(name))
}

/// Removes a database, whoever is connected to it.
pub async fn remove_database(name: &str) -> Done {
    let admin = connect(&postgres()?).await?;
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    Ok(())
}

/// A setting of the PostgreSQL server.
pub async fn setting(client: &tokio_postgres::Client, name: &str) -> Done<String> {
    Ok(client.query_one(&format!("SHOW {name}"), &[]).await?.get(0))
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
