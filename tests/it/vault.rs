//! Secrets in a vault: how they are read, what is told where they cannot be, and jobs that wait for them.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use longshore::error::Class;
use longshore::secret::Secret;
use secrecy::ExposeSecret;
use serde_json::{Value as Json, json};

use crate::probes;
use crate::support::installation::{self, Installation};
use crate::support::tls::{Authority, Tls};
use crate::support::vault::{TOKEN, Vault, secret};

const SOON: Duration = Duration::from_secs(60);

async fn read(secret: &Secret) -> String {
    secret.read().await.unwrap().expose_secret().to_owned()
}

#[tokio::test]
async fn both_versions_are_read_anew_and_a_burst_makes_one_request() {
    let vault = Vault::start().await;
    vault.keep("kv/shop", json!({"password": "first"}));
    vault.keep_second("secret/data/shop", json!({"password": "second", "other": "third"}));
    let first = vault.secret("kv/shop#password");
    assert_eq!(read(&first).await, "first");
    let mut settings = vault.settings();
    settings.namespace = Some("team".to_owned());
    let second = secret(settings, "secret/data/shop#password");
    assert_eq!(read(&second).await, "second");
    assert_eq!(vault.kept().namespace.as_deref(), Some("team"));

    vault.keep("kv/shop", json!({"password": "changed"}));
    vault.kept().asked.clear();
    vault.kept().pause = Duration::from_millis(200);
    let burst = futures::future::join_all((0..50).map(|_| read(&first))).await;
    assert!(burst.iter().all(|one| one == "changed"), "{burst:?}");
    assert_eq!(vault.kept().asked, ["kv/shop"]);
    // What was read is not kept.
    vault.keep("kv/shop", json!({"password": "again"}));
    assert_eq!(read(&first).await, "again");
}

