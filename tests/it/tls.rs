//! TLS to every server: it works with an authority that is trusted, and whatever is wrong with the
//! other side is refused before a password is sent.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore::claims::redis::RedisClaims;
use longshore::claims::{Claim, Claims};
use longshore::connect::files::{Store, classify};
use longshore::connect::{Connection, postgres};
use longshore::delivery::verify_manifest;
use longshore::error::{Class, Error};
use longshore::queue::Queue;
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::secret::Secret;
use object_store::ObjectStoreExt;
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::installation::{self, Installation, message};
use crate::support::processes::{Process, succeeded};
use crate::support::s3::S3;
use crate::support::servers::{self, amqp};
use crate::support::tls::{Authority, SSL_REQUEST, Tls};

const SOON: Duration = Duration::from_secs(30);

/// A name that leads to this machine only by what a URL says beside it, so that it counts as
/// another machine's.
const ELSEWHERE: &str = "db.elsewhere.test";

fn shop(url: &str, ca: Option<&Path>) -> Connection {
    let server = servers::postgres();
    let password = server.password().unwrap_or("hunter2");
    let mut connection: Connection = serde_json::from_value(json!({
        "type": "postgres", "url": url, "tls": "verify-full", "ca": ca, "password": password,
    }))
    .unwrap();
    connection.name = "shop".to_owned();
    connection
}

async fn refused(connection: &Connection) -> Error {
    postgres::connect(connection, "test").await.map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn a_database_is_trusted_by_authority_name_and_dates() {
    let (ours, other) = (Authority::new(), Authority::new());
    let ca = ours.file();
    let server = servers::postgres();
    let good = Tls::before(&server, ours.certify(&["localhost", ELSEWHERE])).await;
    let url = good.url("postgres", "localhost");
    let client = postgres::connect(&shop(url.as_str(), Some(&ca)), "test").await.unwrap();
    assert_eq!(client.query_one("SELECT 7", &[]).await.unwrap().get::<_, i32>(0), 7);
    client.close().await;
    let mut url = good.url("postgres", ELSEWHERE);
    url.set_query(Some("hostaddr=127.0.0.1"));
    let mut remote = shop(url.as_str(), Some(&ca));
    remote.tls = None;
    postgres::connect(&remote, "test").await.unwrap().close().await;
    assert_eq!(good.sessions(), 2);

    let unknown = Tls::before(&server, other.certify(&["localhost"])).await;
    let expired = Tls::before(&server, ours.certify_until_2021(&["localhost"])).await;
    for (way, host, ca, words) in [
        (&unknown, "localhost", Some(&ca), "UnknownIssuer"),
        (&good, "localhost", None, "UnknownIssuer"),
        (&good, "127.0.0.1", Some(&ca), "not valid for name \"127.0.0.1\""),
        (&expired, "localhost", Some(&ca), "certificate expired"),
    ] {
        let before = way.sessions();
        let url = way.url("postgres", host);
        let error = refused(&shop(url.as_str(), ca.map(|ca| ca.as_path()))).await;
        assert_eq!(error.class(), Class::Permanent, "{error}");
        let text = error.to_string();
        assert!(text.contains("TLS failed: ") && text.contains(words), "{text}");
        assert!(text.contains("(connection shop, server "), "{text}");
        assert!(error.advice().unwrap().contains("`ca`"), "{error:?}");
        assert_eq!(way.sessions(), before, "{text}");
    }
}

#[tokio::test]
async fn a_store_of_an_unknown_authority_is_refused() {
    let server = S3::s3s().await;
    let way = Tls::before(&server.url(), Authority::new().certify(&["localhost"])).await;
    let mut connection = server.connection("");
    connection.endpoint = Some(way.url("https", "localhost").into());
    let store = Store::open(&connection).unwrap();
    let answer = store.objects.head(&store.path("x").unwrap()).await;
    let error = classify("look", answer.unwrap_err());
    assert_eq!(error.class(), Class::Permanent, "{}", error.chain());
    let text = error.to_string();
    assert!(text.contains("no safe connection to the store: TLS failed: "), "{text}");
    assert!(text.contains("UnknownIssuer"), "{text}");
    assert!(error.advice().unwrap().contains("SSL_CERT_FILE"), "{error:?}");
    assert_eq!(way.sessions(), 0);
}

/// A server without TLS: it answers the first bytes of everybody with `answer`, and keeps all that
/// it is sent.
async fn plain(answer: &'static [u8]) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let keep = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let mut answered = false;
            while let Ok(count @ 1..) = client.read(&mut buffer).await {
                keep.lock().unwrap().extend_from_slice(&buffer[..count]);
                if !answered && client.write_all(answer).await.is_err() {
                    break;
                }
                answered = true;
            }
        }
    });
    (port, sent)
}

