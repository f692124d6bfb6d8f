//! TLS: how a failure of it reads, wherever a connection is made.

use crate::error::cause;

/// What to do about a failure, whoever connects.
pub(crate) const HELP: &str = "Check that the server speaks TLS there, and its certificate: who signed it, \
    its names and its dates. SSL_CERT_FILE names the authorities to trust in the place of the system's; `ca` of a \
    PostgreSQL connection names others besides.";

/// Why there is no TLS, where that is what `error` came from.
pub(crate) fn failure(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    cause::<rustls::Error>(error).map(|reason| format!("TLS failed: {reason}"))
}
