//! One page of the documentation: what it has the reader do, and doing it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::processes;
use crate::support::servers::{self, Database, Pools, Redis};

/// How long a page may take.
const LONG: Duration = Duration::from_secs(180);
/// What separates the outputs of two commands; no command prints it.
const MARK: &str = "\u{1}\u{2}\u{1}";
/// The line after the text of a file; no file has it. (Bash does not find one of control characters.)
const END: &str = "END OF THIS FILE OF THE PAGE";

/// A page.
pub struct Page {
    name: String,
    needs: Option<Needs>,
    steps: Vec<Step>,
}

/// What a page needs that cannot be in it.
#[derive(Debug, PartialEq)]
struct Needs {
    /// RabbitMQ and Redis, and the ledger in the database.
    servers: bool,
    /// Connections that lead to the database.
    connections: Vec<String>,
}

/// Something that the reader does.
#[derive(Debug, PartialEq)]
enum Step {
    /// Write a file, or add to it.
    File { path: String, add: bool, text: String },
    /// Type a command.
    Run { line: usize, command: String, exit: i32, prints: Vec<String> },
}

impl Needs {
    /// What the comment at a page's top says.
    fn read(text: &str) -> Option<Needs> {
        let (comment, _) = text.split_once("<!-- test: ")?.1.split_once(" -->")?;
        let mut words = comment.split(' ').map(str::to_owned);
        let servers = words.next().is_some_and(|first| first == "servers");
        Some(Needs { servers, connections: words.collect() })
    }
}

impl Page {
    /// Understands a page.
    pub fn read(name: &str, text: &str) -> Page {
        let mut steps = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((_, line)) = lines.next() {
            let Some(info) = line.trim_start().strip_prefix("```") else { continue };
            let indent = line.len() - line.trim_start().len();
            let (language, file) = info.split_once(' ').unwrap_or((info, ""));
            let mut block = Vec::new();
            loop {
                let (number, line) =
                    lines.next().unwrap_or_else(|| panic!("{name}: a block is not closed"));
                let line = line.get(indent..).unwrap_or_default();
                if line.trim_end() == "```" {
                    break;
                }
                block.push((number + 1, line));
            }
            if !file.trim().is_empty() {
                let mut text: String =
                    block.iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
                text.push('\n');
                let path = file.trim().trim_start_matches(">>").to_owned();
                steps.push(Step::File { path, add: file.trim().starts_with(">>"), text });
            } else if language == "console" {
                commands(name, &block, &mut steps);
            } else if let Some((number, _)) = block.iter().find(|(_, line)| line.starts_with("$ "))
            {
                panic!("{name}:{number}: a command that is not run; make it a console block");
            }
        }
        Page { name: name.to_owned(), needs: Needs::read(text), steps }
    }