#[tokio::test]
async fn a_server_without_tls_is_sent_no_password() {
    let password = || Some(Secret::Literal("hunter2".to_owned()));
    let (port, sent) = plain(b"N").await;
    let error = refused(&shop(&format!("postgres://u@localhost:{port}/d"), None)).await;
    assert_eq!(error.class(), Class::Permanent);
    assert!(error.to_string().contains("server does not support TLS"), "{error}");
    assert!(error.advice().unwrap().contains("the server offers TLS"), "{error:?}");
    assert_eq!(*sent.lock().unwrap(), SSL_REQUEST);

    let (port, sent) = plain(b"-ERR unknown command\r\n").await;
    let url = format!("rediss://localhost:{port}");
    let claims = RedisClaims::connect(&url, password(), "test".to_owned()).unwrap();
    let claim = Claim { key: "k".to_owned(), token: "t".to_owned() };
    let error = claims.claim(&claim, SOON).await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{}", error.chain());
    assert!(error.to_string().contains("no safe connection to Redis: TLS failed"), "{error}");
    assert_no_password(&sent);
    // Nor can the checks be turned off by what the driver knows besides.
    let claims = RedisClaims::connect(&format!("{url}/#insecure"), password(), "test".to_owned());
    assert_eq!(claims.unwrap().claim(&claim, SOON).await.unwrap_err().class(), Class::Config);
    assert_no_password(&sent);

    let (port, sent) = plain(b"AMQP\0\0\x09\x01").await;
    let queue = RabbitMq::connect(Settings {
        url: format!("amqps://u@localhost:{port}/%2f"),
        password: password(),
        prefix: "test".to_owned(),
        max_length: 1,
    });
    let error = queue.unwrap().declare(&["a".to_owned()]).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("no safe connection to RabbitMQ: TLS failed"), "{error}");
    assert_no_password(&sent);
}

fn assert_no_password(sent: &Mutex<Vec<u8>>) {
    let sent = sent.lock().unwrap();
    assert!(!sent.is_empty(), "nobody connected");
    assert!(!sent.windows(7).any(|bytes| bytes == b"hunter2"), "the password was sent");
}

/// The servers of an installation, each behind TLS.
struct Ways {
    queue: Tls,
    ledger: Tls,
    claims: Tls,
}

impl Ways {
    async fn before(installation: &Installation, config: &Arc<ServerConfig>) -> Ways {
        Ways {
            queue: Tls::before(&amqp(), config.clone()).await,
            ledger: Tls::before(&installation.database.url, config.clone()).await,
            claims: Tls::before(&installation.redis.url, config.clone()).await,
        }
    }

