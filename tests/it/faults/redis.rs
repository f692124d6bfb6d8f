//! Redis stops, freezes, answers errors, and comes back empty.

use super::*;
use crate::probes;
use crate::signals::told;
use crate::support::installation;
use crate::support::own::Redis;
use crate::support::servers;

/// What happens to Redis, and what the worker says of it.
const FAULTS: [(&str, &str); 5] = [
    ("killed", "Redis cannot be reached"),
    ("frozen", "did not answer"),
    ("a replica", "answered READONLY"),
    ("full", "answered OOM"),
    ("loading", "answered LOADING"),
];

async fn ask(server: &Redis, words: &str) {
    let client = ::redis::Client::open(server.url().as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut words = words.split(' ');
    let mut command = ::redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    let _: ::redis::Value = command.query_async(&mut connection).await.unwrap();
}

async fn begin(server: &mut Redis, fault: &str) {
    match fault {
        "killed" => server.kill(),
        "frozen" => server.signal("STOP"),
        "a replica" => ask(server, "REPLICAOF 127.0.0.1 1").await,
        "full" => ask(server, "CONFIG SET maxmemory 1").await,
        _ => {
            let fill = "for i = 1, 3000 do redis.call('SET', 'fill:' .. i, i) end";
            let client = ::redis::Client::open(server.url().as_str()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let () = ::redis::Script::new(fill).invoke_async(&mut connection).await.unwrap();
            ask(server, "SAVE").await;
            // Twelve seconds, in which it answers now and then.
            let slowly =
                ["--key-load-delay", "4000", "--loading-process-events-interval-bytes", "1024"];
            server.restart(&slowly).await;
        }
    }
}

async fn end(server: &mut Redis, fault: &str) {
    match fault {
        "killed" => server.restart(&[]).await,
        "frozen" => server.signal("CONT"),
        "a replica" => ask(server, "REPLICAOF NO ONE").await,
        "full" => ask(server, "CONFIG SET maxmemory 0").await,
        // It ends by itself.
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_pause_while_redis_is_away_and_running_jobs_go_on() {
    let mut server = Redis::start().await;
    let servers = (servers::postgres(), server.url());
    installation::on(servers, "concurrency = 2\nlease = \"5s\"", async |installation| {
        installation.export("slow", &slow_once());
        installation.apply().await;
        let scheduler = installation.start("scheduler", "scheduler");
        let (at, worker) = installation.start_probed("worker", "worker", &[]);
        probes::until(at, "200", "").await;
        let mut jobs = 0;
        for (fault, said) in FAULTS {
            installation.publish(&[slow(installation, jobs + 1, 3)]).await;
            installation.until_state(jobs + 1, "running").await;
            begin(&mut server, fault).await;
            probes::until(at, "503", said).await;
            let more: Vec<_> = (2..=5).map(|number| slow(installation, jobs + number, 0)).collect();
            installation.publish(&more).await;
            if fault != "loading" {
                // It needs no claim to end.
                installation.until_state(jobs + 1, "done").await;
                let accepted = installation.database.number("SELECT count(*) FROM runs").await;
                assert_eq!(accepted, jobs + 1, "{fault}: without a claim nothing is begun");
            }
            end(&mut server, fault).await;
            probes::until(at, "200", r#""claims":{"up":true}"#).await;
            jobs += 5;
            installation.until_done(jobs.unsigned_abs()).await;
        }
        let line = told(&worker, "cannot use the claims").await;
        assert_eq!(line["level"], "warn", "{line}");
        told(&worker, "can use the claims again").await;
        installation.end([worker, scheduler], 0).await;
        installation.delivered_at_once(jobs).await;
    })
    .await;
}
