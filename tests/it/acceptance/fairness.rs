//! A backfill of a size that is met.

use crate::fairness::an_urgent_job_behind;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: make acceptance"]
async fn an_urgent_job_overtakes_fifty_thousand_of_another_export() {
    an_urgent_job_behind(50_000).await;
}