    /// The settings that lead to queue, ledger and claims.
    fn settings(&self) -> [(&'static str, String); 3] {
        let mut ledger = self.ledger.url("postgres", ELSEWHERE);
        ledger.set_query(Some("hostaddr=127.0.0.1"));
        [
            ("LONGSHORE__QUEUE__URL", self.queue.url("amqps", "localhost").into()),
            ("LONGSHORE__LEDGER__URL", ledger.into()),
            ("LONGSHORE__CLAIMS__URL", self.claims.url("rediss", "localhost").into()),
        ]
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_works_over_tls_alone() {
    installation::with("", async |installation| {
        let authority = Authority::new();
        let config = authority.certify(&["localhost", ELSEWHERE]);
        let ways = Ways::before(installation, &config).await;
        let shop = Tls::before(&installation.database.url, config.clone()).await;
        let server = S3::s3s().await;
        let lake = Tls::before(&server.url(), config).await;
        installation
            .database
            .client
            .batch_execute("CREATE TABLE t AS SELECT 1 AS id")
            .await
            .unwrap();
        installation.export(
            "t",
            "source = { connection = \"shop\", table = \"t\" }\n\
             sink = { connection = \"lake\", path = \"t\", format = \"csv\" }\n",
        );
        installation.write(
            "connections.tls.toml",
            &format!(
                "[shop]\nurl = \"{}\"\ntls = \"verify-full\"\n\
                 [lake]\nurl = \"s3://lake/out\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\n\
                 access-key = \"${{env:TEST_ACCESS}}\"\nsecret-key = \"${{env:TEST_SECRET}}\"\n",
                shop.url("postgres", "localhost"),
                lake.url("https", "localhost").as_str().trim_end_matches('/'),
            ),
        );
        let command = |arguments: &[&str]| {
            let mut command = installation.command(arguments);
            command.env("LONGSHORE_ENV", "tls").env("SSL_CERT_FILE", authority.file());
            command.env("TEST_ACCESS", &server.keys.0).env("TEST_SECRET", &server.keys.1);
            command.envs(ways.settings());
            command
        };
        let run = async |arguments: &[&str]| {
            succeeded(&arguments.join(" "), output(command(arguments)).await)
        };
        run(&["migrate"]).await;
        run(&["apply"]).await;
        let logs = tempfile::tempdir().unwrap();
        let processes = ["scheduler", "worker"]
            .map(|name| Process::start(command(&[name]), logs.path().join(name)));
        let body = json!({"export": "t", "key": "published"});
        installation.publish(&[message(&installation.pool, &body)]).await;
        let done = "SELECT count(*) = 1 FROM runs WHERE state = 'done'";
        installation.until("the published job is done", SOON, done).await;
        run(&["enqueue", "t", "--key", "enqueued", "--wait"]).await;
        run(&["dead", "list"]).await;
        let store = Store::open(&server.connection("out")).unwrap();
        let found = verify_manifest(&store, "t/_manifest.json", true).await.unwrap();
        assert!(found.is_intact() && found.rows == 1, "{:?}", found.mismatches);
        let marks = redis::cmd("KEYS").arg("longshore:claim:*").clone();
        assert_eq!(installation.redis.ask::<Vec<String>>(&marks).await.len(), 2);
        for (what, way) in [
            ("queue", &ways.queue),
            ("ledger", &ways.ledger),
            ("claims", &ways.claims),
            ("source", &shop),
            ("sink", &lake),
        ] {
            assert!(way.sessions() > 0, "nothing went by TLS to the {what}");
        }
        installation.end(processes, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_trusted_are_refused_with_place_and_remedy() {
    installation::with("", async |installation| {
        installation.apply().await;
        let (ours, other) = (Authority::new(), Authority::new());
        let names = ["localhost", ELSEWHERE];
        for (config, words) in [
            (other.certify(&names), "UnknownIssuer"),
            (ours.certify(&["another.test"]), "not valid for name"),
            (ours.certify_until_2021(&names), "certificate expired"),
        ] {
            let ways = Ways::before(installation, &config).await;
            // The process reaches all servers but one as it is used to.
            let with = |setting: usize, arguments: &[&str]| {
                let mut command = installation.command(arguments);
                command.env("SSL_CERT_FILE", ours.file()).envs([ways.settings()[setting].clone()]);
                command
            };
            let (queue, ledger, claims) = tokio::join!(
                output(with(0, &["dead", "list"])),
                output(with(1, &["runs"])),
                unready(with(2, &["worker"])),
            );
            for (place, output) in [("broker localhost:", queue), ("for the ledger", ledger)] {
                let text = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(4), "{text}");
                assert!(text.contains("TLS failed: ") && text.contains(words), "{text}");
                assert!(text.contains(place) && text.contains("SSL_CERT_FILE"), "{text}");
            }
            assert!(claims.contains("no safe connection to Redis: TLS failed: "), "{claims}");
            assert!(claims.contains(words) && claims.contains("localhost:"), "{claims}");
            for (what, way) in
                [("queue", &ways.queue), ("ledger", &ways.ledger), ("claims", &ways.claims)]
            {
                assert_eq!(way.sessions(), 0, "{what}: {words}");
            }
        }
    })
    .await;
}

/// Why a process says that its claims are away.
async fn unready(mut command: Command) -> String {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    command.env("LONGSHORE__HTTP__LISTEN", free.to_string());
    let logs = tempfile::tempdir().unwrap();
    let process = Process::start(command, logs.path().join("log"));
    let started = Instant::now();
    loop {
        if let Ok(mut stream) = TcpStream::connect(free).await {
            let request = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let cause = body["dependencies"]["claims"]["cause"].as_str().unwrap();
            if cause != "not reached yet" {
                process.kill();
                return cause.to_owned();
            }
        }
        assert!(started.elapsed() < SOON, "it does not say why:\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
