//! Runs whose letter is not there any more.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::job::after::AfterFailed;
use crate::job::command::Open;
use crate::job::run::tests::order;
use crate::job::run::{End, Order, Run, State};
use crate::ledger::NewDefinition;
use crate::ledger::embedded::EmbeddedLedger;
use crate::queue::embedded::Embedded;

const LEASE: Duration = Duration::from_secs(60);

/// A ledger in which a run of `orders` waits to be ended, under fence 1.
struct Desk {
    replayer: Replayer,
    run: RunId,
    _folder: tempfile::TempDir,
}

impl Desk {
    /// The job has this body, and another definition is active by now.
    async fn new(body: &str) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("longshore.db");
        let ledger: Arc<dyn Ledger> = Arc::new(EmbeddedLedger::open(&file).unwrap());
        let definitions = Definitions::new(Arc::clone(&ledger));
        let queue = Embedded::open(&file).unwrap();
        queue.declare(&["default".to_owned()]).await.unwrap();
        let (replayer, run) = (Replayer { queue, ledger, definitions }, RunId::new());
        let desk = Desk { replayer, run, _folder: folder };
        for hash in ["d", "newer"] {
            let content = json!({
                "timezone": "UTC",
                "source": {"connection": "shop", "table": hash},
                "sink": {"connection": "lake", "path": "orders"},
            });
            let (export, content) = ("orders".to_owned(), content.to_string());
            let definition = NewDefinition { export, hash: hash.to_owned(), content, weight: 1 };
            desk.replayer.ledger.activate(&[definition], false, "test", "", false).await.unwrap();
        }
        let order = Box::new(Order { body: body.to_owned(), ..order("k") });
        let open = Open {
            run,
            worker: "w".to_owned(),
            lease: LEASE,
            needs: Some(Vec::new()),
            attempts: 1,
            cursor: None,
            target: None,
            uses: Vec::new(),
            before: Vec::new(),
            after_failed: AfterFailed::default(),
        };
        desk.apply(Command::Accept { id: run, order, wake: false, pinned: true }).await;
        desk.apply(Command::Open(open)).await;
        let (end, failure) = (End::Dead, (Class::Permanent, "no".to_owned()));
        desk.apply(Command::Fail { run, fence: 1, end, failure, quarantine: None }).await;
        desk
    }

    async fn apply(&self, command: Command) {
        let outcome = apply_one(&*self.replayer.ledger, command).await.unwrap();
        let refused = matches!(outcome, Outcome::Refused(_) | Outcome::Closed(_));
        assert!(!refused, "{outcome:?}");
    }

    async fn run(&self) -> Run {
        self.replayer.ledger.run(self.run).await.unwrap().unwrap()
    }

    /// Its run alone.
    fn filter(&self) -> Filter {
        Filter { run: Some(self.run.0.simple().to_string()), ..Filter::default() }
    }

    async fn replay(&self) -> Result<Report> {
        let pass = Pass {
            filter: self.filter(),
            canary: None,
            rate: None,
            stop_after: None,
            as_failed: false,
            cap: None,
            by: "ann".to_owned(),
            reason: "mended".to_owned(),
        };
        self.replayer.replay(&["default".to_owned()], &pass, |_| {}).await
    }
}

#[tokio::test]
async fn a_job_that_pins_its_definition_is_replayed_with_it() {
    let pinned = json!({"export": "orders", "key": "k", "definition": "0f".repeat(32)});
    let plain = json!({"export": "orders", "key": "k"});
    for (body, definition) in [(pinned, "d"), (plain, "newer")] {
        let desk = Desk::new(&body.to_string()).await;
        desk.apply(Command::Close { run: desk.run, fence: 1 }).await;
        assert_eq!(desk.replay().await.unwrap().replayed, 1);
        assert_eq!(desk.run().await.order.definition, definition);
    }
}

#[tokio::test]
async fn what_an_operator_said_is_dead_is_not_replayed() {
    let desk = Desk::new("{}").await;
    let (run, by, reason) = (desk.run, "ann".to_owned(), "seen".to_owned());
    desk.apply(Command::Retry { run, fence: 1, after: LEASE, failure: None, counted: false }).await;
    desk.apply(Command::Seize { run, by: by.clone(), lease: LEASE }).await;
    desk.apply(Command::Resolve { run, fence: 2, delivered: None, by, reason }).await;
    let refused = desk.replay().await.unwrap_err();
    assert_eq!(refused.class(), Class::Refused);
    assert!(refused.to_string().contains("an operator said that it is dead"), "{refused}");
    assert_eq!(desk.run().await.state, State::Dead);
}

#[tokio::test]
async fn a_run_is_unwanted_only_where_its_letter_is_gone() {
    let desk = Desk::new("{}").await;
    desk.apply(Command::Close { run: desk.run, fence: 1 }).await;
    let default = ["default".to_owned()];
    let unwanted = async |filter: &Filter, pools: &[String]| {
        desk.replayer.unwanted(filter, pools).await.map(|run| run.map(|run| run.id))
    };
    // It may be in another pool, or come yet; and whoever asks for more than a run asks for a letter.
    for (pools, words) in [(&["bulk".to_owned()], "--pool default"), (&default, "is on its way")] {
        let refused = unwanted(&desk.filter(), pools).await.unwrap_err();
        let told = format!("{refused} {}", refused.advice().unwrap_or_default());
        assert!(refused.class() == Class::Refused && told.contains(words), "{told}");
    }
    let narrow = Filter { export: Some("orders".to_owned()), ..desk.filter() };
    assert_eq!(unwanted(&narrow, &default).await.unwrap(), None);

    for posting in desk.replayer.ledger.take_due(10, 10, LEASE).await.unwrap() {
        desk.replayer.ledger.mark_sent(&[posting.version()]).await.unwrap();
    }
    assert_eq!(unwanted(&desk.filter(), &default).await.unwrap(), Some(desk.run));
    for noted in [1, 0] {
        let done = desk.replayer.drop_letters(&default, &desk.filter(), "ann", "seen").await;
        assert_eq!(done.unwrap(), Dropped { dropped: 0, noted });
    }
    assert_eq!(unwanted(&desk.filter(), &default).await.unwrap(), None);
}
