//! Processes that a test starts, and that never outlive it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A process that is killed and waited for at the end of the test, however that comes.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it logs goes to a file.
    pub fn start(mut command: Command, log: PathBuf) -> Process {
        let file = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("the process starts");
        Process { child, log }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where it logs.
    pub fn path(&self) -> &Path {
        &self.log
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, name: &str) {
        let kill =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(kill.expect("kill is there").success(), "the signal {name} was not delivered");
    }

    /// Whether it stands still, as after SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        // `pid (name) state …`, of proc(5).
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Waits until it stands still.
    pub async fn stopped(&self, within: Duration) {
        let asked = Instant::now();
        while !self.is_stopped() {
            assert!(asked.elapsed() < within, "it does not stand still:\n{}", tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it as a crash would: nothing of it runs any more.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        self.ended(within).await
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(asked.elapsed() < within, "it does not end:\n{}", tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "what a failed test tells")]
            {
                eprintln!("--- {}\n{}", self.log.display(), tail(&self.log()));
            }
        }
    }
}

/// The end of a log, which tells most.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Runs a script of `tests/python` on `input`, and gives what it printed.
pub async fn python(script: &str, arguments: &[&str], input: String) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let mut command = Command::new(interpreter());
    command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("python starts");
    let mut stdin = child.stdin.take().unwrap();
    let output = tokio::task::spawn_blocking(move || {
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        (written, child.wait_with_output().unwrap())
    });
    let (written, output) = output.await.unwrap();
    written.unwrap_or_else(|_| panic!("{script} does not read:\n{}", text(&output.stderr)));
    succeeded(script, output)
}

/// What a command printed. Fails the test where it failed.
pub fn succeeded(what: &str, output: Output) -> String {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what} ended with {}:\n{out}\n{error}", output.status);
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A Python with pika, pyarrow, fastavro, moto and cryptography: that of `LONGSHORE_TEST_PYTHON`,
/// else one that the script makes.
#[expect(clippy::disallowed_methods, reason = "tests are told where their tools are")]
pub fn interpreter() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        std::env::var("LONGSHORE_TEST_PYTHON").unwrap_or_else(|_| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/python-env.sh");
            let output = Command::new(script).output().expect("scripts/python-env.sh starts");
            succeeded("scripts/python-env.sh", output).trim().to_owned()
        })
    })
}
