//! Servers of one test's own, which it may stop, freeze, kill and set as it likes. They listen on
//! free ports of the loopback, keep them when they are started again, and end with the test.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use url::Url;

/// How long a server may take to start or to end.
const STARTS: Duration = Duration::from_secs(60);

/// A PostgreSQL without `fsync`: what it has committed outlasts its processes, not the machine.
pub struct Postgres {
    home: TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
}

impl Postgres {
    /// Makes an empty server with such settings (`max_connections=20`), and starts it.
    pub async fn start(settings: &[&str]) -> Postgres {
        let home = tempfile::tempdir().unwrap();
        if is_root() {
            // It refuses to run as root, and has to own its folder.
            let (uid, gid) = user_postgres();
            chown(home.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut command = as_postgres("initdb");
        command.arg("-D").arg(home.path().join("data"));
        command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]);
        let output = command.current_dir(home.path()).output().expect("initdb starts");
        super::processes::succeeded("initdb", output);
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut postgres = Postgres { home, port: free_port(), settings, server: None };
        postgres.restart().await;
        postgres
    }

    /// Where it is.
    pub fn url(&self) -> Url {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port).parse().unwrap()
    }

    /// Starts it, and stops it before where it runs. Waits until it lets clients in.
    pub async fn restart(&mut self) {
        self.stop().await;
        let started = Instant::now();
        // After a crash the next start waits for the last process of the one before.
        while !self.starts().await {
            assert!(started.elapsed() < STARTS, "PostgreSQL does not start:\n{}", self.log());
        }
    }

    async fn starts(&mut self) -> bool {
        let home = self.home.path();
        let log = File::create(home.join("log")).unwrap();
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(home.join("data")).args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(home).args(["-c", "listen_addresses=127.0.0.1"]);
        for setting in ["fsync=off", "max_connections=100"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.current_dir(home).stdin(Stdio::null());
        let mut child =
            command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("postgres starts");
        loop {
            if child.try_wait().unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                return false;
            }
            if self.log().contains("ready to accept connections") {
                self.server = Some(child);
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops it in order: sessions are cut.
    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal("INT", server.id());
            ended(&mut server).await;
        }
    }

    /// Kills it and all its processes.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let sessions = children(server.id());
            server.kill().unwrap();
            server.wait().unwrap();
            for session in sessions {
                let _ = Command::new("kill").args(["-KILL", &session.to_string()]).output();
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A Redis without persistence: started again, it is empty.
pub struct Redis {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Redis {
    /// Starts an empty server.
    pub async fn start() -> Redis {
        let mut redis =
            Redis { folder: tempfile::tempdir().unwrap(), port: free_port(), server: None };
        redis.restart(&[]).await;
        redis
    }

    /// Where it is.
    pub fn url(&self) -> Url {
        format!("redis://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// Starts it with more options (`--key-load-delay 1000`), and kills it before where it runs.
    /// Waits until it listens.
    pub async fn restart(&mut self, options: &[&str]) {
        self.kill();
        let log = File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--dir"]);
        command.arg(self.folder.path()).args(["--save", "", "--appendonly", "no"]).args(options);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().expect("redis-server starts");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log"));
            assert!(child.try_wait().unwrap().is_none(), "Redis ended: {:?}", log());
            assert!(started.elapsed() < STARTS, "Redis does not start: {:?}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.server = Some(child);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Freezes it (`STOP`): it takes connections and answers nothing; or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        signal(name, self.server.as_ref().expect("it runs").id());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port that is not given to clients meanwhile, so that a server can have it again.
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port was found");
}

fn signal(name: &str, process: u32) {
    let kill = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(kill.expect("kill is there").success(), "the signal {name} was not delivered");
}

pub async fn ended(server: &mut Child) {
    let asked = Instant::now();
    while server.try_wait().unwrap().is_none() {
        assert!(asked.elapsed() < STARTS, "a server does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that a process has started.
fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The numbers of user and group `postgres`, which Debian's package has made.
fn user_postgres() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = user.expect("there is a user postgres").split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// A program of PostgreSQL, as user `postgres` where this is root.
fn as_postgres(program: &str) -> Command {
    let program = program_of_postgres(program);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
    command
}

/// On Debian the servers' programs are not on the path; the newest is taken.
fn program_of_postgres(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found = versions.map(|entry| entry.unwrap().path().join("bin").join(program));
    let number = |path: &PathBuf| -> u32 {
        path.iter().nth(4).and_then(|name| name.to_str()?.parse().ok()).unwrap_or_default()
    };
    found.filter(|path| path.exists()).max_by_key(number).unwrap_or_else(|| program.into())
}
