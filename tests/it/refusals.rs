//! What RabbitMQ and Redis refuse is told in their words, with the remedy, and without a secret.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use longshore::claims::Claims;
use longshore::claims::redis::RedisClaims;
use longshore::error::{Class, Error};
use longshore::queue::Queue;
use longshore::queue::rabbitmq::{RabbitMq, Settings};
use longshore::secret::Secret;
use tokio::time::Instant;

use crate::support::installation;
use crate::support::processes::Process;
use crate::support::servers::{self, amqp};
use crate::support::tls::{Authority, Tls};

const SOON: Duration = Duration::from_secs(20);

fn claims(url: &str, password: Option<&str>, prefix: &str) -> RedisClaims {
    let password = password.map(|text| Secret::Literal(text.to_owned()));
    RedisClaims::connect(url, password, prefix.to_owned()).unwrap()
}

fn tells(error: &Error, class: Class, words: &str, help: &str) {
    let all = format!("{} {error:?} {:?}", error.chain(), error.advice());
    assert_eq!(error.class(), class, "{all}");
    assert!(error.message().contains(words), "no {words} in {all}");
    assert!(error.advice().unwrap().contains(help), "no {help} in {all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[tokio::test]
async fn redis_says_why_it_refuses_a_user() {
    let client = redis::Client::open(servers::redis().as_str()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let prefix = format!("longshore-test-{}", uuid::Uuid::now_v7());
    let mut url = servers::redis();
    url.set_username(&prefix).unwrap();
    let mut acl = async |rules: &[&str]| {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER").arg(&prefix).arg(rules);
        let () = set.query_async(&mut admin).await.unwrap();
    };
    acl(&["on", ">other"]).await;
    let error = claims(url.as_str(), Some("hunter2"), &prefix).ping().await.unwrap_err();
    let words = "Redis refused the login: WRONGPASS invalid username-password pair";
    tells(&error, Class::Permanent, words, "[claims] password");

    acl(&["nopass"]).await;
    for password in [Some("hunter2"), None] {
        let error = claims(url.as_str(), password, &prefix).ping().await.unwrap_err();
        tells(&error, Class::Permanent, "NOPERM", &format!("ACL SETUSER {prefix} "));
        // What is advised is enough, as it is written.
        let rules = error.advice().unwrap().split_once(&format!("{prefix} ")).unwrap().1;
        let rules = rules.replace("~longshore:*", &format!("~{prefix}:*"));
        acl(&rules.split(' ').collect::<Vec<_>>()).await;
        claims(url.as_str(), password, &prefix).ping().await.unwrap();
        acl(&["nocommands", "resetkeys"]).await;
    }
    let mut gone = redis::cmd("ACL");
    let _: i64 = gone.arg(&["DELUSER", prefix.as_str()]).query_async(&mut admin).await.unwrap();
}

#[tokio::test]
async fn redis_that_wants_a_password_or_tls_says_so() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--requirepass", "hunter2"])
        .current_dir(folder.path());
    let _server = Process::start(command, folder.path().join("log"));
    let url = format!("redis://127.0.0.1:{port}");
    let wanting = claims(&url, None, "x");
    let started = Instant::now();
    let error = loop {
        let error = wanting.ping().await.unwrap_err();
        if error.class() == Class::Permanent {
            break error;
        }
        assert!(started.elapsed() < SOON, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tells(&error, Class::Permanent, "NOAUTH Authentication required", "[claims] password");
    claims(&url, Some("hunter2"), "x").ping().await.unwrap();
    let error = claims(&format!("{url}/9999"), Some("hunter2"), "x").ping().await.unwrap_err();
    tells(&error, Class::Config, "ERR DB index is out of range", "[claims] url");
    let error = claims(&url.replace("redis:", "rediss:"), None, "x").ping().await.unwrap_err();
    tells(&error, Class::Unavailable, "did not answer in time", "speaks TLS");

    let server = url::Url::parse(&url).unwrap();
    let way = Tls::before(&server, Authority::new().certify(&["localhost"])).await;
    let plain = way.url("redis", "127.0.0.1");
    let error = claims(plain.as_str(), Some("hunter2"), "x").ping().await.unwrap_err();
    tells(&error, Class::Unavailable, "answered what cannot be understood", "rediss://");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_says_what_a_user_may_not_declare() {
    // Names that begin so are the broker's own, and nobody may declare them.
    let prefix = format!("amq.longshore-test-{}", uuid::Uuid::now_v7().simple());
    let settings = Settings { url: amqp().into(), password: None, prefix, max_length: 1 };
    let queue = RabbitMq::connect(settings).unwrap();
    let error = queue.declare(&["a".to_owned()]).await.unwrap_err();
    tells(&error, Class::Refused, "RabbitMQ refuses it: ACCESS_REFUSED - ", "set_permissions");
    assert!(error.message().ends_with("; it is not there yet"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_tell_why_the_broker_does_not_let_them_in() {
    installation::with("", async |installation| {
        installation.run(&["migrate"]).await;
        let mut elsewhere = amqp();
        elsewhere.set_password(None).unwrap();
        elsewhere.set_path("no-such-vhost");
        let url = ("LONGSHORE__QUEUE__URL", elsewhere.as_str());
        let password = ("TEST_AMQP_PASSWORD", "hunter2");
        for (changed, words, help) in [
            (url, "NOT_ALLOWED - vhost no-such-vhost not found", "rabbitmqctl add_vhost"),
            (password, "ACCESS_REFUSED - Login was refused", "rabbitmqctl authenticate_user"),
        ] {
            let mut command = installation.command(&["dead", "list"]);
            command.env(changed.0, changed.1);
            let output =
                tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(4), "{text}");
            assert!(text.contains(words) && text.contains(help), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    })
    .await;
}
