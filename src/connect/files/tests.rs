use super::*;
use crate::error::Class;
use object_store::ObjectStoreExt;
use std::io::{Read, Write};

fn connection(settings: serde_json::Value) -> Connection {
    let mut whole = serde_json::json!({"type": "files"});
    whole.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

#[tokio::test]
async fn a_local_folder_is_created_and_its_paths_stay_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/a/b%20c", dir.path().display());
    let store = Store::open(&connection(serde_json::json!({"url": url}))).unwrap();
    let path = store.path("day=2026-11-19/ø %20#x.csv").unwrap();
    store.objects.put(&path, "x".into()).await.unwrap();
    let local = store.local(&path).unwrap();
    assert!(local.ends_with("a/b c/day=2026-11-19/ø %20#x.csv"), "{local:?}");
    assert_eq!(std::fs::read(local).unwrap(), b"x");
    assert_eq!(store.relative(&path), "day=2026-11-19/ø %20#x.csv");
    for bad in ["../x", "a/../../x", "/etc/passwd", "a//b", ".", "a/\n"] {
        assert_eq!(store.path(bad).unwrap_err().class(), Class::Config, "{bad}");
    }
    assert_eq!(store.path("").unwrap(), Path::default());
}

#[test]
fn addresses_that_mean_nothing_are_refused() {
    for url in ["ftp://x/y", "file://host/x", "file:", "s3:///x", "s3://b/../x"] {
        let error = Store::open(&connection(serde_json::json!({"url": url}))).unwrap_err();
        assert_eq!(error.class(), Class::Config, "{url}");
    }
    let plain = serde_json::json!({"url": "s3://b", "endpoint": "http://10.0.0.1:9000"});
    let error = Store::open(&connection(plain)).unwrap_err();
    assert!(error.to_string().contains("does not use TLS"), "{error}");
}

fn s3_at(port: u16) -> Store {
    Store::open(&connection(serde_json::json!({
        "url": "s3://bucket/base/folder", "region": "eu-north-1",
        "endpoint": format!("http://127.0.0.1:{port}"),
        "access-key": "key", "secret-key": "hunter2",
    })))
    .unwrap()
}

#[test]
fn a_store_shows_no_secret() {
    assert!(!format!("{:?}", s3_at(1)).contains("hunter2"));
}

async fn class_of_answer(answer: &'static str) -> Error {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let store = s3_at(listener.local_addr().unwrap().port());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let path = store.path("x").unwrap();
    assert_eq!(path.as_ref(), "base/folder/x");
    let error = classify("look", store.objects.head(&path).await.unwrap_err());
    server.join().unwrap();
    error
}

#[tokio::test]
async fn answers_have_their_class() {
    let busy = class_of_answer(
        "HTTP/1.1 503 Slow Down\r\nretry-after: 7\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!((busy.class(), busy.wait()), (Class::Throttled, Some(Duration::from_secs(7))));
    for (answer, class) in [
        ("HTTP/1.1 404 N\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", Class::Permanent),
        ("HTTP/1.1 403 N\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", Class::Permanent),
        ("HTTP/1.1 400 N\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", Class::Transient),
    ] {
        assert_eq!(class_of_answer(answer).await.class(), class, "{answer}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = s3_at(port);
    let error = store.objects.head(&store.path("x").unwrap()).await.unwrap_err();
    assert_eq!(classify("look", error).class(), Class::Unavailable);
}

#[test]
fn a_folder_that_is_not_mounted_and_a_full_disk_are_outages() {
    use std::io::ErrorKind;
    let dir = tempfile::tempdir().unwrap();
    let share = dir.path().join("share");
    let there = connection(serde_json::json!({"url": format!("file://{}", share.display())}));
    // Who only reads would find nothing in a folder of its own making.
    let error = Store::existing(&there).unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(!share.exists());
    let store = Store::open(&there).unwrap();
    Store::existing(&there).unwrap();
    let missing = || classify_io("read a file", ErrorKind::NotFound.into());
    assert_eq!(store.away(missing()).class(), Class::Permanent);
    std::fs::remove_dir(&share).unwrap();
    let error = store.away(missing());
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("share"), "{error}");
    assert_eq!(store.away(Error::fenced("commit", "overtaken")).class(), Class::Fenced);
    // Nothing can be made where a file stands.
    std::fs::write(&share, "").unwrap();
    let below = format!("file://{}/below", share.display());
    let below = connection(serde_json::json!({"url": below}));
    assert_eq!(Store::open(&below).unwrap_err().class(), Class::Unavailable);
    for kind in [ErrorKind::StorageFull, ErrorKind::StaleNetworkFileHandle] {
        assert_eq!(classify_io("write", kind.into()).class(), Class::Unavailable, "{kind}");
    }
}
