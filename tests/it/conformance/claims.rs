//! What every backend of claims must do.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore::claims::embedded::EmbeddedClaims;
use longshore::claims::redis::RedisClaims;
use longshore::claims::{Claim, Claimed, Claims};
use longshore::error::Class;
use longshore::secret::Secret;
use tokio::net::TcpListener;

use super::redis as server;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn claim(key: &str, token: &str) -> Claim {
    Claim { key: key.to_owned(), token: token.to_owned() }
}

async fn granted_then_held_with_the_time_left(claims: Arc<dyn Claims>) {
    assert_eq!(claims.claim(&claim("k", "a"), LONG).await.unwrap(), Claimed::Granted);
    let Claimed::Held(left) = claims.claim(&claim("k", "b"), LONG).await.unwrap() else {
        panic!("a second claim was not held off");
    };
    assert!(left <= LONG && left > LONG - Duration::from_secs(10), "{left:?}");
    assert_eq!(claims.claim(&claim("other", "b"), LONG).await.unwrap(), Claimed::Granted);
}

async fn of_many_claims_at_once_one_is_granted(claims: Arc<dyn Claims>) {
    let all = (0..40).map(|n| {
        let claims = claims.clone();
        async move { claims.claim(&claim("k", &format!("t{n}")), LONG).await.unwrap() }
    });
    let answers = futures::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| **answer == Claimed::Granted).count(), 1);
    assert!(answers.iter().all(|answer| !matches!(answer, Claimed::Done { .. })));
}

async fn a_lease_that_ends_lets_another_in(claims: Arc<dyn Claims>) {
    claims.claim(&claim("k", "a"), SHORT).await.unwrap();
    let Claimed::Held(left) = claims.claim(&claim("k", "b"), LONG).await.unwrap() else {
        panic!("the lease did not hold");
    };
    tokio::time::sleep(left + Duration::from_millis(20)).await;
    assert_eq!(claims.renew(&[claim("k", "a")], LONG).await.unwrap(), [false]);
    assert_eq!(claims.claim(&claim("k", "b"), LONG).await.unwrap(), Claimed::Granted);
    assert_eq!(claims.renew(&[claim("k", "a")], LONG).await.unwrap(), [false]);
}

async fn the_same_token_renews(claims: Arc<dyn Claims>) {
    claims.claim(&claim("k", "a"), SHORT).await.unwrap();
    assert_eq!(claims.claim(&claim("k", "a"), LONG).await.unwrap(), Claimed::Granted);
    let Claimed::Held(left) = claims.claim(&claim("k", "b"), LONG).await.unwrap() else {
        panic!("the claim was lost");
    };
    assert!(left > SHORT, "{left:?}");
}

async fn renewing_answers_for_each_in_order(claims: Arc<dyn Claims>) {
    assert_eq!(claims.renew(&[], LONG).await.unwrap(), Vec::<bool>::new());
    claims.claim(&claim("mine", "a"), SHORT).await.unwrap();
    claims.claim(&claim("theirs", "b"), SHORT).await.unwrap();
    claims.claim(&claim("mine too", "a"), SHORT).await.unwrap();
    let asked =
        [claim("mine", "a"), claim("theirs", "a"), claim("none", "a"), claim("mine too", "a")];
    assert_eq!(claims.renew(&asked, LONG).await.unwrap(), [true, false, false, true]);
    tokio::time::sleep(SHORT + Duration::from_millis(20)).await;
    assert!(matches!(claims.claim(&claim("mine", "b"), LONG).await.unwrap(), Claimed::Held(_)));
    assert_eq!(claims.claim(&claim("theirs", "c"), LONG).await.unwrap(), Claimed::Granted);
    assert_eq!(claims.claim(&claim("none", "c"), LONG).await.unwrap(), Claimed::Granted);
}

async fn only_its_token_releases_a_claim(claims: Arc<dyn Claims>) {
    claims.claim(&claim("k", "a"), LONG).await.unwrap();
    claims.release(&claim("k", "b")).await.unwrap();
    claims.release(&claim("none", "b")).await.unwrap();
    assert!(matches!(claims.claim(&claim("k", "b"), LONG).await.unwrap(), Claimed::Held(_)));
    claims.release(&claim("k", "a")).await.unwrap();
    assert_eq!(claims.claim(&claim("k", "b"), LONG).await.unwrap(), Claimed::Granted);
}

async fn done_is_seen_by_everybody(claims: Arc<dyn Claims>) {
    claims.claim(&claim("k", "a"), LONG).await.unwrap();
    claims.done("k", "3c:9f", 2, LONG).await.unwrap();
    let done = Claimed::Done { content: "3c:9f".to_owned(), epoch: 2 };
    for token in ["a", "b"] {
        assert_eq!(claims.claim(&claim("k", token), LONG).await.unwrap(), done);
    }
    claims.release(&claim("k", "a")).await.unwrap();
    assert_eq!(claims.renew(&[claim("k", "a")], LONG).await.unwrap(), [false]);
    assert_eq!(claims.claim(&claim("k", "b"), LONG).await.unwrap(), done);
    claims.done("k", "3c:9f", 3, LONG).await.unwrap();
    let done = Claimed::Done { content: "3c:9f".to_owned(), epoch: 3 };
    assert_eq!(claims.claim(&claim("k", "b"), LONG).await.unwrap(), done);
}

