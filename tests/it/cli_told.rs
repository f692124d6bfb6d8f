//! What a new user is told: where things are, what is run, what is missing, and why.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::cli::{House, told};
use crate::support::installation;

/// A one-shot command that a server does not answer gives up by then.
const PATIENCE: Duration = Duration::from_secs(6);

#[test]
fn run_takes_the_definition_that_the_file_has() {
    let house = House::new();
    let first = house.run(&["run", "orders"]);
    assert_eq!((first.0, first.2.as_str()), (0, "applied: orders, revision 1 (new)\n"));
    assert_eq!(house.run(&["run", "orders"]).2, "");

    house.write(
        "config/exports/orders.toml",
        "source = { connection = \"shop\", query = \"SELECT id FROM orders WHERE id = 1\" }\n\
         contract.fields.id = { type = \"int64\" }\n\
         sink = { connection = \"lake\", path = \"one\" }\n",
    );
    let (code, out, err) = house.run(&["run", "orders", "--key", "k"]);
    assert_eq!((code, err.as_str()), (0, "applied: orders, revision 2 (changed)\n"));
    assert!(out.contains("1 row,") && out.contains("to file:lake/one"), "{out}");
    // Only the one that is run.
    assert_eq!(house.objects(&["exports"]).len(), 1);

    house.write("config/exports/orders.toml", "sorce = 1");
    let error = house.fails(3, &["run", "orders"]);
    assert!(error.contains("unknown key `sorce`"), "{error}");
    std::fs::remove_file(house.path().join("config/exports/orders.toml")).unwrap();
    let (code, _, err) = house.run(&["run", "orders", "--key", "k"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("no file defines orders; revision 2, which is active, is run"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_servers_run_warns_of_a_file_that_is_not_applied() {
    installation::with("", async |installation| {
        let export = |id: i64| {
            format!(
                "[source]\nconnection = \"shop\"\nquery = \"SELECT {id}::bigint AS id\"\n\
                 [sink]\nconnection = \"lake\"\npath = \"one\"\nformat = \"jsonl\"\n"
            )
        };
        installation.export("one", &export(1));
        installation.apply().await;
        let run = |key: &'static str| {
            told(installation.command(&["run", "one", "--key", key]))
        };
        let (code, _, err) = run("first");
        assert_eq!((code, err.as_str()), (0, ""));
        installation.export("one", &export(2));
        let (code, out, err) = run("second");
        assert_eq!(code, 0, "{out}\n{err}");
        assert!(err.starts_with("warning: ") && err.contains("exports/one.toml differs from revision 1, which is run; `longshore apply` makes it active\n"), "{err}");
        assert_eq!(installation.objects(&["exports"]).await[0]["revision"], 1);

        // It needs no broker, and does not tell of one each time that it looks.
        let mut command = installation.command(&["run", "one", "--key", "third"]);
        command.env("LONGSHORE__QUEUE__URL", "amqp://guest@127.0.0.1:1/%2f");
        let (code, _, err) = told(command);
        assert_eq!((code, err.lines().count()), (0, 1), "{err}");
    })
    .await;
}

#[test]
fn paths_begin_beside_the_configuration_wherever_the_program_starts() {
    let house = House::new();
    house.done(&["apply"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let config = house.path().join("config").display().to_string();
    let from_elsewhere = |arguments: &[&str]| {
        let mut command = house.command(arguments);
        command.args(["--config", &config]).current_dir(elsewhere.path());
        told(command)
    };
    let (code, out, err) = from_elsewhere(&["run", "orders"]);
    assert_eq!(code, 0, "{err}");
    let place = format!("file:{}/lake/orders", house.path().display());
    assert!(out.contains(&format!(", to {place}\n")), "{out}");
    assert_eq!(from_elsewhere(&["verify", &place]).0, 0);
    assert!(from_elsewhere(&["runs"]).1.contains("orders"));
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(house.objects(&["runs"]).len(), 1);
}

#[test]
fn who_only_looks_makes_no_ledger() {
    let house = House::new();
    for command in [
        &["runs"][..],
        &["runs", "show", "ffffffff"],
        &["dead", "list"],
        &["dead", "replay", "--all", "--dry-run"],
        &["exports"],
        &["migrate", "--status"],
        &["enqueue", "orders"],
    ] {
        let error = house.fails(5, command);
        assert!(error.contains("there is no ledger at longshore.db yet"), "{error}");
    }
    assert_eq!(house.done(&["apply", "--dry-run"]).matches("new").count(), 2);
    assert!(!house.path().join("longshore.db").exists());
    house.done(&["migrate"]);
    house.done(&["migrate", "--status"]);
}

#[test]
fn the_audit_trail_tells_who_where_no_variable_does() {
    let house = House::new();
    let by = |name: &str, value: Option<&str>| {
        house.write("config/exports/orders.toml", &format!("description = \"{name}\"\nsource = {{ connection = \"shop\", table = \"orders\" }}\nsink = {{ connection = \"lake\", path = \"orders\" }}\n"));
        let mut command = house.command(&["apply"]);
        command.env_remove("USER").env_remove("LOGNAME");
        if let Some(value) = value {
            command.env(name, value);
        }
        assert_eq!(told(command).0, 0);
        house.objects(&["exports", "show", "orders"])[0]["applied_by"].as_str().unwrap().to_owned()
    };
    let me = Command::new("id").arg("-un").output().unwrap();
    let me = String::from_utf8(me.stdout).unwrap();
    assert!(by("nothing", None).starts_with(&format!("{}@", me.trim())));
    assert!(by("LOGNAME", Some("kari")).starts_with("kari@"));
    assert_eq!(by("LONGSHORE_BY", Some("deploy 17")), "deploy 17");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_once_and_soon() {
    installation::with("", async |installation| {
        installation.apply().await;
        let tried = |arguments: &[&str], name: &str, value: &str| {
            let started = Instant::now();
            let mut command = installation.command(arguments);
            command.env(name, value);
            let (code, _, err) = told(command);
            // A process that stays logs besides.
            let err: String =
                err.split_inclusive('\n').filter(|line| !line.starts_with('{')).collect();
            assert!(started.elapsed() < PATIENCE, "{arguments:?} took {:?}", started.elapsed());
            assert_eq!(err.lines().count(), 2, "{err}");
            (code, err)
        };
        let broker = "amqp://guest@127.0.0.1:1/%2f";
        let (code, err) = tried(&["dead", "list"], "LONGSHORE__QUEUE__URL", broker);
        assert_eq!(code, 4, "{err}");
        assert!(err.starts_with("error: ") && err.contains("RabbitMQ cannot be reached"), "{err}");
        assert!(err.contains("broker 127.0.0.1:1"), "{err}");

        // It takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let ledger = format!("postgres://nobody@{}/nothing", silent.local_addr().unwrap());
        let (code, err) = tried(&["runs"], "LONGSHORE__LEDGER__URL", &ledger);
        assert_eq!(code, 4, "{err}");
        assert!(err.contains("PostgreSQL did not answer within 2.5 s"), "{err}");

        for (command, name) in [
            (&["dead", "list"][..], "LONGSHORE__QUEUE__PASSWORD"),
            (&["runs"], "LONGSHORE__LEDGER__PASSWORD"),
            (&["worker"], "LONGSHORE__LEDGER__PASSWORD"),
        ] {
            let (code, err) = tried(command, name, "${env:NOT_SET_ANYWHERE}");
            assert_eq!(code, 3, "{err}");
            assert!(
                err.contains("the environment variable is not set (variable NOT_SET_ANYWHERE)"),
                "{err}"
            );
            assert!(
                err.contains("\nhelp: Set NOT_SET_ANYWHERE, or correct the reference."),
                "{err}"
            );
            let (code, err) = tried(command, name, "${file:/nowhere/at/all}");
            assert_eq!(code, 3, "{err}");
            assert!(err.contains("the file cannot be read (file /nowhere/at/all)"), "{err}");
        }
    })
    .await;
}

/// A store that answers the same to everybody.
fn store(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    });
    address
}

#[test]
fn verify_tells_why_a_store_does_not_give_the_delivery() {
    let house = House::new();
    let tried = |endpoint: &str| {
        let mut command = house.command(&["verify", "s3://lake/orders"]);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            command.env(name, "k");
        }
        command.env("AWS_REGION", "eu-north-1").env("AWS_ENDPOINT_URL", endpoint);
        let (code, _, err) = told(command);
        assert!(err.contains("s3://lake/orders"), "{err}");
        (code, err)
    };
    let (code, err) = tried("http://127.0.0.1:1");
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("the store cannot be reached"), "{err}");
    assert!(err.contains("AWS_ACCESS_KEY_ID") && err.contains("AWS_ENDPOINT_URL"), "{err}");
    let (code, err) = tried(&store("404 Not Found"));
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("no manifest is there"), "{err}");
    let (code, err) = tried(&store("400 Bad Request"));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("the store answered 400"), "{err}");
    let (code, err) = tried(&store("403 Forbidden"));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("the store refused access"), "{err}");

    let error = house.fails(2, &["verify", "http://127.0.0.1:1/orders"]);
    assert!(error.contains("http:// is no store"), "{error}");
}

