//! What users of the ledger's database may do: no more than they need, and what they lack is named.

use std::process::Output;
use std::time::Duration;

use serde_json::Value as Json;
use url::Url;

use crate::support::installation::{self, Installation};

const SOON: Duration = Duration::from_secs(60);

/// The installation's ledger, as somebody.
fn as_role(installation: &Installation, role: &str) -> Url {
    let mut url = installation.database.url.clone();
    url.set_username(role).unwrap();
    url.set_password(None).unwrap();
    url
}

async fn run(installation: &Installation, role: &str, arguments: &[&str]) -> Output {
    let mut command = installation.command(arguments);
    command.env("LONGSHORE__LEDGER__URL", as_role(installation, role).as_str());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn execute(installation: &Installation, role: &str, sql: &str) {
    let url = as_role(installation, role);
    let (client, connection) =
        tokio_postgres::connect(url.as_str(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

async fn doctor(installation: &Installation, role: &str) -> Vec<Json> {
    let output = run(installation, role, &["doctor", "--json"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn finding<'a>(found: &'a [Json], check: &str) -> &'a Json {
    let one = found.iter().find(|one| one["part"] == "ledger" && one["check"] == check);
    one.unwrap_or_else(|| panic!("no {check} in {found:#?}"))
}

/// Runs a test with two roles: one that owns the ledger's database, and one that may do nothing.
async fn with_roles(test: impl AsyncFnOnce(&Installation, &str, &str)) {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let (owner, user) = (format!("owner_{id}"), format!("user_{id}"));
    let mut drop_roles = None;
    installation::with("", async |installation| {
        let client = &installation.database.client;
        let name = installation.database.url.path().trim_start_matches('/');
        client
            .batch_execute(&format!(
                "CREATE ROLE {owner} LOGIN; CREATE ROLE {user} LOGIN; \
                 ALTER DATABASE \"{name}\" OWNER TO {owner}; \
                 REVOKE CREATE ON SCHEMA public FROM PUBLIC"
            ))
            .await
            .unwrap();
        drop_roles = Some(format!("DROP ROLE {owner}; DROP ROLE {user}"));
        test(installation, &owner, &user).await;
        client.batch_execute(&format!("DROP OWNED BY {user}")).await.unwrap();
    })
    .await;
    let (client, connection) = tokio_postgres::connect(
        crate::support::servers::postgres().as_str(),
        tokio_postgres::NoTls,
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    client.batch_execute(&drop_roles.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_grants_is_enough_for_everything_but_migrating() {
    with_roles(async |installation, owner, user| {
        let page = include_str!("../../docs/how-to/run-it-on-servers.md");
        let granted = page.lines().filter(|line| line.starts_with("ALTER DEFAULT PRIVILEGES"));
        let granted: String = granted.map(|line| line.replace("longshore", user) + "\n").collect();
        assert_eq!(granted.lines().count(), 2, "{granted}");
        execute(installation, owner, &granted).await;
        assert!(run(installation, owner, &["migrate"]).await.status.success());
        // Where there is nothing to do, it need not be the owner.
        assert!(run(installation, user, &["migrate"]).await.status.success());

        let found = doctor(installation, user).await;
        for check in ["schema", "role", "privileges"] {
            assert_eq!(finding(&found, check)["level"], "ok", "{check}: {found:#?}");
        }
        installation.database.client.batch_execute("CREATE TABLE t AS SELECT 1 id").await.unwrap();
        installation.export(
            "one",
            "[source]\nconnection = \"shop\"\ntable = \"t\"\n\
             [sink]\nconnection = \"lake\"\npath = \"one\"\nformat = \"csv\"\n",
        );
        assert!(run(installation, user, &["apply"]).await.status.success());
        let pools = doctor(installation, user).await;
        let check = format!("workers of {}", installation.pool);
        let one = pools.iter().find(|one| one["check"] == check).unwrap();
        assert_eq!(one["level"], "warning", "{one}");
        assert!(one["found"].as_str().unwrap().contains("no worker takes its jobs"), "{one}");

        let started = ["scheduler", "worker"].map(|name| {
            let mut command = installation.command(&[name]);
            command.env("LONGSHORE__LEDGER__URL", as_role(installation, user).as_str());
            installation.start_command(command, name)
        });
        let wait = run(installation, user, &["enqueue", "one", "--wait"]).await;
        assert!(wait.status.success(), "{wait:?}");
        installation
            .until("the run is done", SOON, "SELECT count(*) = 1 FROM runs WHERE state = 'done'")
            .await;
        let found = doctor(installation, user).await;
        let one = found.iter().find(|one| one["check"] == check).unwrap();
        assert_eq!(one["level"], "ok", "{one}");
        assert!(one["found"].as_str().unwrap().starts_with("1 worker"), "{one}");
        installation.end(started, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_lacks_is_named_with_the_statement_that_gives_it() {
    with_roles(async |installation, owner, user| {
        let refused = async |arguments: &[&str], words: &[&str]| {
            let output = run(installation, user, arguments).await;
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(6), "{text}");
            for words in words {
                assert!(text.contains(words), "no {words} in {text}");
            }
        };
        let create = format!("GRANT CREATE ON SCHEMA public TO {user};");
        refused(&["migrate"], &[&format!("{user} lacks CREATE on schema public"), &create]).await;
        let found = doctor(installation, user).await;
        assert_eq!(finding(&found, "migrating")["level"], "warning");
        assert!(finding(&found, "migrating")["remedy"].as_str().unwrap().contains(&create));

        assert!(run(installation, owner, &["migrate"]).await.status.success());
        let lacks = format!("{user} lacks SELECT on refinery_schema_history");
        refused(&["runs"], &[&lacks, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"]).await;
        let found = doctor(installation, user).await;
        let lacking = finding(&found, "privileges");
        let words = format!("{user} lacks SELECT, INSERT, UPDATE, DELETE on active_definitions, ");
        assert!(lacking["found"].as_str().unwrap().starts_with(&words), "{lacking}");
        // What is advised is enough, as it is written.
        let (_, statements) = lacking["remedy"].as_str().unwrap().split_once(": ").unwrap();
        execute(installation, owner, statements).await;
        assert!(run(installation, user, &["runs"]).await.status.success());
        let found = doctor(installation, user).await;
        assert_eq!(finding(&found, "privileges")["level"], "ok", "{found:#?}");

        // A new version comes.
        let newest = "(SELECT max(version) FROM refinery_schema_history)";
        let older = format!("DELETE FROM refinery_schema_history WHERE version = {newest}");
        execute(installation, owner, &older).await;
        let owned =
            format!("the tables are owned by {owner}, and {user} is no member of that role");
        refused(&["migrate"], &[&owned, &format!("GRANT {owner} TO {user};")]).await;
    })
    .await;
}
