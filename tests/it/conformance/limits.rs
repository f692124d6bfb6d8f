//! What every backend of the shared limits must do.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use longshore::error::Class;
use longshore::limits::SharedLimits;
use longshore::limits::embedded::EmbeddedLimits;
use longshore::limits::redis::RedisLimits;
use longshore::units::Rate;
use tokio::net::TcpListener;

use super::redis as server;

type Shared = Arc<dyn SharedLimits>;

fn rate(text: &str) -> Rate {
    Rate::parse(text).unwrap()
}

async fn one_second_s_worth_at_once_and_then_a_wait(one: Shared, _: Shared) {
    let slow = rate("240/m");
    for turn in 0..4 {
        assert_eq!(one.take("shop", slow).await.unwrap(), Duration::ZERO, "turn {turn}");
    }
    let wait = one.take("shop", slow).await.unwrap();
    assert!(wait > Duration::ZERO && wait <= slow.interval(), "{wait:?}");
    assert_eq!(one.take("lake", slow).await.unwrap(), Duration::ZERO, "another name");
}

async fn a_refused_turn_takes_nothing_and_the_wait_is_enough(one: Shared, _: Shared) {
    // A turn in three seconds: none comes back while it is asked for.
    let even = rate("20/m");
    assert_eq!(one.take("shop", even).await.unwrap(), Duration::ZERO);
    for _ in 0..20 {
        assert!(!one.take("shop", even).await.unwrap().is_zero());
    }
    let wait = one.take("shop", even).await.unwrap();
    assert!(wait <= even.interval(), "refusals were counted: {wait:?}");
    tokio::time::sleep(wait).await;
    assert_eq!(one.take("shop", even).await.unwrap(), Duration::ZERO);
}

async fn a_slow_rate_has_a_burst_of_one(one: Shared, _: Shared) {
    assert_eq!(one.take("shop", rate("30/h")).await.unwrap(), Duration::ZERO);
    let wait = one.take("shop", rate("30/h")).await.unwrap();
    assert!(wait > Duration::from_secs(110) && wait <= Duration::from_secs(120), "{wait:?}");
    let raised = one.take("shop", rate("10/s")).await.unwrap();
    assert!(raised <= Duration::from_millis(100), "a raised rate counts at once: {raised:?}");
}

async fn two_handles_share(one: Shared, two: Shared) {
    let slow = rate("120/m");
    assert_eq!(one.take("shop", slow).await.unwrap(), Duration::ZERO);
    assert_eq!(two.take("shop", slow).await.unwrap(), Duration::ZERO);
    assert!(!one.take("shop", slow).await.unwrap().is_zero());
    assert!(!two.take("shop", slow).await.unwrap().is_zero());
}

/// Eight tasks on two handles take a hundred turns between them, as fast as they are let.
async fn no_more_than_the_rate_however_many_ask(one: Shared, two: Shared) {
    let even = rate("40/s");
    let begun = Instant::now();
    let taken = Arc::new(AtomicU32::new(0));
    let tasks = (0..8).map(|n| {
        let shared = if n % 2 == 0 { one.clone() } else { two.clone() };
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            while taken.load(Ordering::SeqCst) < 100 {
                let wait = shared.take("shop", even).await.unwrap();
                if wait.is_zero() {
                    let so_far = taken.fetch_add(1, Ordering::SeqCst) + 1;
                    let most = 40.0 + begun.elapsed().as_secs_f64() * 40.0;
                    assert!(f64::from(so_far) <= most, "{so_far} of at most {most}");
                } else {
                    tokio::time::sleep(wait).await;
                }
            }
        })
    });
    for task in futures::future::join_all(tasks).await {
        task.unwrap();
    }
}

async fn odd_names_stay_apart(one: Shared, _: Shared) {
    for name in ["", " ", "{", "}", "{a}", "%7B", "a:b", "é", "\u{0}", "\n", "'; --", "*"] {
        assert_eq!(one.take(name, rate("1/h")).await.unwrap(), Duration::ZERO, "{name:?}");
    }
}

/// Two handles of one backend, alone in its place.
struct Place {
    one: Shared,
    two: Shared,
    prefix: Option<String>,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    async fn clean(self) {
        if let Some(prefix) = self.prefix {
            assert!(server::wipe(&prefix).await > 0, "nothing was kept under its prefix");
        }
    }
}

fn redis() -> Place {
    let prefix = server::prefix();
    let open = || Arc::new(RedisLimits::connect(&server::url(), None, prefix.clone()).unwrap());
    Place { one: open(), two: open(), prefix: Some(prefix.clone()), _folder: None }
}

fn embedded() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("longshore.db");
    let open = || Arc::new(EmbeddedLimits::open(&path).unwrap());
    Place { one: open(), two: open(), prefix: None, _folder: Some(folder) }
}

macro_rules! stamp {
    ($backend:ident: $($behaviour:ident),* $(,)?) => {
        mod $backend {
            $(#[tokio::test]
            async fn $behaviour() {
                let place = super::$backend();
                super::$behaviour(place.one.clone(), place.two.clone()).await;
                place.clean().await;
            })*
        }
    };
    ($($backend:ident),*) => {
        $(stamp!(
            $backend:
            one_second_s_worth_at_once_and_then_a_wait,
            a_refused_turn_takes_nothing_and_the_wait_is_enough,
            a_slow_rate_has_a_burst_of_one,
            two_handles_share,
            no_more_than_the_rate_however_many_ask,
            odd_names_stay_apart,
        );)*
    };
}

stamp!(redis, embedded);

#[tokio::test]
async fn a_redis_that_is_away_is_unavailable_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", closed.local_addr().unwrap());
    drop(closed);
    let limits = RedisLimits::connect(&url, None, "none".to_owned()).unwrap();
    let begun = Instant::now();
    let error = limits.take("shop", rate("1/s")).await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable, "{error}");
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
}
