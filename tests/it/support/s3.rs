//! S3 servers of one's own on this machine. Both check who asks: keys and signatures.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use longshore::connect::Connection;
use longshore::secret::Secret;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::task::JoinHandle;

use super::processes::interpreter;

/// A running server with an empty bucket named `lake`; it ends with the value.
pub struct S3 {
    server: Server,
    port: u16,
    /// The access key and the secret key of its only user.
    pub keys: (String, String),
}

enum Server {
    Moto(Child),
    Inside { serving: JoinHandle<()>, _folder: tempfile::TempDir },
}

impl S3 {
    /// moto, which keeps If-None-Match and If-Match also among writers at once. It has to be one
    /// that checks the signatures of escaped paths rightly, as 5.2.5 does and 5.2.1 does not.
    pub async fn moto() -> S3 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(interpreter())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            // The four requests below make user and bucket; whatever comes later has to sign.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "4")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts");
        let mut server = S3 { server: Server::Moto(child), port, keys: Default::default() };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Server::Moto(child) = &mut server.server {
                assert!(child.try_wait().unwrap().is_none(), "moto ended");
            }
            assert!(started.elapsed() < Duration::from_secs(60), "moto does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server.iam("Action=CreateUser");
        let answer = server.iam("Action=CreateAccessKey");
        let within = |tag: &str| {
            let (_, rest) = answer.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        server.keys = (within("AccessKeyId"), within("SecretAccessKey"));
        let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
        server.iam(&format!("Action=PutUserPolicy&PolicyName=all&PolicyDocument={policy}"));
        server.ask("PUT /lake", "", "");
        server
    }

    /// s3s-fs in this process. It checks digests too, but its conditions do not hold among writers
    /// at once, and its listings have no ETags.
    pub async fn s3s() -> S3 {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lake")).unwrap();
        let keys = ("test-user".to_owned(), uuid::Uuid::now_v7().to_string());
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(keys.0.as_str(), keys.1.as_str()));
        let service = service.build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let serving =
                    http1::Builder::new().serve_connection(TokioIo::new(client), service.clone());
                tokio::spawn(serving);
            }
        });
        S3 { server: Server::Inside { serving, _folder: folder }, port, keys }
    }

    /// Whether its conditions hold among writers at once, and its listings have ETags.
    pub fn is_strict(&self) -> bool {
        matches!(self.server, Server::Moto(_))
    }

    /// Where it is.
    pub fn url(&self) -> url::Url {
        format!("http://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// A connection to `folder` of the bucket.
    pub fn connection(&self, folder: &str) -> Connection {
        let mut connection = connection(self.port, folder);
        connection.access_key = Some(Secret::Literal(self.keys.0.clone()));
        connection.secret_key = Some(Secret::Literal(self.keys.1.clone()));
        connection
    }

    /// Asks moto's IAM for something about its only user.
    fn iam(&self, action: &str) -> String {
        let body = format!("{action}&Version=2010-05-08&UserName=longshore");
        // By this header moto knows which service is meant; it is not checked yet.
        let headers = "authorization: AWS4-HMAC-SHA256 \
             Credential=none/20261120/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none\r\n\
             content-type: application/x-www-form-urlencoded\r\n";
        self.ask("POST /", headers, &body)
    }

    fn ask(&self, what: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let (port, length) = (self.port, body.len());
        let request = format!(
            "{what} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{headers}\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
        answer
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        match &mut self.server {
            Server::Moto(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Server::Inside { serving, .. } => serving.abort(),
        }
    }
}

/// A connection to `folder` of the bucket `lake` at a port of this machine.
pub fn connection(port: u16, folder: &str) -> Connection {
    let mut connection: Connection = serde_json::from_value(serde_json::json!({
        "type": "files",
        "url": format!("s3://lake/{folder}"),
        "region": "us-east-1",
        "endpoint": format!("http://127.0.0.1:{port}"),
        "access-key": "test",
        "secret-key": "test",
    }))
    .unwrap();
    connection.name = "lake".to_owned();
    connection
}