async fn a_done_mark_ends(claims: Arc<dyn Claims>) {
    claims.done("k", "3c9f", 0, SHORT).await.unwrap();
    assert!(matches!(claims.claim(&claim("k", "a"), LONG).await.unwrap(), Claimed::Done { .. }));
    tokio::time::sleep(SHORT + Duration::from_millis(20)).await;
    assert_eq!(claims.claim(&claim("k", "a"), LONG).await.unwrap(), Claimed::Granted);
}

async fn forgetting_takes_back_a_done_mark_but_no_claim(claims: Arc<dyn Claims>) {
    claims.done("k", "3c9f", 0, LONG).await.unwrap();
    claims.forget("k").await.unwrap();
    assert_eq!(claims.claim(&claim("k", "a"), LONG).await.unwrap(), Claimed::Granted);
    claims.forget("k").await.unwrap();
    assert_eq!(claims.renew(&[claim("k", "a")], LONG).await.unwrap(), [true]);
}

async fn odd_keys_stay_apart(claims: Arc<dyn Claims>) {
    let odd = [
        "",
        " ",
        "{",
        "}",
        "{}",
        "{a}",
        "%7B",
        "a:b",
        "a",
        "A",
        "é",
        "\u{0}",
        "\n",
        "'; --",
        "k*",
        "d:1:x",
        "\u{1f6a2}",
    ];
    let long = "x".repeat(4_000);
    for key in odd.into_iter().chain([long.as_str()]) {
        assert_eq!(
            claims.claim(&claim(key, key), LONG).await.unwrap(),
            Claimed::Granted,
            "{key:?}"
        );
    }
    for key in odd {
        let other = claims.claim(&claim(key, "d:1:x "), LONG).await.unwrap();
        assert!(matches!(other, Claimed::Held(_)), "{key:?}");
        claims.done(key, key, -1, LONG).await.unwrap();
        let done = Claimed::Done { content: key.to_owned(), epoch: -1 };
        assert_eq!(claims.claim(&claim(key, key), LONG).await.unwrap(), done, "{key:?}");
    }
}

async fn it_answers_that_it_is_there(claims: Arc<dyn Claims>) {
    claims.ping().await.unwrap();
}

/// One backend, alone in its place.
struct Place {
    claims: Arc<dyn Claims>,
    wipe: Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>>>,
    _folder: Option<tempfile::TempDir>,
}

fn redis() -> Place {
    let prefix = server::prefix();
    let claims = RedisClaims::connect(&server::url(), None, prefix.clone()).unwrap();
    let wipe = move || -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let prefix = prefix.clone();
        Box::pin(async move {
            server::wipe(&prefix).await;
        })
    };
    Place { claims: Arc::new(claims), wipe: Box::new(wipe), _folder: None }
}

fn embedded() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("longshore.db");
    let claims = EmbeddedClaims::open(&path).unwrap();
    let wipe = move || -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute("DELETE FROM claims_keys", []).unwrap();
        Box::pin(std::future::ready(()))
    };
    Place { claims: Arc::new(claims), wipe: Box::new(wipe), _folder: Some(folder) }
}

async fn contents_that_are_lost_cost_nothing_but_the_claims(place: &Place) {
    let claims = &place.claims;
    claims.claim(&claim("k", "a"), LONG).await.unwrap();
    claims.done("done", "3c9f", 0, LONG).await.unwrap();
    (place.wipe)().await;
    assert_eq!(claims.renew(&[claim("k", "a")], LONG).await.unwrap(), [false]);
    claims.release(&claim("k", "a")).await.unwrap();
    assert_eq!(claims.claim(&claim("k", "b"), LONG).await.unwrap(), Claimed::Granted);
    assert_eq!(claims.claim(&claim("done", "b"), LONG).await.unwrap(), Claimed::Granted);
}

macro_rules! stamp {
    ($backend:ident: $($behaviour:ident),* $(,)?) => {
        mod $backend {
            $(#[tokio::test]
            async fn $behaviour() {
                let place = super::$backend();
                super::$behaviour(place.claims.clone()).await;
                (place.wipe)().await;
            })*

            #[tokio::test]
            async fn contents_that_are_lost_cost_nothing_but_the_claims() {
                let place = super::$backend();
                super::contents_that_are_lost_cost_nothing_but_the_claims(&place).await;
                (place.wipe)().await;
            }
        }
    };
    ($($backend:ident),*) => {
        $(stamp!(
            $backend:
            granted_then_held_with_the_time_left,
            of_many_claims_at_once_one_is_granted,
            a_lease_that_ends_lets_another_in,
            the_same_token_renews,
            renewing_answers_for_each_in_order,
            only_its_token_releases_a_claim,
            done_is_seen_by_everybody,
            a_done_mark_ends,
            forgetting_takes_back_a_done_mark_but_no_claim,
            odd_keys_stay_apart,
            it_answers_that_it_is_there,
        );)*
    };
}