#[test]
fn a_run_has_the_same_names_in_every_answer() {
    let house = House::new();
    house.done(&["apply"]);
    let job = ["daily", "--window", "2026-11-19", "--param", "country=SE"];
    let enqueued = house.objects(&[&["enqueue"][..], &job].concat());
    let ran = house.objects(&[&["run"][..], &job].concat());
    let listed = house.objects(&["runs"]);
    let name = listed[0]["run"].as_str().unwrap();
    let shown = house.objects(&["runs", "show", &name[28..]]);
    let again = house.objects(&[&["enqueue", "--wait"][..], &job].concat());
    let window = json!({"start": "2026-11-18T23:00:00Z", "end": "2026-11-19T23:00:00Z"});
    for answer in [&enqueued, &ran, &listed, &shown, &again] {
        assert_eq!(
            (&answer[0]["run"], &answer[0]["window"]),
            (&json!(name), &window),
            "{answer:?}"
        );
        let others = ["id", "window_start", "window_end"];
        assert!(others.iter().all(|other| answer[0].get(other).is_none()), "{answer:?}");
    }
    let verified = house.objects(&["verify", "lake/daily/2026-11-19/SE"]);
    assert_eq!(verified[0]["run"], name);

    let shown = &shown[0];
    assert_eq!(shown["manifest"]["run"], name);
    assert_eq!(shown["manifest"]["files"].as_array().unwrap().len(), 1);
    assert_eq!(shown.to_string().matches("longshore.manifest").count(), 1, "{shown}");
    assert_eq!(shown["delivery"]["place"], "file:lake/daily/2026-11-19/SE");
    assert_eq!(shown["decision"]["counts"]["written"], 2);
    let open: Vec<Json> = house.objects(&["enqueue", "orders"]);
    let open = house.objects(&["runs", "show", open[0]["run"].as_str().unwrap()]);
    assert_eq!((&open[0]["window"], &open[0]["manifest"]), (&Json::Null, &Json::Null));
}

