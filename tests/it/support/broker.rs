//! Nodes of RabbitMQ of one test's own, which it may stop, freeze, kill and set as it likes. They
//! listen on free ports of the loopback, keep them when they are started again, and end with the test.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use url::Url;

use super::own::{ended, free_port};
use super::processes::succeeded;

/// How long a node may take to start or to end.
const STARTS: Duration = Duration::from_secs(120);

/// What nodes of one cluster share: a folder, and the mapper of Erlang's ports.
struct Host {
    home: TempDir,
    epmd_port: u16,
    epmd: Child,
}

impl Host {
    fn start() -> Host {
        let epmd_port = free_port();
        let mut command = Command::new("epmd");
        command.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let epmd = command.spawn().expect("epmd starts: install rabbitmq-server");
        Host { home: tempfile::tempdir().unwrap(), epmd_port, epmd }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.epmd.kill();
        let _ = self.epmd.wait();
    }
}

/// One node.
pub struct Node {
    host: Arc<Host>,
    name: String,
    port: u16,
    dist: u16,
    server: Option<Child>,
}

impl Node {
    /// Starts a node that is alone, with such lines in its `rabbitmq.conf`.
    pub async fn start(config: &str) -> Node {
        let mut node = Node::on(Arc::new(Host::start()), config);
        node.restart().await;
        node
    }

    /// Starts so many nodes that are one cluster.
    pub async fn cluster(size: usize, config: &str) -> Vec<Node> {
        let first = Node::start(config).await;
        let config = format!(
            "{config}\ncluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = {}\n",
            first.name
        );
        let mut nodes = vec![first];
        while nodes.len() < size {
            let mut node = Node::on(nodes[0].host.clone(), &config);
            node.restart().await;
            nodes.push(node);
        }
        nodes
    }

    fn on(host: Arc<Host>, config: &str) -> Node {
        let (port, dist) = (free_port(), free_port());
        let node = Node { host, name: format!("node-{port}@localhost"), port, dist, server: None };
        std::fs::create_dir(node.folder()).unwrap();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 100MB\n{config}\n"
        );
        std::fs::write(node.folder().join("rabbitmq.conf"), config).unwrap();
        std::fs::write(node.folder().join("enabled_plugins"), "[].").unwrap();
        node
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it is, with its user.
    pub fn url(&self) -> Url {
        format!("amqp://guest:guest@{}/%2f", self.address()).parse().unwrap()
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Starts it where it does not run, and waits until it takes connections.
    pub async fn restart(&mut self) {
        let log = File::create(self.folder().join("log")).unwrap();
        let mut command = self.command("rabbitmq-server");
        // The server is a child of this script: both are one group.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let server = self.server.insert(command.spawn().expect("install rabbitmq-server"));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let is_there = server.try_wait().unwrap().is_none() && started.elapsed() < STARTS;
            let log =
                || std::fs::read_to_string(self.host.home.path().join(&self.name).join("log"));
            assert!(is_there, "RabbitMQ does not start:\n{}", log().unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut server) = self.server.take() {
            ended(&mut server).await;
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if self.server.is_some() {
            self.signal("KILL");
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    /// Freezes it (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let group = format!("-{}", self.server.as_ref().expect("it runs").id());
        let kill = Command::new("kill").args([&format!("-{name}"), "--", &group]).status();
        assert!(kill.expect("kill is there").success(), "the signal {name} was not delivered");
    }

    /// What `rabbitmqctl` says to these arguments.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        succeeded(&format!("rabbitmqctl {}", arguments.join(" ")), self.ask(arguments).await)
    }

    /// As [`Node::ctl`]; nothing where it fails, as while the node starts.
    pub async fn try_ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.ask(arguments).await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("rabbitmqctl");
        command.arg("--quiet").args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.host.home.path().join(&self.name)
    }

    fn command(&self, program: &str) -> Command {
        // The one on the path may be a wrapper that insists on the system's own user.
        let installed = Path::new("/usr/lib/rabbitmq/bin").join(program);
        let program = if installed.exists() { installed } else { program.into() };
        let mut command = Command::new(program);
        let (home, folder) = (self.host.home.path(), self.folder());
        command
            .env("HOME", home)
            .env("ERL_EPMD_PORT", self.host.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.dist.to_string())
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", &folder)
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"));
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