stamp!(redis, embedded);

#[tokio::test]
async fn in_redis_nothing_stays_for_ever() {
    let prefix = server::prefix();
    let claims = RedisClaims::connect(&server::url(), None, prefix.clone()).unwrap();
    claims.claim(&claim("a", "t"), LONG).await.unwrap();
    claims.done("b", "3c9f", 0, Duration::MAX).await.unwrap();
    claims.ping().await.unwrap();
    let mut connection = server::connection().await;
    for key in server::keys(&prefix).await {
        let left: i64 = ::redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        assert!(left > 0, "{key} has no end");
    }
    server::wipe(&prefix).await;
    assert_eq!(server::keys(&prefix).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_embedded_handles_share_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("longshore.db");
    let (one, two) = (EmbeddedClaims::open(&path).unwrap(), EmbeddedClaims::open(&path).unwrap());
    assert_eq!(one.claim(&claim("k", "a"), LONG).await.unwrap(), Claimed::Granted);
    assert!(matches!(two.claim(&claim("k", "b"), LONG).await.unwrap(), Claimed::Held(_)));
    drop(one);
    let again = EmbeddedClaims::open(&path).unwrap();
    assert!(matches!(again.claim(&claim("k", "b"), LONG).await.unwrap(), Claimed::Held(_)));
    let missing = EmbeddedClaims::open(&folder.path().join("none").join("x.db"));
    assert_eq!(missing.err().map(|error| error.class()), Some(Class::Config));
}

#[tokio::test]
async fn a_redis_that_is_away_or_silent_is_unavailable_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().port();
    for (scheme, port) in [("redis", port), ("redis", silent), ("rediss", silent)] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        let claims = RedisClaims::connect(&url, None, "none".to_owned()).unwrap();
        let begun = Instant::now();
        let error = claims.claim(&claim("k", "a"), LONG).await.unwrap_err();
        assert_eq!(error.class(), Class::Unavailable, "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
        assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    }
}

#[test]
fn an_address_that_is_none_is_a_config_error() {
    for url in ["", "amqp://host", "redis://host:port", "nothing at all"] {
        let claims = RedisClaims::connect(url, None, "none".to_owned());
        assert_eq!(claims.err().map(|error| error.class()), Some(Class::Config), "{url}");
    }
}

#[tokio::test]
async fn a_password_is_read_anew_and_a_cut_connection_is_replaced() {
    let mut admin = server::connection().await;
    let prefix = server::prefix();
    let user = prefix.clone();
    let rule = format!("~{prefix}:*");
    let acl = |rules: &[&str]| ::redis::cmd("ACL").arg("SETUSER").arg(&user).arg(rules).clone();
    let _: () = acl(&["on", ">first-1", &rule, "+@all"]).query_async(&mut admin).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "first-1\n").unwrap();
    let secret = Secret::File(file.to_str().unwrap().to_owned());
    let url = server::url().replacen("://", &format!("://{user}@"), 1);
    let claims = RedisClaims::connect(&url, Some(secret.clone()), prefix.clone()).unwrap();
    claims.ping().await.unwrap();

    // The server cuts the connection: the next call does not notice.
    let kill = || ::redis::cmd("CLIENT").arg(&["KILL", "USER", user.as_str()]).clone();
    let cut: i64 = kill().query_async(&mut admin).await.unwrap();
    assert!(cut >= 1);
    claims.ping().await.unwrap();

    // The password was changed, the file not yet.
    let _: () = acl(&["resetpass", ">second-2"]).query_async(&mut admin).await.unwrap();
    let _: i64 = kill().query_async(&mut admin).await.unwrap();
    let error = claims.ping().await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{}", error.chain());
    assert!(error.advice().is_some());
    assert!(!error.chain().contains("first-1"), "{}", error.chain());
    std::fs::write(&file, "second-2\n").unwrap();
    claims.ping().await.unwrap();

    // Rights on other keys only.
    let foreign = RedisClaims::connect(&url, Some(secret), "elsewhere".to_owned()).unwrap();
    let error = foreign.ping().await.unwrap_err();
    assert_eq!(error.class(), Class::Permanent, "{}", error.chain());

    let _: i64 =
        ::redis::cmd("ACL").arg(&["DELUSER", user.as_str()]).query_async(&mut admin).await.unwrap();
    server::wipe(&prefix).await;
}
