//! Claims in Redis.
//!
//! Each key of a job is one key of Redis, `<prefix>:claim:{<key>}`, whose value is `c:<token>`
//! while it is claimed and `d:<epoch>:<content>` once it is done; so that every step is one look
//! and at most one write, in one script. All times are Redis's own: a worker's clock plays no part.

mod examine;

use std::time::Duration;

use async_trait::async_trait;
use redis::Script;

use super::link::{Link, escape, millis};
use super::{Claim, Claimed, Claims};
use crate::error::{Error, Result};
use crate::secret::Secret;

pub use examine::examine;

/// Claims that all workers of an installation share.
pub struct RedisClaims {
    link: Link,
    prefix: String,
    claim: Script,
    renew: Script,
    release: Script,
    done: Script,
    forget: Script,
    ping: Script,
}

impl RedisClaims {
    /// Understands the address (`redis://` or `rediss://`); the connection is opened by the first
    /// use, and again whenever it breaks. `prefix` sets installations on one Redis apart.
    ///
    /// An address that cannot be understood is an error of class `config`. Refused credentials and
    /// missing rights show at the first use, as errors of class `permanent`.
    pub fn connect(url: &str, password: Option<Secret>, prefix: String) -> Result<RedisClaims> {
        Ok(RedisClaims {
            link: Link::new(url, password)?,
            prefix: escape(&prefix),
            claim: Script::new(include_str!("claim.lua")),
            renew: Script::new(include_str!("renew.lua")),
            release: Script::new(include_str!("release.lua")),
            done: Script::new(include_str!("done.lua")),
            forget: Script::new(include_str!("forget.lua")),
            ping: Script::new(include_str!("ping.lua")),
        })
    }

    fn place(&self, key: &str) -> String {
        format!("{}:claim:{{{}}}", self.prefix, escape(key))
    }
}

fn value(claim: &Claim) -> String {
    format!("c:{}", claim.token)
}

#[async_trait]
impl Claims for RedisClaims {
    async fn claim(&self, claim: &Claim, lease: Duration) -> Result<Claimed> {
        const OPERATION: &str = "claim the key";
        let mut call = self.claim.key(self.place(&claim.key));
        call.arg(value(claim)).arg(millis(lease));
        let (answer, left, mark): (String, i64, String) =
            self.link.invoke(OPERATION, &call).await?;
        match answer.as_str() {
            "granted" => Ok(Claimed::Granted),
            "held" => Ok(Claimed::Held(Duration::from_millis(left.max(1).unsigned_abs()))),
            _ => mark
                .split_once(':')
                .and_then(|(epoch, content)| {
                    Some(Claimed::Done { epoch: epoch.parse().ok()?, content: content.to_owned() })
                })
                .ok_or_else(|| {
                    Error::unavailable(OPERATION, "the done-mark cannot be understood")
                        .help("Another program writes these keys; give it another Redis database.")
                }),
        }
    }

    async fn renew(&self, claims: &[Claim], lease: Duration) -> Result<Vec<bool>> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = self.renew.prepare_invoke();
        call.arg(millis(lease));
        for claim in claims {
            call.key(self.place(&claim.key)).arg(value(claim));
        }
        self.link.invoke("renew the claims", &call).await
    }

    async fn release(&self, claim: &Claim) -> Result<()> {
        let mut call = self.release.key(self.place(&claim.key));
        call.arg(value(claim));
        self.link.invoke("release the claim", &call).await
    }

    async fn done(&self, key: &str, content: &str, epoch: i32, keep: Duration) -> Result<()> {
        let mut call = self.done.key(self.place(key));
        call.arg(format!("d:{epoch}:{content}")).arg(millis(keep));
        self.link.invoke("mark the key done", &call).await
    }

    async fn forget(&self, key: &str) -> Result<()> {
        self.link.invoke("forget the done-mark", &self.forget.key(self.place(key))).await
    }

    async fn ping(&self) -> Result<()> {
        self.link.invoke("check the claims", &self.ping.key(format!("{}:ping", self.prefix))).await
    }
}
