//! Which files a run by a cursor reads: those that were not delivered, or those of an earlier run.

use std::collections::BTreeMap;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::LIST;
use super::object::{is_as, state};
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::job::manifest::SourceFile;
use crate::source::Sift;

/// How many files a run takes at the most.
const MOST: usize = 10_000;
/// About how many the ledger is asked at once.
const ASKED: usize = 4_000;
/// How many bytes the path of a file may have, as keys of S3 do.
const LONGEST: usize = 1024;
/// How many files are looked at at once.
const AT_ONCE: usize = 16;

/// What was found to be read.
pub(super) struct Fresh {
    /// The files, in the order of their names.
    pub metas: Vec<ObjectMeta>,
    /// Any file that matches, delivered or not: where nothing is new it tells the columns.
    pub sample: Option<ObjectMeta>,
}

/// Of the files of a listing, the first by name that were not delivered.
///
/// Whatever the length of the listing, no more are held than a run takes, and those that the ledger
/// is asked for. An object store lists by name, so that the rest need not be seen.
pub(super) async fn new(
    store: &Store,
    listed: BoxStream<'_, Result<ObjectMeta>>,
    delivered: &dyn Sift,
) -> Result<Fresh> {
    let mut listed = listed.chunks(ASKED);
    let mut fresh: BTreeMap<Path, ObjectMeta> = BTreeMap::new();
    let (mut sample, mut last, mut by_name) = (None, Path::default(), store.root().is_none());
    while let Some(chunk) = listed.next().await {
        let mut chunk: Vec<ObjectMeta> = chunk.into_iter().collect::<Result<_>>()?;
        if let (None, Some(first)) = (&sample, chunk.first()) {
            sample = Some(first.clone());
        }
        for meta in &chunk {
            by_name = by_name && last < meta.location;
            last = meta.location.clone();
        }
        let files = chunk.iter().map(|meta| file(store, meta)).collect::<Result<_>>()?;
        let mut new = delivered.sift(files).await?.into_iter().peekable();
        // Both are in the order of the listing.
        chunk.retain(|meta| {
            let path = store.relative(&meta.location);
            new.next_if(|file| file.path == path).is_some()
        });
        fresh.extend(chunk.into_iter().map(|meta| (meta.location.clone(), meta)));
        while fresh.len() > MOST {
            fresh.pop_last();
        }
        if by_name && fresh.len() == MOST {
            break;
        }
    }
    Ok(Fresh { metas: fresh.into_values().collect(), sample })
}

/// The files that were read before, as they were then.
///
/// # Errors
/// `permanent`, where one is gone or has changed: it cannot be read again.
pub(super) async fn again(store: &Store, files: &[SourceFile]) -> Result<Fresh> {
    let looks: Vec<_> = files.iter().map(|file| as_before(store, file)).collect();
    let metas = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    Ok(Fresh { metas, sample: None })
}

async fn as_before(store: &Store, file: &SourceFile) -> Result<ObjectMeta> {
    let lost = |what: &str| {
        Err(Error::permanent("read the files of the edition before", what.to_owned())
            .with("file", &file.path)
            .help("Put it back as it was; or let a new run take files: longshore cursors reset."))
    };
    match store.objects.head(&store.path(&file.path)?).await {
        Ok(meta) if is_as(&meta, &file.etag) => Ok(meta),
        Ok(_) => lost("a file has changed since"),
        Err(object_store::Error::NotFound { .. }) => lost("a file is gone"),
        Err(error) => Err(classify(LIST, error).with("file", &file.path)),
    }
}

/// What is told of a file.
///
/// # Errors
/// `permanent` for a path that is too long to be remembered.
pub(super) fn file(store: &Store, meta: &ObjectMeta) -> Result<SourceFile> {
    let path = store.relative(&meta.location);
    if path.len() > LONGEST {
        return Err(Error::permanent(LIST, "the path of a file is too long for a cursor")
            .with("file", &path)
            .with("bytes", path.len())
            .help(format!("Take fewer folders, or shorter names: at most {LONGEST} bytes.")));
    }
    Ok(SourceFile { path, etag: state(meta) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::Connection;
    use crate::source::NothingDelivered;

    /// Knows all but those whose names end so.
    struct AllBut(&'static str);

    #[async_trait::async_trait]
    impl Sift for AllBut {
        async fn sift(&self, files: Vec<SourceFile>) -> Result<Vec<SourceFile>> {
            assert!(files.len() <= ASKED);
            Ok(files.into_iter().filter(|file| file.path.ends_with(self.0)).collect())
        }
    }

    fn bucket() -> Store {
        let connection: Connection = serde_json::from_value(serde_json::json!({
            "type": "files", "url": "s3://bucket/base", "region": "eu-north-1",
            "endpoint": "http://127.0.0.1:1", "access-key": "key", "secret-key": "secret",
        }))
        .unwrap();
        Store::open(&connection).unwrap()
    }

    fn meta(number: usize) -> Result<ObjectMeta> {
        Ok(ObjectMeta {
            location: Path::from(format!("base/in/{number:06}.csv")),
            last_modified: Default::default(),
            size: 1,
            e_tag: None,
            version: None,
        })
    }

    fn paths(fresh: Fresh) -> Vec<String> {
        fresh.metas.into_iter().map(|meta| meta.location.to_string()).collect()
    }

    #[tokio::test]
    async fn a_listing_by_name_is_left_when_there_is_enough() {
        let beyond = |number| match number {
            13_000.. => panic!("there was enough"),
            _ => meta(number),
        };
        let listed = stream::iter((0..20_000).map(beyond)).boxed();
        let found = paths(new(&bucket(), listed, &NothingDelivered).await.unwrap());
        assert_eq!(found.len(), MOST);
        assert_eq!(found.last().unwrap(), "base/in/009999.csv");
    }

    #[tokio::test]
    async fn whatever_the_order_the_first_by_name_are_taken() {
        let listed = stream::iter((0..20_000).rev().map(meta)).boxed();
        let found = paths(new(&bucket(), listed, &NothingDelivered).await.unwrap());
        assert_eq!((found.len(), found[0].as_str()), (MOST, "base/in/000000.csv"));
        assert_eq!(found.last().unwrap(), "base/in/009999.csv");
    }

    #[tokio::test]
    async fn of_a_long_listing_the_few_that_are_new_are_found() {
        let listed = stream::iter((0..100_000).map(meta)).boxed();
        let fresh = new(&bucket(), listed, &AllBut("9999.csv")).await.unwrap();
        assert!(fresh.sample.is_some());
        let found = paths(fresh);
        assert_eq!((found.len(), found[0].as_str()), (10, "base/in/009999.csv"));
        let none = new(&bucket(), stream::empty().boxed(), &NothingDelivered).await.unwrap();
        assert!(none.metas.is_empty() && none.sample.is_none());
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_remembered_is_refused() {
        let mut long = meta(1).unwrap();
        long.location = Path::from(format!("base/{}", "x".repeat(LONGEST + 1)));
        let listed = stream::iter([Ok(long)]).boxed();
        let error = new(&bucket(), listed, &NothingDelivered).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("too long for a cursor"), "{error}");
    }
}
