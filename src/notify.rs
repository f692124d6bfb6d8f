//! Notices to whoever looks after an installation: a run is dead, late or stuck.
//!
//! They are rows of the ledger's outbox, written with what they tell of, and posted by the
//! dispatcher until they are taken: at least once, each with a key of its own for telling repeats.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::job::retry::{self, Jitter};
use crate::ledger::Notice;
use crate::scrub::scrub;
use crate::secret::Secret;
use crate::units::Backoff;

const DOING: &str = "send a notice";
/// How long connecting, and the whole of a request with its answer, may take.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// How long is waited after a failure.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(3600) };
/// How often one notice is tried: for about a day.
const TRIES: i32 = 35;

/// The `[notify]` of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NotifySettings {
    /// Where notices are posted to, as JSON. With TLS, but towards this machine.
    pub url: String,
    /// The secret that signs them, by the header `Longshore-Signature`. Without it they are not
    /// signed.
    pub secret: Option<Secret>,
    /// How long after it was enqueued a scheduled run that has not ended is told of as late.
    /// Default: one hour.
    #[serde(with = "crate::units::duration", default = "one_hour")]
    #[cfg_attr(test, schemars(with = "crate::units::written::Length"))]
    pub late: Duration,
}

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

/// Posts notices.
pub struct Notifier {
    settings: NotifySettings,
    client: reqwest::Client,
}

impl Notifier {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// `config` where no client can be made: no authority is trusted, for instance.
    pub fn new(settings: NotifySettings) -> Result<Notifier> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            // What is signed for one address is not for another to have.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|cause| {
                Error::config("set up [notify]", "no HTTP client can be made")
                    .caused_by(cause.without_url())
            })?;
        Ok(Notifier { settings, client })
    }

    /// How long after it was enqueued a scheduled run is late.
    pub fn late(&self) -> Duration {
        self.settings.late
    }

    /// Posts a notice. `Ok` means that it was taken, by a status from 200 to 299; nothing more of
    /// the answer is read.
    ///
    /// # Errors
    /// `unavailable`, whatever the reason: somebody mends it, and it is tried again.
    pub async fn send(&self, notice: &Notice) -> Result<()> {
        let body = body(notice);
        let mut request = self
            .client
            .post(&self.settings.url)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", key(notice));
        if let Some(secret) = &self.settings.secret {
            let secret = secret.read_for_job().await?;
            let signed = signature(&secret, Timestamp::now().as_second(), &body);
            request = request.header("Longshore-Signature", signed);
        }
        // The address may hold a token: errors do not show it.
        let answer = request.body(body).send().await.map_err(|cause| {
            let why = match (cause.is_timeout(), cause.is_connect()) {
                (true, _) => "the receiver did not answer in time",
                (_, true) => "the receiver cannot be reached",
                _ => "the exchange with the receiver failed",
            };
            Error::unavailable(DOING, why)
                .caused_by(cause.without_url())
                .help("Check [notify] url, and that whoever listens there runs.")
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let help = match status.is_redirection() {
            true => "Write the address that it leads to into [notify] url: none is followed.",
            false => "Check [notify] url and secret, and what the receiver's log says.",
        };
        Err(Error::unavailable(DOING, format!("the receiver answered {}", status.as_u16()))
            .help(help))
    }
}

/// How long to wait after so many tries; nothing where it is given up.
pub fn wait(tries: i32) -> Option<Duration> {
    let before = u32::try_from(tries.saturating_sub(1)).unwrap_or(0);
    // Not all at one instant, after an outage.
    (tries < TRIES).then(|| retry::wait(AGAIN, before, Jitter::Half, rand::random()))
}

/// The same for every repeat of a notice, and for no other.
fn key(notice: &Notice) -> String {
    format!("{}/{}/{}", notice.run.id, notice.epoch, notice.what.as_str())
}

fn body(notice: &Notice) -> String {
    let (run, order) = (&notice.run, &notice.run.order);
    json!({
        "event": format!("run.{}", notice.what.as_str()),
        "id": key(notice),
        "run": run.id,
        "epoch": notice.epoch,
        "key": order.key,
        "edition": order.edition,
        "export": order.export,
        "revision": order.revision,
        "recipient": order.recipient,
        "window": order.window,
        "pool": order.pool,
        "requested_by": order.requested_by,
        "state": run.state,
        "attempts": run.tries(),
        "accepted_at": run.accepted_at,
        "ended_at": run.ended_at,
        "class": run.failure.as_ref().map(|failure| failure.class),
        "reason": run.failure.as_ref().map(|failure| scrub(&failure.message)),
    })
    .to_string()
}

/// `t=<unix>,v1=<hex>`: HMAC-SHA256 of the time, a dot and the body.
fn signature(secret: &SecretString, at: i64, body: &str) -> String {
    // A key of any length is taken.
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).map(|mut mac| {
        mac.update(format!("{at}.{body}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    });
    format!("t={at},v1={}", mac.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_any_other_library_makes_of_it() {
        // printf '1795255200.{"a":1}' | openssl dgst -sha256 -hmac hush
        assert_eq!(
            signature(&SecretString::from("hush"), 1_795_255_200, r#"{"a":1}"#),
            "t=1795255200,v1=3f4f7bfce3425b7eaaa02835353a038dfd7c52a1d17c646263297ce745e5871a"
        );
    }

    #[test]
    fn waits_grow_to_an_hour_and_end_within_days() {
        let waits: Vec<Duration> = (1..TRIES).map_while(wait).collect();
        assert!(waits[0] <= AGAIN.first && waits[11] > Duration::from_secs(1000));
        assert!(waits.iter().all(|wait| *wait <= AGAIN.last));
        let all: Duration = waits.iter().sum();
        assert!(all > Duration::from_secs(8 * 3600) && all < Duration::from_secs(2 * 86_400));
        assert!(wait(TRIES).is_none() && wait(i32::MAX).is_none());
    }
}