    /// How many commands it has.
    pub fn commands(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Run { .. })).count()
    }

    /// Does what it says.
    ///
    /// # Errors
    /// Where something else came of it than the page says.
    pub async fn follow(&self) -> Result<(), String> {
        if self.commands() == 0 {
            return Ok(());
        }
        let Some(needs) = &self.needs else { return self.follow_with(Vec::new()).await };
        let id = uuid::Uuid::now_v7().simple().to_string();
        let database = Database::create(format!("longshore_test_{id}")).await;
        let mut environment = of_database(&database, &needs.connections);
        if !needs.servers {
            let followed = self.follow_with(environment).await;
            database.remove().await;
            return followed;
        }
        let redis = Redis::take().await;
        // Pages use the pool `default`, which no other test does.
        let pools = Pools::declare(vec!["default".to_owned()]).await;
        environment.extend(of_servers(&database, &redis));
        let followed = self.follow_with(environment).await;
        pools.delete().await;
        redis.release().await;
        database.remove().await;
        followed
    }

    fn uses_python(&self) -> bool {
        let python =
            |step: &Step| matches!(step, Step::Run { command, .. } if command.contains("python"));
        self.steps.iter().any(python)
    }

    async fn follow_with(&self, environment: Vec<(String, String)>) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join(".script");
        std::fs::write(&script, self.script()).unwrap();
        let mut command = tokio::process::Command::new("bash");
        let program = Path::new(env!("CARGO_BIN_EXE_longshore"));
        let mut path = format!("{}:{}", program.parent().unwrap().display(), variable("PATH"));
        if self.uses_python() {
            let python = Path::new(processes::interpreter()).parent().unwrap();
            path = format!("{}:{path}", python.display());
        }
        command
            .arg(&script)
            .current_dir(folder.path())
            .env("PATH", path)
            .env("HOME", folder.path())
            .env("NO_COLOR", "1")
            .env_remove("LONGSHORE_CONFIG")
            .env_remove("LONGSHORE_ENV")
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let child = command.spawn().expect("bash is there");
        let group = format!("-{}", child.id().unwrap());
        let Ok(output) = tokio::time::timeout(LONG, child.wait_with_output()).await else {
            Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
            return Err(format!("{}: it takes longer than {LONG:?}", self.name));
        };
        self.compare(&String::from_utf8_lossy(&output.unwrap().stdout))
    }

    /// The page as a script. What was started in the background ends with it.
    fn script(&self) -> String {
        let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::File { path, add, text } => {
                    let to = if *add { ">>" } else { ">" };
                    let _ = writeln!(
                        script,
                        "mkdir -p \"$(dirname '{path}')\"\ncat {to}'{path}' <<'{END}'\n{text}{END}"
                    );
                }
                Step::Run { command, .. } => {
                    let _ = writeln!(
                        script,
                        "printf '{MARK}%s\\n' {index}\n{{ {command}\n}} 2>&1\n\
                         printf '{MARK}= %s\\n' $?"
                    );
                }
            }
        }
        script
    }

    /// Holds what was printed against what the page says.
    fn compare(&self, printed: &str) -> Result<(), String> {
        let parts: Vec<&str> = printed.split(MARK).collect();
        for (index, step) in self.steps.iter().enumerate() {
            let Step::Run { line, command, exit, prints } = step else { continue };
            let place = format!("{}:{line}: $ {command}", self.name);
            let begins = format!("{index}\n");
            let at = parts
                .iter()
                .position(|part| part.starts_with(&begins))
                .ok_or_else(|| format!("{place}\nwas not reached"))?;
            let text = parts[at].strip_prefix(&begins).unwrap_or_default();
            let code = parts.get(at + 1).and_then(|part| part.strip_prefix("= "));
            let code = code.and_then(|code| code.trim().parse::<i32>().ok());
            if code != Some(*exit) {
                return Err(format!("{place}\nended with {code:?}, not {exit}:\n{text}"));
            }
            let found: Vec<&str> = text.lines().map(str::trim_end).collect();
            if !prints.is_empty() && !matches(prints, &found) {
                let wanted = prints.join("\n");
                return Err(format!("{place}\nis said to print\n{wanted}\nand prints\n{text}"));
            }
        }
        Ok(())
    }
}

/// Reads the commands of a block, each with what it is said to print.
fn commands(name: &str, block: &[(usize, &str)], steps: &mut Vec<Step>) {
    let mut lines = block.iter().peekable();
    while let Some((number, text)) = lines.next() {
        let Some(first) = text.strip_prefix("$ ") else {
            panic!("{name}:{number}: a console block begins with a command");
        };
        let mut command = first.to_owned();
        while command.ends_with('\\') {
            let Some((_, more)) = lines.next() else { break };
            command.push('\n');
            command.push_str(more);
        }
        let exit = match command.rsplit_once("# exit ") {
            Some((_, code)) => code.trim().parse().unwrap(),
            None => 0,
        };
        let mut prints = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("$ ")) {
            prints.push(line.trim_end().to_owned());
        }
        while prints.last().is_some_and(String::is_empty) {
            prints.pop();
        }
        steps.push(Step::Run { line: *number, command, exit, prints });
    }
}

/// Whether lines are as they are said to be.
fn matches(wanted: &[String], found: &[&str]) -> bool {
    match wanted.split_first() {
        None => found.iter().all(|line| line.is_empty()),
        Some((first, rest)) if first == "…" => {
            (0..=found.len()).any(|skipped| matches(rest, &found[skipped..]))
        }
        Some((first, rest)) => {
            found.split_first().is_some_and(|(line, more)| like(first, line) && matches(rest, more))
        }
    }
}

/// Whether a line is as it is said to be. Runs of blanks count as one, since columns are as wide as
/// what stands in them.
fn like(wanted: &str, found: &str) -> bool {
    let narrow = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, found) = (narrow(wanted), narrow(found));
    let mut rest = found.as_str();
    let mut pieces = wanted.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    let mut last = None;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
        last = Some(piece);
    }
    match last {
        None => rest.is_empty(),
        Some(piece) => piece.is_empty() || found.ends_with(piece),
    }
}

