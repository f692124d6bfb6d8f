//! A run that several workers read.

use std::time::Duration;

use longshore::error::Class;
use longshore::job::command::Command;
use longshore::job::run::State;
use longshore::job::split::{Reads, Snapshot};

use super::bed::*;

/// There is no table for them yet: what cannot be stored is not believed to be.
pub async fn they_are_refused_and_nothing_is_forgotten(bed: Bed) {
    let run = bed.queued("k").await;
    let fence = opened(bed.apply(open(run, &[])).await).run.fence;
    let word = |word: &str| word.to_owned();
    let snapshot =
        Snapshot { id: word("1-1"), state: word("7:7:"), holder: word("3/4"), of: word("16384") };
    let reads = vec![Reads::Pages { from: 0, to: None }];
    let fan = Command::Fan { run, fence, snapshot: Box::new(snapshot), reads, lease: LEASE };
    let wake = Command::Wake { run, delay: Duration::ZERO };
    let refused = bed.ledger.apply(vec![wake, fan]).await.unwrap_err();
    assert_eq!(refused.class(), Class::Permanent);
    assert_eq!(bed.run(run).await.state, State::Running);
    done(bed.apply(Command::Beat { run, fence, lease: LEASE }).await);
}
