//! Ctrl-C: what is said, what goes on, and what is left.

use std::time::{Duration, Instant};

use crate::cli::House;
use crate::support::processes::Process;

const SOON: Duration = Duration::from_secs(30);

/// It reads for longer than any test runs.
const ENDLESS: &str = r#"
[source]
connection = "shop"
query = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000000000) SELECT count(*) AS n FROM c"
[contract.fields]
n = { type = "int64" }
[sink]
connection = "lake"
path = "endless"
format = "csv"
"#;

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < SOON, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The ending of the only run's name, as tables show it.
fn only_run(house: &House) -> String {
    let run = house.objects(&["runs"])[0]["run"].as_str().unwrap().to_owned();
    run[28..].to_owned()
}

#[tokio::test]
async fn an_interrupted_run_says_what_it_waits_for_and_what_became_of_it() {
    let house = House::new();
    house.write("config/exports/endless.toml", ENDLESS);
    house.done(&["apply"]);
    let mut command = house.command(&["run", "endless"]);
    command.env("LONGSHORE__WORKER__DRAIN", "1s");
    let mut running = Process::start(command, house.path().join("run.log"));
    until("it runs", || house.done(&["runs"]).contains("running")).await;
    running.signal("INT");
    assert_eq!(running.ended(SOON).await.code(), Some(130));

    let run = only_run(&house);
    let told = running.log();
    let ending = format!("ending: waiting up to 1 s for run {run}; again ends at once\n");
    assert!(told.contains(&ending), "{told}");
    let became = format!("queued: run {run}, endless: not done; the next worker goes on with it");
    assert!(told.contains(&became), "{told}");
    assert!(told.ends_with(&format!("see `longshore runs show {run}`\n")), "{told}");
}

/// It waits for a key that is not there.
const KEYLESS: &str = r#"
[source]
connection = "shop"
query = "SELECT id, country FROM orders"
[contract.fields]
id      = { type = "int64" }
country = { type = "string" }
[protect]
country = "hash"
[sink]
connection = "lake"
path = "keyless"
"#;

#[tokio::test]
async fn a_run_that_was_left_behind_is_finished_by_the_next_that_waits_for_it() {
    let house = House::new();
    house.write("config/exports/keyless.toml", KEYLESS);
    house.done(&["apply"]);
    let mut waiting =
        Process::start(house.command(&["run", "keyless"]), house.path().join("run.log"));
    until("it waits", || house.done(&["runs"]).contains("waiting")).await;
    waiting.signal("INT");
    assert_eq!(waiting.ended(SOON).await.code(), Some(130));
    let left = only_run(&house);

    let mut command = house.command(&["run", "keyless"]);
    command.env("PSEUDONYMS", "pepper");
    let mut again = Process::start(command, house.path().join("again.log"));
    assert_eq!(again.ended(SOON).await.code(), Some(0), "{}", again.log());
    let states: Vec<_> = house.objects(&["runs"]).iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["done", "done"], "also run {left}");
}

#[tokio::test]
async fn who_waits_no_more_is_told_that_the_run_goes_on() {
    let house = House::new();
    house.done(&["apply"]);
    let command = house.command(&["enqueue", "orders", "--wait"]);
    let mut waiting = Process::start(command, house.path().join("wait.log"));
    until("it is accepted", || waiting.log().contains("accepted: run ")).await;
    waiting.signal("INT");
    assert_eq!(waiting.ended(SOON).await.code(), Some(130));
    let run = only_run(&house);
    let told = waiting.log();
    let on = format!("run {run} goes on; see `longshore runs show {run}`\n");
    assert!(told.ends_with(&on), "{told}");
    assert_eq!(house.objects(&["runs", "--state", "queued"]).len(), 1);
}

#[tokio::test]
async fn a_trial_that_is_interrupted_leaves_nothing_half_done() {
    let house = House::new();
    house.write("config/exports/endless.toml", ENDLESS);
    let command = house.command(&["run", "endless", "--to", "try"]);
    let mut trying = Process::start(command, house.path().join("try.log"));
    let staging = house.path().join("try/.staging");
    let staged = || std::fs::read_dir(&staging).is_ok_and(|mut runs| runs.next().is_some());
    until("something is staged", staged).await;
    trying.signal("INT");
    assert_eq!(trying.ended(SOON).await.code(), Some(130));
    assert!(trying.log().contains("ended: nothing was delivered\n"), "{}", trying.log());
    let left: Vec<_> = std::fs::read_dir(house.path().join("try")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn dev_keeps_what_is_active_when_its_folder_becomes_empty() {
    let house = House::new();
    let mut command = house.command(&["dev"]);
    command.env("LONGSHORE__HTTP__LISTEN", "127.0.0.1:0");
    let dev = Process::start(command, house.path().join("dev.log"));
    until("the exports are active", || {
        dev.log().contains("taking jobs") && house.objects(&["exports"]).len() == 2
    })
    .await;
    std::fs::remove_dir_all(house.path().join("config/exports")).unwrap();
    until("it is told", || dev.log().contains("those that are active stay")).await;
    assert_eq!(house.objects(&["exports"]).len(), 2);
    assert!(dev.end(SOON).await.success());
}