#[test]
fn a_list_of_runs_tells_them_apart_and_what_it_leaves_out() {
    let house = House::new();
    house.done(&["apply"]);
    for (param, top) in [("country=SE", "top=10"), ("country=NO", "top=7")] {
        let job = ["enqueue", "daily", "--window", "2026-11-07", "--param", param, "--param", top];
        house.done(&job);
    }
    house.done(&["enqueue", "orders"]);
    let (_, out, err) = house.run(&["runs"]);
    assert!(out.contains("  2026-11-07 country=SE top=10  "), "{out}");
    assert!(out.contains("  2026-11-07 country=NO top=7   "), "{out}");
    assert_eq!(err, "");
    for json in [&["--json"][..], &[]] {
        let (code, out, err) = house.run(&[&["runs", "--limit", "2"], json].concat());
        assert_eq!((code, out.lines().count()), (0, 2 + usize::from(json.is_empty())), "{out}");
        assert_eq!(
            err,
            "these are the newest 2, and there are older ones: --limit 20 shows up to 20\n"
        );
    }
    assert_eq!(house.run(&["runs", "--limit", "3"]).2, "");

    let (code, _, err) = house.run(&["runs", "--export", "dayly"]);
    assert_eq!(code, 0);
    assert_eq!(err, "no export and no run is called `dayly`; did you mean `daily`?\n");
    assert_eq!(house.run(&["runs", "--export", "daily", "--state", "dead"]).2, "");
}

