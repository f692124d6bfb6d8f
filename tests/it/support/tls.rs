//! TLS in front of a server: certificates of a test's own, and a proxy that passes the plain bytes on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use url::Url;

/// What a client of PostgreSQL sends before anything else, where it wants TLS.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Signs certificates. Nothing knows it but who is told of its file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    /// Makes one, with a name that no other has.
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = format!("tests {}", uuid::Uuid::now_v7());
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    /// The file with its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server with a certificate for `names`.
    pub fn certify(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.sign(CertificateParams::new(owned(names)).unwrap())
    }

    /// A server whose certificate for `names` has expired.
    pub fn certify_until_2021(&self, names: &[&str]) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(owned(names)).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        Arc::new(config)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A way to a server by TLS, and by nothing else.
pub struct Tls {
    server: Url,
    port: u16,
    sessions: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Tls {
    /// Listens on a free port of the loopback, and passes on to the server that a URL names. In
    /// front of PostgreSQL it agrees to TLS first, as such a server does.
    pub async fn before(server: &Url, config: Arc<ServerConfig>) -> Tls {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = server.scheme().starts_with("postgres");
        let usual = match server.scheme() {
            "amqp" => 5672,
            "redis" => 6379,
            _ => 5432,
        };
        let to = (server.host_str().unwrap().to_owned(), server.port().unwrap_or(usual));
        let sessions = Arc::new(AtomicUsize::new(0));
        let (acceptor, counter) = (TlsAcceptor::from(config), sessions.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, to, counter) = (acceptor.clone(), to.clone(), counter.clone());
                // That a client leaves is for the test to see at the client.
                tokio::spawn(async move { pass(client, asked, acceptor, to, counter).await });
            }
        });
        Tls { server: server.clone(), port, sessions, accepting }
    }

    /// The server's URL by this way: with another scheme, host and port, and without a password.
    pub fn url(&self, scheme: &str, host: &str) -> Url {
        let mut url = self.server.clone();
        url.set_scheme(scheme).unwrap();
        url.set_host(Some(host)).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.set_password(None).unwrap();
        url
    }

    /// How many connections agreed on TLS.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

async fn pass(
    mut client: TcpStream,
    asked: bool,
    acceptor: TlsAcceptor,
    server: (String, u16),
    sessions: Arc<AtomicUsize>,
) -> io::Result<()> {
    if asked {
        let mut request = [0; SSL_REQUEST.len()];
        client.read_exact(&mut request).await?;
        if request != SSL_REQUEST {
            return Ok(());
        }
        client.write_all(b"S").await?;
    }
    let mut client = acceptor.accept(client).await?;
    sessions.fetch_add(1, Ordering::Relaxed);
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
