//! An installation of one test's own: configuration, database, queues, and its processes.

use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::{Value as Json, json};
use url::Url;

use super::processes::{Process, python, succeeded};
use super::s3::S3;
use super::servers::{self, Database, Pools, Redis, amqp};

/// How long dead letters may take to come.
const LETTERS: Duration = Duration::from_secs(30);
/// How long a run may take to come to a state. Some bounds of the program are 30 s.
const STATE: Duration = Duration::from_secs(90);

/// How a test's Longshore runs: real servers, the real program, names that nobody else uses.
pub struct Installation {
    folder: tempfile::TempDir,
    /// The database with the ledger, and whatever the test puts beside it.
    pub database: Database,
    /// Where the claims are.
    pub redis: Redis,
    /// Where RabbitMQ is.
    pub broker: Url,
    /// The queues.
    pub pools: Pools,
    /// The pool of most exports.
    pub pool: String,
    /// Another pool that the workers serve.
    pub bulk: String,
}

/// Makes an installation, runs a test on it, and removes it, however the test ends. `worker` are
/// the settings of `[worker]` besides the pools.
pub async fn with(worker: &str, test: impl AsyncFnOnce(&Installation)) {
    on((servers::postgres(), servers::redis()), worker, test).await;
}

/// As [`with`], on a PostgreSQL and a Redis that may be the test's own.
pub async fn on(servers: (Url, Url), worker: &str, test: impl AsyncFnOnce(&Installation)) {
    with_pools(servers, &[], worker, test).await;
}

/// As [`with`], on a RabbitMQ that may be the test's own.
pub async fn on_broker(broker: Url, worker: &str, test: impl AsyncFnOnce(&Installation)) {
    let servers = (servers::postgres(), servers::redis());
    on_all(broker, servers, &[], worker, test).await;
}

/// As [`on`], with more pools: see [`Installation::pool_of`].
pub async fn with_pools(
    servers: (Url, Url),
    more: &[String],
    worker: &str,
    test: impl AsyncFnOnce(&Installation),
) {
    on_all(amqp(), servers, more, worker, test).await;
}

