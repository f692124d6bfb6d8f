//! An S3 server of one's own on this machine: moto, which keeps If-None-Match and If-Match.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use longshore::connect::Connection;

/// A running server; it ends with the value.
pub struct S3 {
    child: Child,
    port: u16,
}

impl S3 {
    /// Starts a server with an empty bucket named `lake`. Fails where that cannot be done.
    pub async fn start() -> S3 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(moto())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server starts");
        let mut server = S3 { child, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "moto_server ended");
            assert!(started.elapsed() < Duration::from_secs(60), "moto_server does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = format!(
            "PUT /lake HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "the bucket is not made: {answer}");
        server
    }

    /// A connection to `folder` of the bucket.
    pub fn connection(&self, folder: &str) -> Connection {
        connection(self.port, folder)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to `folder` of the bucket `lake` at a port of this machine.
pub fn connection(port: u16, folder: &str) -> Connection {
    let mut connection: Connection = serde_json::from_value(serde_json::json!({
        "type": "files",
        "url": format!("s3://lake/{folder}"),
        "region": "us-east-1",
        "endpoint": format!("http://127.0.0.1:{port}"),
        "access-key": "test",
        "secret-key": "test",
    }))
    .unwrap();
    connection.name = "lake".to_owned();
    connection
}

/// The program, from the system or from an environment of its own under the target folder.
fn moto() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let ours = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
        for candidate in [Path::new("moto_server").to_owned(), ours.join("bin/moto_server")] {
            let answer = Command::new(&candidate).arg("--help").output();
            if answer.is_ok_and(|answer| answer.status.success()) {
                return candidate;
            }
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&ours));
        run(Command::new(ours.join("bin/pip")).args(["install", "-q", "moto[server,s3]"]));
        ours.join("bin/moto_server")
    })
}

fn run(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