#[tokio::test]
async fn what_cannot_be_read_has_its_class_and_tells_no_secret() {
    let vault = Vault::start().await;
    vault.keep("kv/shop", json!({"password": "canary", "number": 7, "empty": ""}));
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut settings = vault.settings();
    settings.url = format!("http://127.0.0.1:{port}");
    let nobody = secret(settings, "kv/shop#password");
    let mut settings = vault.settings();
    settings.token = Secret::Literal("hvs.canary-of-another".to_owned());
    let refused = secret(settings.clone(), "kv/shop#password");
    settings.token = Secret::File("/nowhere/token".to_owned());
    let tokenless = secret(settings, "kv/shop#password");

    for (secret, class, words, help) in [
        (&nobody, Class::Unavailable, "it cannot be reached", "[vault] url"),
        (&refused, Class::Config, "it refuses the token (403)", "path \"kv/shop\""),
        (&tokenless, Class::Config, "(file /nowhere/token, for [vault]", "Check that it exists"),
        (&vault.secret("kv/none#password"), Class::Config, "nothing is there (404)", "/v1/"),
        (&vault.secret("kv/shop#pasword"), Class::Config, "there is no such field", "correct the"),
        (
            &vault.secret("kv/shop#number"),
            Class::Config,
            "the field is empty or no text",
            "as text",
        ),
        (&vault.secret("kv/shop#empty"), Class::Config, "the field is empty or no text", "as text"),
    ] {
        tells(secret, class, words, help).await;
    }
    let there = vault.secret("kv/shop#password");
    let long = format!("{{\"data\":{{\"password\":\"{}\"}}}}", "canary".repeat(1 << 18));
    for (status, body, class, words) in [
        (200, long.as_str(), Class::Config, "the answer is none with a secret"),
        (200, "canary", Class::Config, "the answer is none with a secret"),
        (200, r#"{"data":{"keys":["canary"]}}"#, Class::Config, "there is no such field"),
        (307, "canary", Class::Unavailable, "it leads elsewhere (307)"),
        (400, "canary", Class::Config, "it answered 400"),
        (429, "canary", Class::Unavailable, "it answered 429"),
        (500, "canary", Class::Unavailable, "it answered 500"),
        (503, "canary", Class::Unavailable, "it is sealed"),
    ] {
        vault.kept().instead = Some((status, body.to_owned()));
        tells(&there, class, words, "").await;
    }
    // No redirect was followed.
    assert!(!vault.kept().asked.iter().any(|path| path == "elsewhere"));
    vault.kept().instead = None;
    vault.kept().pause = Duration::from_secs(60);
    tells(&there, Class::Unavailable, "it did not answer in time", "[vault] url").await;
    let unbound = Secret::parse("${vault:kv/shop#password}").unwrap();
    tells(&unbound, Class::Config, "there is no [vault]", "longshore.toml").await;
}

async fn tells(secret: &Secret, class: Class, words: &str, help: &str) {
    for (answer, class) in
        [(secret.read().await, class), (secret.read_for_job().await, Class::Unavailable)]
    {
        let error = answer.unwrap_err();
        let all = format!("{} {error:?} {secret:?} {}", error.chain(), error.advice().unwrap());
        assert_eq!(error.class(), class, "{all}");
        assert!(error.to_string().contains(words), "no {words} in {all}");
        assert!(error.to_string().contains("kv/"), "{all}");
        assert!(error.advice().unwrap().contains(help), "no {help} in {all}");
        assert!(!all.contains("canary") && !all.contains("hvs."), "{all}");
    }
}

#[tokio::test]
async fn only_a_vault_of_a_trusted_authority_is_shown_the_token() {
    let vault = Vault::start().await;
    vault.keep("kv/shop", json!({"password": "canary"}));
    let ours = Authority::new();
    let ca = ours.file();
    let way = Tls::before(&vault.url(), ours.certify(&["localhost"])).await;
    let mut settings = vault.settings();
    settings.url = way.url("https", "localhost").into();
    tells(&secret(settings.clone(), "kv/shop#password"), Class::Unavailable, "UnknownIssuer", "ca")
        .await;
    assert_eq!(way.sessions(), 0);
    settings.ca = Some(ca.display().to_string());
    assert_eq!(read(&secret(settings.clone(), "kv/shop#password")).await, "canary");
    settings.ca = Some("/nowhere/ca.pem".to_owned());
    let error = secret(settings, "kv/shop#password").read().await.unwrap_err();
    assert!(error.class() == Class::Config && error.to_string().contains("/nowhere/ca.pem"));
}

/// Lets an installation keep its keys and the passwords of its servers in a vault.
fn keep_secrets(installation: &Installation, vault: &Vault) {
    let text = |url: &url::Url| url.password().unwrap_or_default().to_owned();
    vault.keep_second(
        "secret/data/longshore",
        json!({"pseudonyms": "0123456789abcdef", "amqp": text(&crate::support::servers::amqp())}),
    );
    installation.change_settings(|settings| {
        let settings = settings
            .replace("${env:TEST_PSEUDONYMS}", "${vault:secret/data/longshore#pseudonyms}")
            .replace("${env:TEST_AMQP_PASSWORD}", "${vault:secret/data/longshore#amqp}");
        let url = vault.url();
        format!("{settings}[vault]\nurl = \"{url}\"\ntoken = \"${{env:TEST_VAULT_TOKEN}}\"\n")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_sealed_vault_and_goes_on_when_it_is_unsealed() {
    let vault = Vault::start().await;
    installation::with("", async |installation| {
        keep_secrets(installation, &vault);
        installation.database.client.batch_execute("CREATE TABLE t AS SELECT 1 id, 'me' who").await.unwrap();
        installation.export(
            "people",
            "[source]\nconnection = \"shop\"\ntable = \"t\"\n[sink]\nconnection = \"lake\"\n\
             path = \"people\"\n[contract.fields]\nid = { type = \"int32\" }\nwho = { type = \"string\" }\n\
             [protect]\nwho = \"hash\"\n",
        );
        let command = |arguments: &[&str]| {
            let mut command = installation.command(arguments);
            command.env("TEST_VAULT_TOKEN", TOKEN);
            command
        };
        let output = async |arguments: &[&str]| {
            let mut command = command(arguments);
            tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
        };
        for arguments in [&["migrate"][..], &["apply"], &["check", "--connect"]] {
            let output = output(arguments).await;
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
        vault.kept().sealed = true;
        let looked = output(&["doctor", "--json"]).await;
        let text = String::from_utf8(looked.stdout).unwrap();
        let found: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (part, check) in
            [("secrets", "[queue] password"), ("keys", "pseudonyms"), ("queue", "connection")]
        {
            let one = found.iter().find(|one| one["part"] == part && one["check"] == check).unwrap();
            assert_eq!(one["level"], "away", "{one}");
            assert!(one["found"].as_str().unwrap().contains("it is sealed"), "{one}");
        }
        assert_eq!(looked.status.code(), Some(4));
        let checked = output(&["check", "--connect"]).await;
        let text = String::from_utf8(checked.stdout).unwrap();
        assert_eq!(checked.status.code(), Some(1), "{text}");
        assert!(text.contains("cannot read from the vault: it is sealed"), "{text}");

        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut worker = command(&["worker"]);
        worker.env("LONGSHORE__HTTP__LISTEN", free.to_string());
        let worker = installation.start_command(worker, "worker");
        let lacks = "[keys] pseudonyms lacks ${vault:secret/data/longshore#pseudonyms}: it is sealed";
        probes::until(free, "503", lacks).await;
        assert!(output(&["enqueue", "people"]).await.status.success());
        vault.kept().sealed = false;
        let scheduler = installation.start_command(command(&["scheduler"]), "scheduler");
        installation
            .until("the run is done", SOON, "SELECT count(*) = 1 FROM runs WHERE state = 'done'")
            .await;
        probes::until(free, "200", "\"ready\":true").await;
        for one in [&worker, &scheduler] {
            assert!(!one.log().contains("0123456789abcdef") && !one.log().contains(TOKEN));
        }
        installation.end([worker, scheduler], 0).await;
    })
    .await;
}
