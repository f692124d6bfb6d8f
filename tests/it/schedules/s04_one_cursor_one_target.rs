//! Schedule 4: two runs on one cursor, and two on one target; one fails, before or after its commit;
//! the source grows between attempts.

use super::*;

/// Exports by a cursor, with where the first run's worker dies and where they deliver to.
const CURSORS: [(&str, &str, u32, &str); 4] = [
    // The target has the rows, the ledger has not heard of it.
    (
        "appended",
        "committed=kill",
        8,
        "connection = \"warehouse\"\ntable = \"appended\"\nmode = \"append\"\n",
    ),
    // The ledger has decided, nobody sees anything.
    (
        "filed",
        "decided=kill",
        8,
        "connection = \"lake\"\npath = \"filed/{run}\"\nformat = \"jsonl\"\ncompression = \"none\"\n",
    ),
    // Nothing is decided: it is read anew.
    (
        "again",
        "staged=kill",
        8,
        "connection = \"warehouse\"\ntable = \"again\"\nmode = \"append\"\n",
    ),
    // Likewise, and it was the last attempt.
    ("late", "staged=kill", 1, "connection = \"warehouse\"\ntable = \"late\"\nmode = \"append\"\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_on_one_cursor_deliver_each_row_once_wherever_the_first_dies_and_the_source_grows()
{
    with(8, "append", async |scene| {
        let installation = scene.installation;
        for (name, _, attempts, sink) in CURSORS {
            let definition = definition(attempts, sink).replace(
                "query = \"SELECT id, note FROM orders ORDER BY id\"",
                "table = \"orders\"\ncursor = \"id\"",
            );
            installation.export(name, &definition);
            if name != "filed" {
                scene.execute(&format!("CREATE TABLE {name} (id bigint, note text)")).await;
            }
        }
        installation.apply().await;
        let jobs = |key: &str| -> Vec<Json> {
            let job = |(name, ..): &(&str, &str, u32, &str)| {
                let key = format!("{name}-{key}");
                message(&installation.pool, &json!({"export": name, "key": key}))
            };
            CURSORS.iter().map(job).collect()
        };
        for (number, job) in jobs("first").into_iter().enumerate() {
            let (name, fail, ..) = CURSORS[number];
            // It takes the messages of those before it too, which have other points to come to, or
            // are held.
            let mut worker = scene.worker(name, fail);
            until(&worker, &["taking jobs"]).await;
            installation.publish(&[job]).await;
            worker.ended(SOON).await;
        }
        scene.grow(ROWS + 1, ROWS + 10).await;
        installation.publish(&jobs("second")).await;
        let others = scene.others();
        scene.until_state("late-first", "dead").await;
        for (name, ..) in CURSORS {
            scene.until_state(&format!("{name}-second"), "done").await;
        }
        installation.letters(1).await;
        scene.grow(ROWS + 11, ROWS + 20).await;
        installation.run(&["dead", "replay", "--all", "--reason", "a test"]).await;
        for (name, ..) in CURSORS {
            scene.until_state(&format!("{name}-first"), "done").await;
        }
        scene.end(others, 0).await;

        // What the first had committed or decided is what it had read before the source grew.
        for (name, first, second) in [
            ("appended", ROWS, 10),
            ("filed", ROWS, 10),
            ("again", ROWS + 10, 0),
            ("late", 10, ROWS + 10),
        ] {
            let written = async |key: &str| {
                let counts = scene.of(&format!("{name}-{key}"), "counts ->> 'written'").await;
                counts.parse::<i64>().unwrap()
            };
            assert_eq!(
                (written("first").await, written("second").await),
                (first, second),
                "{name}"
            );
            let all = first + second;
            assert_eq!(scene.by_cursor(name).await, (1..=all).collect::<Vec<i64>>(), "{name}");
            let stands = format!(
                "SELECT coalesce(max(value), '') FROM cursors WHERE name LIKE 'cursor/{name}:%'"
            );
            assert_eq!(installation.database.text(&stands).await, all.to_string(), "{name}");
        }
    })
    .await;
}

impl Scene<'_> {
    /// All ids that an export by a cursor has delivered, in their order.
    async fn by_cursor(&self, name: &str) -> Vec<i64> {
        if name != "filed" {
            let sql = format!("SELECT id FROM {name} ORDER BY id");
            let rows = self.installation.database.client.query(&sql, &[]).await.unwrap();
            return rows.iter().map(|row| row.get(0)).collect();
        }
        let mut ids = Vec::new();
        for path in listed(&self.lake, "filed").await {
            if path.ends_with("_manifest.json") {
                assert!(
                    verify_manifest(&self.lake, &path, true).await.unwrap().is_intact(),
                    "{path}"
                );
                continue;
            }
            let text = String::from_utf8(read(&self.lake, &path).await.unwrap()).unwrap();
            ids.extend(
                text.lines().map(|line| {
                    serde_json::from_str::<Json>(line).unwrap()["id"].as_i64().unwrap()
                }),
            );
        }
        ids.sort();
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_on_one_target_come_one_after_the_other_though_the_first_dies_after_its_commit() {
    with(8, "replace", async |scene| {
        let mut workers: Vec<Process> =
            (0..ALL.len()).map(|n| scene.worker(&format!("first-{n}"), "committed=kill")).collect();
        for worker in &workers {
            until(worker, &["taking jobs"]).await;
        }
        scene.publish(&ALL).await;
        for worker in &mut workers {
            worker.ended(SOON).await;
        }
        scene.delivered_unrecorded(ROWS).await;
        scene.grow(ROWS + 1, ROWS + 10).await;
        let second = |target: &Target| {
            let key = format!("{}-second", target.export());
            message(&scene.installation.pool, &json!({"export": target.export(), "key": key}))
        };
        scene.installation.publish(&ALL.iter().map(second).collect::<Vec<Json>>()).await;
        let others = scene.others();
        scene.until_all(&ALL, "done").await;
        for target in ALL {
            scene.until_state(&format!("{}-second", target.export()), "done").await;
        }
        scene.end(others, 0).await;
        for target in ALL {
            assert_eq!(scene.found(target).await, Some((1..=ROWS + 10).collect()), "{target:?}");
            let key = target.export();
            // The first has what it had committed, and was recorded before the second was decided.
            for (key, rows) in [(key.to_owned(), ROWS), (format!("{key}-second"), ROWS + 10)] {
                assert_eq!(scene.of(&key, "counts ->> 'written'").await, rows.to_string(), "{key}");
            }
            let order = "SELECT string_agg(r.key, ' ' ORDER BY d.recorded_at)
                         FROM deliveries AS d JOIN runs AS r ON r.id = d.run WHERE r.export = ";
            let order = scene.installation.database.text(&format!("{order}'{key}'")).await;
            assert_eq!(order, format!("{key} {key}-second"));
        }
    })
    .await;
}

impl Scene<'_> {
    /// Makes sure that every target has so many rows, and the ledger has recorded none of them.
    async fn delivered_unrecorded(&self, rows: i64) {
        for target in ALL {
            assert_eq!(self.found(target).await, Some((1..=rows).collect()), "{target:?}");
        }
        let recorded = "SELECT count(*) FROM deliveries";
        assert_eq!(self.installation.database.number(recorded).await, 0);
    }
}
