//! What `check --connect` finds, and what is refused before a run could fail on it.

use std::io::{BufRead, Write};

use super::{BROKEN, CONNECTIONS, House};
use crate::support::s3;
use crate::support::sample::ORDERS;

/// An address of this machine at which nobody listens.
fn nobody() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn connecting_asks_the_sinks() {
    let house = House::new();
    let warehouse = "[warehouse]\ntype = \"sqlite\"\nurl = \"sqlite:warehouse.db\"\n";
    let away = s3::connection(nobody(), "x");
    let away = format!(
        "[away]\ntype = \"files\"\nurl = \"{}\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
         access-key = \"${{env:USER}}\"\nsecret-key = \"${{env:USER}}\"\n",
        away.url,
        away.endpoint.unwrap()
    );
    house.write("config/connections.toml", &format!("{CONNECTIONS}{warehouse}{away}"));
    let to_table = ORDERS.replace(
        "connection = \"lake\", path = \"orders\"",
        "connection = \"warehouse\", table = \"o\"",
    );
    house.write("config/exports/table.toml", &to_table);
    house.write("config/exports/bucket.toml", &ORDERS.replace("\"lake\"", "\"away\""));
    house.done(&["check"]);

    let connect = |words: &[&str]| {
        let (code, found, err) = house.run(&["check", "--connect"]);
        assert_eq!(code, 1, "{found}\n{err}");
        for word in words {
            assert!(found.contains(word), "no {word} in {found}");
        }
    };
    // The files are there, the database is not, and nobody listens.
    connect(&[
        "cannot open the SQLite database: the file cannot be opened",
        "target warehouse/o",
        "config/exports/table.toml",
        "cannot list the folder: the store cannot be reached (target away/orders)",
        "config/exports/bucket.toml",
        "= help: Check the endpoint of the connection",
        "2 exports cannot run",
    ]);
    let warehouse = rusqlite::Connection::open(house.path().join("warehouse.db")).unwrap();
    connect(&[
        "there is no such table (table o, target warehouse/o)",
        "= help: Create it, for instance so: CREATE TABLE \"o\" (\"id\" INTEGER, \"amount\" INTEGER, \"country\" TEXT);",
    ]);
    warehouse.execute_batch("CREATE TABLE o (id INTEGER, amount INTEGER)").unwrap();
    connect(&["the table has no such column (column country, target warehouse/o)"]);
    warehouse.execute_batch("ALTER TABLE o ADD COLUMN country TEXT").unwrap();
    std::fs::remove_file(house.path().join("config/exports/bucket.toml")).unwrap();
    assert!(house.done(&["check", "--connect"]).contains("all is well"));
    let tables: i64 =
        warehouse.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1, "nothing is written");
    assert!(!house.path().join("lake/.longshore").exists(), "nothing is left behind");
    assert!(!house.path().join("longshore.db").exists());
}

/// A bucket that can be listed, and takes nothing.
fn read_only() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = std::io::BufReader::new(stream.unwrap());
            let mut lines = (&mut stream).lines().map(Result::unwrap);
            let first = lines.next().unwrap_or_default();
            // To the end of the head; what follows is of no interest.
            lines.find(|line| line.is_empty());
            let (status, body) = match first.starts_with("GET ") {
                true => ("200 OK", "<ListBucketResult></ListBucketResult>"),
                false => ("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"),
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

#[test]
fn connecting_tries_whether_folders_can_be_written() {
    let house = House::new();
    let bucket = s3::connection(read_only(), "x");
    let (url, endpoint) = (bucket.url, bucket.endpoint.unwrap());
    let connections = format!(
        "[sealed]\ntype = \"files\"\nurl = \"file:///sys\"\n\
         [shown]\ntype = \"files\"\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\n\
         region = \"us-east-1\"\naccess-key = \"${{env:USER}}\"\nsecret-key = \"${{env:USER}}\"\n"
    );
    house.write("config/connections.toml", &format!("{CONNECTIONS}{connections}"));
    for name in ["sealed", "shown"] {
        let export = ORDERS.replace("\"lake\"", &format!("\"{name}\""));
        house.write(&format!("config/exports/{name}.toml"), &export);
    }
    house.done(&["check"]);
    let (code, found, err) = house.run(&["check", "--connect"]);
    assert_eq!(code, 1, "{found}\n{err}");
    let here = "cannot write to the staging folder: the system refused access (place /sys/.longshore, user ";
    let there = format!(
        "cannot write to the staging folder: the store refused access (place {url}/.longshore, \
         access-key ${{env:USER}}, target shown/orders)"
    );
    for words in [
        here,
        "target sealed/orders)",
        "= help: Let this user write below /sys.",
        &there,
        "= help: Allow it s3:PutObject and s3:DeleteObject below",
        "2 exports cannot run",
    ] {
        assert!(found.contains(words), "no {words} in {found}");
    }
}

#[test]
fn connecting_asks_queue_ledger_and_claims() {
    let house = House::new();
    let (queue, ledger, claims) = (nobody(), nobody(), nobody());
    house.write(
        "config/longshore.toml",
        &format!(
            "[queue]\nurl = \"amqp://guest@127.0.0.1:{queue}/%2f\"\n\
             [ledger]\nurl = \"postgres://nobody@127.0.0.1:{ledger}/nothing\"\n\
             [claims]\nurl = \"redis://127.0.0.1:{claims}\"\n"
        ),
    );
    house.done(&["check"]);
    let (code, found, _) = house.run(&["check", "--connect", "--json"]);
    assert_eq!(code, 1);
    let told: Vec<serde_json::Value> = found
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|one: &serde_json::Value| one["level"] == "error")
        .collect();
    assert_eq!(told.len(), 3, "{found}");
    for (one, (part, port)) in
        told.iter().zip([("queue", queue), ("ledger", ledger), ("claims", claims)])
    {
        assert_eq!((&one["part"], &one["class"]), (&part.into(), &"unavailable".into()), "{one}");
        assert_eq!(one["file"], "config/longshore.toml");
        assert!(one["message"].as_str().unwrap().contains(&format!("127.0.0.1:{port}")), "{one}");
        assert!(one["help"].as_str().is_some_and(|help| !help.is_empty()), "{one}");
    }
    let (code, found, _) = house.run(&["check", "--connect"]);
    assert_eq!(code, 1);
    assert!(
        found.contains("checked 2 exports and 2 connections: 3 servers cannot be used"),
        "{found}"
    );
}

