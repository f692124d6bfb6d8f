//! What replaced deliveries leave, and when it goes.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use futures::FutureExt;

use super::*;

/// O_NONBLOCK of Linux.
const NONBLOCK: i32 = 0o4000;

async fn deliver(sink: &FilesSink, batches: u64) -> Manifest {
    let who = holder(RunId::new(), 1);
    let standing = sink.current_manifest().await.unwrap();
    let decision = decide(who.run, staged(sink, &who, batches).await, standing);
    sink.commit(&who, &decision).await.unwrap();
    sink.clean(&who).await.unwrap();
    Manifest::parse(decision.manifest.as_bytes(), MANIFEST_LIMIT).unwrap()
}

async fn remove(sink: &FilesSink, replaced: &[Manifest], free: bool) -> usize {
    sink.remove_replaced(replaced, async move { Ok(free) }.boxed()).await.unwrap()
}

#[tokio::test]
async fn only_what_the_standing_manifest_does_not_name_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), IfExists::Replace);
    sink.part_bytes = 1000;
    let folder = dir.path().join("orders/day=2026-11-19");
    let intact = async || verify(folder.to_str().unwrap()).await.unwrap();
    // The files of the first are the first files of the second: they have the same rows.
    let (first, second) = (deliver(&sink, 3).await, deliver(&sink, 7).await);
    assert!(first.files.iter().any(|file| second.files.contains(file)));
    let all = delivered(dir.path());
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    let old = || vec![first.clone()];
    assert_eq!(remove(&sink, &old(), false).await, 0, "a delivery is under way");
    let only_first = first.files.iter().filter(|file| !second.files.contains(file)).count();
    assert_eq!(remove(&sink, &old(), true).await, only_first);
    assert_eq!(remove(&sink, &old(), true).await, 0);
    assert!(intact().await.is_intact());
    assert_eq!(delivered(dir.path()).len(), all.len() + 1 - only_first);

    let third = deliver(&sink, 1).await;
    let both = [second.clone(), first.clone()];
    // Somebody has put an old delivery back by hand: it is the one that stands.
    let last = folder.join(MANIFEST_NAME);
    let newest = std::fs::read(&last).unwrap();
    std::fs::write(&last, second.to_bytes().unwrap()).unwrap();
    assert_eq!(remove(&sink, &both, true).await, 0);
    // Or has taken the manifest away, or written something else.
    std::fs::write(&last, "{}").unwrap();
    assert_eq!(remove(&sink, &both, true).await, 0);
    std::fs::remove_file(&last).unwrap();
    assert_eq!(remove(&sink, &both, true).await, 0);
    std::fs::write(&last, newest).unwrap();
    assert!(remove(&sink, &both, true).await > 0);
    assert_eq!(delivered(dir.path()).len(), third.files.len() + 2, "its files, manifest and notes");
    assert!(intact().await.is_intact());
}

#[tokio::test]
async fn a_delivery_that_shares_a_file_with_a_replaced_one_is_committed_while_that_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Arc::new(sink(dir.path(), IfExists::Replace));
    let first = deliver(&sink, 3).await;
    for round in 0..20 {
        deliver(&sink, 5).await;
        // The third is as the first, and takes its files.
        let who = holder(RunId::new(), 1);
        let standing = sink.current_manifest().await.unwrap();
        let decision = decide(who.run, staged(&sink, &who, 3).await, standing);
        let other = Arc::clone(&sink);
        let old = vec![first.clone()];
        let removing = tokio::spawn(async move { remove(&other, &old, true).await });
        sink.commit(&who, &decision).await.unwrap();
        removing.await.unwrap();
        let folder = dir.path().join("orders/day=2026-11-19");
        let found = verify(folder.to_str().unwrap()).await.unwrap();
        assert!(found.is_intact(), "round {round}: {:?}", found.mismatches);
    }
}

#[tokio::test]
async fn a_removal_that_hangs_keeps_the_folders_lock_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), IfExists::Replace);
    let (first, second) = (deliver(&sink, 3).await, deliver(&sink, 5).await);
    let before = delivered(dir.path()).len();
    let folder = dir.path().join("orders/day=2026-11-19");
    // Whoever looks at the manifest hangs until somebody writes it.
    let manifest = folder.join(MANIFEST_NAME);
    std::fs::remove_file(&manifest).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&manifest).status().unwrap();
    assert!(made.success());
    let lock = std::fs::File::open(&folder).unwrap();
    let old = [first.clone()];
    let mut removing = sink.remove_replaced(&old, async { Ok(true) }.boxed());
    let looking = async {
        loop {
            assert!(futures::poll!(&mut removing).is_pending());
            // It can be opened without waiting once somebody reads.
            let mut options = std::fs::OpenOptions::new();
            match options.write(true).custom_flags(NONBLOCK).open(&manifest) {
                Ok(file) => return file,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let mut manifest = tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap();
    // Nobody waits for it any more.
    drop(removing);
    assert!(matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
    manifest.write_all(second.to_bytes().unwrap().as_bytes()).unwrap();
    drop(manifest);
    // A delivery that comes next waits until all of it is gone.
    tokio::task::spawn_blocking(move || lock.lock()).await.unwrap().unwrap();
    let gone = first.files.iter().filter(|file| !second.files.contains(file)).count();
    assert!(gone > 0);
    assert_eq!(delivered(dir.path()).len(), before - gone);
}

#[tokio::test]
async fn files_of_fixed_names_are_the_commits_own_business() {
    let dir = tempfile::tempdir().unwrap();
    let sink = fixed(dir.path(), "O-{part}.csv", Some(1 << 20), IfExists::Replace);
    let first = deliver(&sink, 1).await;
    let before = there(dir.path());
    assert_eq!(remove(&sink, &[first], true).await, 0);
    assert_eq!(there(dir.path()), before);
}

#[tokio::test]
async fn what_does_not_fit_into_one_file_is_not_delivered() {
    for compression in [Compression::None, Compression::Gzip] {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = fixed(dir.path(), "O.csv", Some(1 << 20), IfExists::Fail);
        sink.layout = Layout { compression, ..sink.layout };
        let who = holder(RunId::new(), 1);
        let few = staged(&sink, &who, 1_000).await;
        assert_eq!((few.parts.len(), few.parts[0].rows), (1, 100_000));
        let error = sink.stage(&holder(who.run, 2), rows(20_000)).await.unwrap_err();
        assert_eq!(error.class(), Class::Contract);
        assert!(error.to_string().contains("does not fit into its one file"), "{error}");
        assert!(error.advice().unwrap().contains("{part}"));
        assert_eq!(there(dir.path()), []);
    }
}