/// Where the database is, for `psql` and for the connections that lead to it.
fn of_database(database: &Database, connections: &[String]) -> Vec<(String, String)> {
    let url = &database.url;
    let mut variables: Vec<_> = [
        ("PGHOST", url.host_str().unwrap_or_default()),
        ("PGPORT", &url.port().unwrap_or(5432).to_string()),
        ("PGUSER", url.username()),
        ("PGPASSWORD", url.password().unwrap_or_default()),
        ("PGDATABASE", url.path().trim_start_matches('/')),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for name in connections {
        variables.extend(place(&format!("CONNECTIONS__{}", name.to_uppercase()), url));
    }
    variables
}

/// Where the servers are, for the program; and for others that publish.
fn of_servers(database: &Database, redis: &Redis) -> Vec<(String, String)> {
    let amqp = servers::amqp();
    let mut variables = vec![
        ("LONGSHORE__HTTP__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ("AMQP_URL".to_owned(), amqp.to_string()),
    ];
    for (name, url) in [("QUEUE", &amqp), ("LEDGER", &database.url), ("CLAIMS", &redis.url)] {
        variables.extend(place(name, url));
    }
    variables
}

/// The variables that let a table of the configuration lead to `url`.
fn place(table: &str, url: &url::Url) -> Vec<(String, String)> {
    let mut bare = url.clone();
    bare.set_password(None).unwrap();
    let mut variables = vec![(format!("LONGSHORE__{table}__URL"), bare.to_string())];
    if let Some(password) = url.password() {
        variables.push((format!("{table}_PASSWORD"), password.to_owned()));
        let reference = format!("${{env:{table}_PASSWORD}}");
        variables.push((format!("LONGSHORE__{table}__PASSWORD"), reference));
    }
    variables
}

#[expect(clippy::disallowed_methods, reason = "the program is looked for before all others")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = Page::read(
        "p.md",
        "text\n```toml a/b.toml\nx = 1\n```\n```toml >>a/b.toml\ny = 2\n```\n```console\n$ ls \\\n  -l   # exit 2\na…\n\n$ pwd\n```\n",
    );
    let part = |add: bool, text: &str| {
        let (path, text) = ("a/b.toml".to_owned(), text.to_owned());
        Step::File { path, add, text }
    };
    let prints = vec!["a…".to_owned()];
    let command = "ls \\\n  -l   # exit 2".to_owned();
    let first = Step::Run { line: 9, command, exit: 2, prints };
    let pwd = "pwd".to_owned();
    let second = Step::Run { line: 13, command: pwd, exit: 0, prints: Vec::new() };
    assert_eq!(page.steps, [part(false, "x = 1\n"), part(true, "y = 2\n"), first, second]);
    assert_eq!(page.needs, None);
    let page = Page::read("p.md", "<!-- test: servers shop lake -->\n");
    let connections = vec!["shop".to_owned(), "lake".to_owned()];
    assert_eq!(page.needs, Some(Needs { servers: true, connections }));
}

#[tokio::test]
async fn a_page_that_is_wrong_is_told() {
    for (commands, wrong) in [
        ("$ echo one\none", None),
        (
            "$ cat a/b\n1\n2\n```\n```text a/b\n1\n```\n```text >>a/b\n2\n```\n```console\n$ cat a/b\n1\n2",
            Some("No such file"),
        ),
        (
            "$ true\n```\n```text a/b\n1\n```\n```text >>a/b\n2\n```\n```console\n$ cat a/b\n1\n2",
            None,
        ),
        ("$ printf 'a  1\\nb\\nc\\n'\na 1\n…\nc", None),
        ("$ echo took 5 s\ntook … s", None),
        ("$ cd / && false   # exit 1\n$ pwd\n/", None),
        ("$ echo one\ntwo", Some("is said to print\ntwo\nand prints\none")),
        ("$ echo took 5 m\ntook … s", Some("and prints\ntook 5 m")),
        ("$ false", Some("ended with Some(1), not 0")),
        ("$ exit 3\n$ pwd", Some("p.md:2: $ exit 3\nended with None, not 0")),
    ] {
        let page = Page::read("p.md", &format!("```console\n{commands}\n```\n"));
        let told = page.follow().await;
        match wrong {
            None => assert_eq!(told, Ok(()), "{commands}"),
            Some(wrong) => assert!(told.clone().unwrap_err().contains(wrong), "{told:?}"),
        }
    }
}