#[test]
fn two_exports_do_not_replace_each_other() {
    let house = House::new();
    house.write("config/exports/twin.toml", ORDERS);
    let (code, found, _) = house.run(&["check"]);
    assert_eq!(code, 1);
    assert!(found.contains("`orders` and `twin` may deliver to one folder"), "{found}");
    assert!(found.contains("--> config/exports/twin.toml:2:"), "{found}");
    assert!(found.contains("that of `orders` is config/exports/orders.toml:2"), "{found}");
    let error = house.fails(3, &["apply"]);
    assert!(error.contains("may deliver to one folder"), "{error}");
}

#[test]
fn jobs_that_cannot_succeed_are_not_taken() {
    let house = House::new();
    let monthly = ORDERS.replace("path = \"orders\"", "path = \"months/{window_start:%Y-%m}\"");
    house.write("config/exports/monthly.toml", &monthly);
    house.done(&["apply"]);
    let months = ["--window", "1998-02..1998-05"];
    for command in
        [&["enqueue", "monthly"][..], &["run", "monthly"], &["run", "monthly", "--to", "x"]]
    {
        let error = house.fails(2, &[command, &months].concat());
        assert!(error.contains("path months/1998-02"), "{error}");
        assert!(error.contains("\nhelp: Ask for its parts"), "{error}");
    }
    let error = house.fails(2, &["enqueue", "monthly"]);
    assert!(error.contains("the export uses it in [sink] path"), "{error}");
    assert!(error.contains("\nhelp: Give the job a window."), "{error}");
    let error = house.fails(2, &["enqueue", "orders", "--deadline", "2020-01-01T00:00:00Z"]);
    assert!(error.contains("the deadline has passed"), "{error}");
    let error =
        house.fails(2, &["enqueue", "daily", "--window", "2026-10-19", "--param", "country=SE"]);
    assert!(error.contains("the nearest is 2026-11-01."), "{error}");
    let error =
        house.fails(2, &["enqueue", "daily", "--window", "2026-11-19", "--param", "country=DK"]);
    assert!(error.contains("\nhelp: Allowed are: NO, SE."), "{error}");
    assert_eq!(house.done(&["runs", "--json"]), "");
    house.done(&["enqueue", "monthly", "--window", "1998-02"]);
}

#[test]
fn connecting_says_what_it_cannot_look_at() {
    let house = House::new();
    std::fs::write(house.path().join("lake/in_7.csv"), "n\n7\n").unwrap();
    let export = "[params]\nfile = { type = \"string\" }\n\
        [source]\nconnection = \"lake\"\npath = \"in_{file}.csv\"\n\
        [contract.fields]\nn = { type = \"int64\" }\n\
        [sink]\nconnection = \"lake\"\npath = \"out/{file}\"\n";
    house.write("config/exports/files.toml", export);
    let found = house.done(&["check", "--connect"]);
    assert!(found.contains("note: not looked at") && found.contains("{file}"), "{found}");
    assert!(found.contains("all is well"), "{found}");
    let shown = house.done(&["preview", "files", "--param", "file=7"]);
    assert!(shown.contains("1 row"), "{shown}");
}

#[test]
fn connecting_finds_what_the_files_cannot_tell() {
    let house = House::new();
    house.write("config/exports/broken.toml", BROKEN);
    house.done(&["check"]);
    let (code, found, _) = house.run(&["check", "--connect"]);
    assert_eq!(code, 1);
    assert!(found.contains("email") && found.contains("broken.toml"), "{found}");
    assert!(found.contains("1 export cannot run"), "{found}");
}