#[test]
fn on_a_terminal_an_empty_list_says_so() {
    let house = House::new();
    house.done(&["apply"]);
    assert!(house.done(&["runs"]).starts_with("RUN  EXPORT"));
    let inside = format!("{} runs", env!("CARGO_BIN_EXE_longshore"));
    let terminal = Command::new("script")
        .args(["--quiet", "--return", "--command", &inside, "/dev/null"])
        .current_dir(house.path())
        .env_remove("LONGSHORE_CONFIG")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(terminal.stdout).unwrap(), "no runs match\r\n");
}

#[test]
fn a_folder_of_entirely_other_exports_retires_none_unless_all_are_meant() {
    let house = House::new();
    house.done(&["apply"]);
    let exports = house.path().join("config/exports");
    std::fs::rename(exports.join("orders.toml"), exports.join("others.toml")).unwrap();
    std::fs::remove_file(exports.join("daily.toml")).unwrap();
    let error = house.fails(6, &["apply"]);
    assert!(
        error.contains("none of those active is there, and that would retire all 2 exports"),
        "{error}"
    );
    assert!(error.contains("--all"), "{error}");
    let active = |house: &House| -> Vec<String> {
        let exports = house.objects(&["exports"]);
        exports.iter().map(|one| one["export"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(active(&house), ["daily", "orders"]);
    let dry = house.done(&["apply", "--dry-run"]);
    assert!(dry.contains("Run again without --dry-run, and with --all."), "{dry}");
    house.done(&["apply", "--all"]);
    assert_eq!(active(&house), ["others"]);
}

#[test]
fn what_is_wrong_with_one_export_stops_no_other() {
    let house = House::new();
    house.write("config/exports/wrong.toml", "sorce = 1");
    house.write("config/exports/torn.toml", "[source");
    house.write("config/exports/below/_defaults.toml", "[sink");
    house.write("config/exports/below/under.toml", "");
    for arguments in [
        &["run", "orders"][..],
        &["preview", "orders"],
        &["run", "orders", "--to", "try"],
        &["exports", "show", "orders"],
        &["exports", "show", "orders", "--resolved"],
        &["exports", "diff", "orders"],
    ] {
        house.done(arguments);
    }
    house.fails(3, &["apply"]);
    assert_eq!(house.run(&["check"]).0, 1);
    for (name, words) in
        [("wrong", "unknown key `sorce`"), ("torn", "no TOML"), ("under", "no TOML")]
    {
        let error = house.fails(3, &["preview", name]);
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(error.matches("error[").count(), 1, "{error}");
    }
    let error = house.fails(5, &["preview", "ordres"]);
    assert!(error.contains("daily, orders"), "{error}");

    let error = house.fails(2, &["enqueue", "orders", "--not-before", "2h", "--deadline", "1h"]);
    assert!(error.contains("the deadline is not after the time of --not-before"), "{error}");
}
