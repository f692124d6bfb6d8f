//! Whoever does what is told finds that all is well again.

use longshore::connect::Connection;
use longshore::connect::files::Store;
use longshore::job::manifest::{MANIFEST_LIMIT, Manifest};
use object_store::ObjectStoreExt;
use serde_json::{Value as Json, json};

use super::{SOON, commands, found, of, told};
use crate::support::installation::{self, Installation};
use crate::support::s3::S3;

/// Where one export delivers to.
struct Place {
    key: &'static str,
    store: Store,
    folder: &'static str,
    manifest: &'static str,
}

impl Place {
    async fn get(&self, name: &str) -> Vec<u8> {
        let path = self.store.path(&format!("{}/{name}", self.folder)).unwrap();
        self.store.objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec()
    }

    async fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.store.path(&format!("{}/{name}", self.folder)).unwrap();
        self.store.objects.put(&path, bytes.to_vec().into()).await.unwrap();
    }

    /// Moved away is as good as gone. Replaced deliveries may have taken it already.
    async fn remove(&self, name: &str) {
        let path = self.store.path(&format!("{}/{name}", self.folder)).unwrap();
        match self.store.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The files that the manifest names.
    async fn files(&self) -> Vec<String> {
        let manifest = Manifest::parse(&self.get(self.manifest).await, MANIFEST_LIMIT).unwrap();
        manifest.files.into_iter().map(|file| file.name).collect()
    }
}

/// Runs the one command that each remedy names, which begins so.
async fn follow(installation: &Installation, objects: &[Json], begins: &str) {
    for one in objects.iter().filter(|one| one["what"] == "discrepancy") {
        assert!(one["remedy"].as_str().unwrap().starts_with(begins), "{one}");
        let command = commands(one).pop().unwrap();
        let command: Vec<&str> = command.iter().map(String::as_str).chain(["--wait"]).collect();
        assert_eq!(command[0], "rerun", "{command:?}");
        installation.run(&command).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_or_gone_is_delivered_again_as_the_help_says() {
    let s3 = S3::moto().await;
    installation::with("concurrency = 4\nlease = \"5s\"", async |installation| {
        let sql = async |text: &str| {
            installation.database.client.batch_execute(text).await.unwrap();
        };
        sql("CREATE TABLE things AS SELECT 1::bigint AS id").await;
        installation.bucket("store", &s3);
        let lake =
            json!({"type": "files", "url": format!("file://{}", installation.lake().display())});
        let lake: Connection = serde_json::from_value(lake).unwrap();
        let place = |key, connection: &Connection, folder, manifest| Place {
            key,
            store: Store::open(connection).unwrap(),
            folder,
            manifest,
        };
        let bucket = s3.connection("store");
        let places = [
            place("folder", &lake, "folder", "_manifest.json"),
            place("named", &lake, "named", "things.jsonl.manifest.json"),
            place("bucket", &bucket, "bucket", "_manifest.json"),
            place("named-bucket", &bucket, "named", "things.jsonl.manifest.json"),
        ];
        for (place, connection) in places.iter().zip(["lake", "lake", "store", "store"]) {
            let named = if place.folder == "named" { "file = \"things.jsonl\"\n" } else { "" };
            let definition = format!(
                "[source]\nconnection = \"shop\"\ntable = \"public.things\"\n\
                 [sink]\nconnection = \"{connection}\"\npath = \"{}\"\nformat = \"jsonl\"\n{named}",
                place.folder
            );
            installation.export(place.key, &definition);
        }
        installation.apply().await;
        let processes = ["scheduler", "worker"].map(|command| installation.start(command, command));
        for place in &places {
            installation.run(&["enqueue", place.key, "--key", place.key, "--wait"]).await;
        }
        let all = |kind: &str| of(&places.each_ref().map(|place| (kind, place.key)));
        let none = of(&[]);
        let audit = ["--deep"];
        assert_eq!(found(installation, &audit).await, none);

        // A file with other bytes.
        for place in &places {
            let file = place.files().await.pop().unwrap();
            let length = place.get(&file).await.len();
            place.put(&file, &vec![b'x'; length]).await;
        }
        assert_eq!(found(installation, &audit).await, all("files"));
        let (_, objects) = told(installation, &audit).await;
        for place in &places {
            place.remove(&place.files().await.pop().unwrap()).await;
        }
        follow(installation, &objects, "Somebody changed or removed it. Move the file away").await;
        assert_eq!(found(installation, &audit).await, none);

        // An older manifest in the place of the last.
        let mut older = Vec::new();
        for place in &places {
            older.push((place.get(place.manifest).await, place.files().await));
        }
        sql("INSERT INTO things VALUES (2)").await;
        for place in &places {
            let run = installation
                .database
                .text(&format!(
                    "SELECT id::text FROM runs WHERE key = '{}' AND edition = 2",
                    place.key
                ))
                .await;
            installation.run(&["rerun", &run, "--reason", "more", "--wait"]).await;
        }
        for (place, (manifest, _)) in places.iter().zip(&older) {
            place.put(place.manifest, manifest).await;
        }
        assert_eq!(found(installation, &[]).await, all("manifests"));
        let (_, objects) = told(installation, &[]).await;
        for (place, (_, files)) in places.iter().zip(&older) {
            for name in files.iter().map(String::as_str).chain([place.manifest]) {
                place.remove(name).await;
            }
        }
        let begins = "Recipients find a delivery that is not the last.";
        follow(installation, &objects, begins).await;
        assert_eq!(found(installation, &audit).await, none);

        // One that is damaged, and one that is gone.
        for begins in ["It is damaged, or nothing", "Somebody removed it."] {
            let mut files = Vec::new();
            for place in &places {
                files.push(place.files().await);
                match begins.contains("damaged") {
                    true => place.put(place.manifest, b"{").await,
                    false => place.remove(place.manifest).await,
                }
            }
            assert_eq!(found(installation, &[]).await, all("manifests"));
            let (_, objects) = told(installation, &[]).await;
            for (place, files) in places.iter().zip(&files) {
                for name in files.iter().map(String::as_str).chain([place.manifest]) {
                    place.remove(name).await;
                }
            }
            follow(installation, &objects, begins).await;
            assert_eq!(found(installation, &audit).await, none);
        }
        for process in processes {
            assert!(process.end(SOON).await.success());
        }
    })
    .await;
}