async fn on_all(
    broker: Url,
    servers: (Url, Url),
    more: &[String],
    worker: &str,
    test: impl AsyncFnOnce(&Installation),
) {
    let installation = Installation::make(broker, servers, more, worker).await;
    let outcome = AssertUnwindSafe(test(&installation)).catch_unwind().await;
    let Installation { database, redis, pools, .. } = installation;
    pools.delete().await;
    redis.release().await;
    database.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Installation {
    async fn make(
        broker: Url,
        (postgres, redis): (Url, Url),
        more: &[String],
        worker: &str,
    ) -> Installation {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let (pool, bulk) = (format!("test-{id}"), format!("test-{id}-bulk"));
        let more: Vec<String> = more.iter().map(|name| format!("{pool}-{name}")).collect();
        let weights = more.iter().map(|pool| format!(", {pool} = 1")).collect::<String>();
        let installation = Installation {
            folder: tempfile::tempdir().unwrap(),
            database: Database::create_on(postgres, format!("longshore_test_{id}")).await,
            redis: Redis::take_on(redis).await,
            pools: Pools::declare_on(
                broker.clone(),
                [vec![pool.clone(), bulk.clone()], more].concat(),
            )
            .await,
            broker,
            pool,
            bulk,
        };
        let (database, redis) = (&installation.database.url, &installation.redis.url);
        let settings = format!(
            "[queue]\n{}\n[ledger]\n{}keep = \"1d\"\n[claims]\n{}\n\
             [worker]\npools = {{ {} = 3, {} = 1{weights} }}\n{worker}\n\
             [http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"info\"\n\
             [keys]\npseudonyms = \"${{env:TEST_PSEUDONYMS}}\"\n",
            server(&installation.broker, "AMQP"),
            server(database, "POSTGRES"),
            server(redis, "REDIS"),
            installation.pool,
            installation.bulk,
        );
        std::fs::create_dir(installation.lake()).unwrap();
        let connections = installation.connections(database);
        installation.write("longshore.toml", &settings);
        installation.write("connections.toml", &connections);
        installation
    }

    /// Writes a file of the configuration.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join("config").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Changes the settings.
    pub fn change_settings(&self, change: impl FnOnce(String) -> String) {
        let path = self.folder.path().join("config/longshore.toml");
        self.write("longshore.toml", &change(std::fs::read_to_string(path).unwrap()));
    }

    /// Changes the connections.
    pub fn change_connections(&self, change: impl FnOnce(String) -> String) {
        let path = self.folder.path().join("config/connections.toml");
        self.write("connections.toml", &change(std::fs::read_to_string(path).unwrap()));
    }

    /// Adds connections to those that every installation has.
    pub fn add_connections(&self, text: &str) {
        self.change_connections(|before| before + text);
    }

    /// Lets the connection `shop` go by another address than that of its database.
    pub fn reach_shop_by(&self, address: SocketAddr) {
        let mut url = self.database.url.clone();
        url.set_host(Some(&address.ip().to_string())).unwrap();
        url.set_port(Some(address.port())).unwrap();
        self.write("connections.toml", &self.connections(&url));
    }

    fn connections(&self, shop: &Url) -> String {
        format!(
            "[shop]\ntype = \"postgres\"\n{}[warehouse]\ntype = \"postgres\"\n{}\
             [lake]\ntype = \"files\"\nurl = \"file://{}\"\n",
            server(shop, "POSTGRES"),
            server(&self.database.url, "POSTGRES"),
            self.lake().display(),
        )
    }

    /// Adds an export of the usual pool, or changes it; [`Installation::apply`] makes it active.
    pub fn export(&self, name: &str, definition: &str) {
        self.export_of(&self.pool, name, definition);
    }

    /// Adds an export of a pool.
    pub fn export_of(&self, pool: &str, name: &str, definition: &str) {
        self.write(&format!("exports/{name}.toml"), &format!("pool = \"{pool}\"\n{definition}"));
    }

    /// Adds a connection to a folder of its name in a bucket.
    pub fn bucket(&self, name: &str, server: &S3) {
        self.bucket_at(name, &server.url(), server);
    }

    /// As [`Installation::bucket`], by another way to the server.
    pub fn bucket_at(&self, name: &str, way: &Url, server: &S3) {
        let config = self.folder.path().join("config");
        let keys = [("access-key", &server.keys.0), ("secret-key", &server.keys.1)];
        let secrets = keys.map(|(key, secret)| {
            let path = self.folder.path().join(format!("{name}.{key}"));
            std::fs::write(&path, secret).unwrap();
            format!("{key} = \"${{file:{}}}\"\n", path.display())
        });
        let (mut endpoint, secrets) = (way.to_string(), secrets.concat());
        endpoint.truncate(endpoint.trim_end_matches('/').len());
        let connections = std::fs::read_to_string(config.join("connections.toml")).unwrap();
        let added = format!(
            "[{name}]\ntype = \"files\"\nurl = \"s3://lake/{name}\"\nregion = \"us-east-1\"\n\
             endpoint = \"{endpoint}\"\n{secrets}"
        );
        self.write("connections.toml", &(connections + &added));
    }

    /// One of the pools that were made for the test.
    pub fn pool_of(&self, name: &str) -> String {
        format!("{}-{name}", self.pool)
    }

    /// The command of a worker that serves one pool and no other.
    pub fn worker_of(&self, pool: &str) -> Command {
        let config = self.folder.path().join("config");
        let mine = format!("only-{pool}");
        let settings = std::fs::read_to_string(config.join("longshore.toml")).unwrap();
        let only = |line: &str| match line.starts_with("pools = ") {
            true => format!("pools = {{ {pool} = 1 }}\n"),
            false => format!("{line}\n"),
        };
        let settings: String = settings.lines().map(only).collect();
        let folder = self.folder.path().join(&mine);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("longshore.toml"), settings).unwrap();
        std::fs::copy(config.join("connections.toml"), folder.join("connections.toml")).unwrap();
        self.command_in(&mine, &["worker"])
    }

    /// The folder that the installation's files lie in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the connection `lake`.
    pub fn lake(&self) -> std::path::PathBuf {
        self.folder.path().join("lake")
    }

    /// A command of the program, with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_in("config", arguments)
    }

    fn command_in(&self, config: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(arguments).arg("--config").arg(self.folder.path().join(config));
        command.env_remove("LONGSHORE_ENV").env("TEST_PSEUDONYMS", "pepper");
        command.env("TEST_QUARANTINE", super::quarantine::KEY);
        for (name, url) in
            [("AMQP", &self.broker), ("POSTGRES", &self.database.url), ("REDIS", &self.redis.url)]
        {
            command.env(format!("TEST_{name}_PASSWORD"), url.password().unwrap_or_default());
        }
        command
    }

    /// A command with fail points set: see `src/fail.rs`.
    pub fn failing(&self, arguments: &[&str], points: &str) -> Command {
        let mut command = self.command(arguments);
        command.env("LONGSHORE_FAIL", points);
        command
    }

    /// Runs a command that is to succeed, and gives what it printed.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        succeeded(&format!("longshore {}", arguments.join(" ")), output)
    }

    /// Runs a command with `--json`, and gives the objects that it printed.
    pub async fn objects(&self, arguments: &[&str]) -> Vec<Json> {
        let text = self.run(&[arguments, &["--json"]].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Brings the ledger up, and makes the definitions active.
    pub async fn apply(&self) {
        self.run(&["migrate"]).await;
        self.run(&["apply"]).await;
    }

    /// Starts a scheduler or a worker; `name` tells its log.
    pub fn start(&self, command: &str, name: &str) -> Process {
        self.start_command(self.command(&[command]), name)
    }

    /// Starts a command of the program, changed as the test needs it.
    pub fn start_command(&self, command: Command, name: &str) -> Process {
        Process::start(command, self.folder.path().join(format!("{name}.log")))
    }

    /// Starts a scheduler or a worker with such settings (`LEDGER__URL`), and tells where its probes
    /// are.
    pub fn start_probed(
        &self,
        command: &str,
        name: &str,
        settings: &[(&str, &str)],
    ) -> (SocketAddr, Process) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = self.command(&[command]);
        command.env("LONGSHORE__HTTP__LISTEN", free.to_string());
        for (name, value) in settings {
            command.env(format!("LONGSHORE__{name}"), value);
        }
        (free, self.start_command(command, name))
    }

    /// Publishes messages from Python; see [`message`].
    pub async fn publish(&self, messages: &[Json]) {
        let input: String = messages.iter().map(|message| format!("{message}\n")).collect();
        let told = python("producer.py", &[self.broker.as_str(), "longshore"], input).await;
        assert_eq!(told.trim(), format!("{} 0", messages.len()), "published, and refused");
    }

    /// Waits until a query of the ledger gives true.
    pub async fn until(&self, what: &str, within: Duration, sql: &str) {
        let started = Instant::now();
        loop {
            if self.database.row(sql).await.get(0) {
                return;
            }
            if started.elapsed() > within {
                let states = self.states().await;
                panic!("waited {within:?} until {what}; the runs are {states}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the run of `job-{id}` is in a state.
    pub async fn until_state(&self, id: i64, state: &str) {
        let sql =
            format!("SELECT count(*) = 1 FROM runs WHERE key = 'job-{id}' AND state = '{state}'");
        self.until(&format!("job {id} is {state}"), STATE, &sql).await;
    }

    /// Something about the run of `job-{id}`.
    pub async fn of_run(&self, id: i64, expression: &str) -> String {
        let sql = format!("SELECT ({expression})::text FROM runs WHERE key = 'job-{id}'");
        self.database.text(&sql).await
    }

    /// The attempts of the run of `job-{id}`, as `fence outcome`.
    pub async fn attempts(&self, id: i64) -> String {
        let sql = format!(
            "SELECT coalesce(string_agg(a.fence || ' ' || coalesce(a.outcome, '-'), ', ' ORDER BY a.fence), '')
             FROM runs AS r JOIN attempts AS a ON a.run = r.id WHERE r.key = 'job-{id}'"
        );
        self.database.text(&sql).await
    }

    /// The dead letters, once so many are there.
    pub async fn letters(&self, expected: usize) -> Vec<Json> {
        let started = Instant::now();
        loop {
            let letters = self.objects(&["dead", "list", "--limit", "10000"]).await;
            if letters.len() >= expected {
                assert_eq!(letters.len(), expected, "too many dead letters");
                return letters;
            }
            let found = letters.len();
            assert!(started.elapsed() < LETTERS, "{found} of {expected} dead letters");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How many runs of each export are in each state: `orders done 10, orders dead 1`.
    pub async fn states(&self) -> String {
        let sql = "SELECT coalesce(string_agg(line, ', ' ORDER BY line), 'none') FROM (
                       SELECT format('%s %s %s', export, state, count(*)) AS line
                       FROM runs GROUP BY export, state) AS lines";
        self.database.text(sql).await
    }

    /// Waits until all messages are worked off but for so many dead letters, ends the processes, and
    /// makes sure that nothing is left that waits for anything: no message that was held, no
    /// reservation, no posting, nothing staged.
    pub async fn end(&self, processes: impl IntoIterator<Item = Process>, letters: u64) {
        let started = Instant::now();
        // A message that is being worked on is not ready; none is for longer than this.
        let mut quiet = 0;
        while quiet < 10 {
            let ready = self.pools.ready().await;
            quiet = if ready == (0, letters) { quiet + 1 } else { 0 };
            assert!(started.elapsed() < LETTERS, "messages left: {ready:?} (jobs, dead letters)");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for process in processes {
            assert!(process.end(LETTERS).await.success());
        }
        // What they had held would be ready again.
        assert_eq!(self.pools.ready().await, (0, letters), "messages left: jobs, dead letters");
        for (what, sql) in [
            ("open runs", "SELECT count(*) FROM runs WHERE ended_at IS NULL"),
            ("open attempts", "SELECT count(*) FROM attempts WHERE ended_at IS NULL"),
            ("holdings", "SELECT count(*) FROM holdings"),
            ("waiters", "SELECT count(*) FROM waiters"),
            // All but the cleaning of tomorrow.
            ("postings", "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND kind <> 'clean'"),
            (
                "staging tables",
                "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'longshore_stage_%'",
            ),
        ] {
            assert_eq!(self.database.number(sql).await, 0, "{what} are left");
        }
        assert_eq!(files(&self.lake().join(".longshore")), Vec::<String>::new(), "staged files");
    }
}

/// The `url` and `password` of a server, as the configuration has them.
fn server(url: &Url, name: &str) -> String {
    let mut bare = url.clone();
    bare.set_password(None).unwrap();
    match url.password() {
        Some(_) => format!("url = \"{bare}\"\npassword = \"${{env:TEST_{name}_PASSWORD}}\"\n"),
        None => format!("url = \"{bare}\"\n"),
    }
}

/// The files under a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

/// A message for a pool, as the producer takes it.
pub fn message(pool: &str, body: &Json) -> Json {
    json!({"pool": pool, "body": body.to_string(), "properties": {}})
}

/// The export `slow`: its query takes as long as the job asks for.
pub const SLOW: &str = r#"
[params]
id      = { type = "int64" }
seconds = { type = "int64" }
[source]
connection = "shop"
query = "SELECT :id AS id FROM pg_sleep(:seconds)"
[sink]
connection = "lake"
path       = "slow/{id}"
format     = "jsonl"
"#;

/// A job of the export [`SLOW`], whose params are these, with the key `job-{id}`.
pub fn slow(installation: &Installation, id: i64, seconds: i64) -> Json {
    let params = json!({"id": id, "seconds": seconds});
    let body = json!({"export": "slow", "key": format!("job-{id}"), "params": params});
    message(&installation.pool, &body)
}
