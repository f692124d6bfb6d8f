//! A way to a server on which an answer gets lost, or a request is long under way.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::SOON;
use crate::support::servers;

/// What is to become of the next request that has such words.
#[derive(Clone, Copy)]
enum Fate {
    /// It arrives, and the connection is cut once the answer has these words.
    Lose(&'static str),
    /// It does not arrive, and the connection stays open.
    Hold,
}

#[derive(Default)]
struct State {
    armed: Vec<(&'static str, Fate)>,
    held: Vec<String>,
}

/// A TCP proxy for a server.
pub struct Way {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Way {
    /// Listens on a free port of the loopback, and passes on to where `url` leads.
    pub async fn to(url: &url::Url) -> Way {
        let server = servers::address(url);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let of = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), Arc::clone(&of)));
            }
        });
        Way { address, state, accepting }
    }

    /// `url` by this way, without a password.
    pub fn by(&self, url: &url::Url) -> String {
        servers::by(url, self.address).as_str().trim_end_matches('/').to_owned()
    }

    /// Loses the answer to the next request that has the words `asked`, once it has `answered`.
    pub fn lose(&self, asked: &'static str, answered: &'static str) {
        self.state.lock().unwrap().armed.push((asked, Fate::Lose(answered)));
    }

    /// Holds the next request that has the words `asked`.
    pub fn hold(&self, asked: &'static str) {
        self.state.lock().unwrap().armed.push((asked, Fate::Hold));
    }

    /// The request that is held, once there is one.
    pub async fn held(&self) -> String {
        let started = Instant::now();
        loop {
            if let Some(held) = self.state.lock().unwrap().held.first() {
                return held.clone();
            }
            assert!(started.elapsed() < SOON, "no request is held");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Makes sure that all that was to happen has happened.
    pub fn done(&self) {
        let left: Vec<_> =
            self.state.lock().unwrap().armed.iter().map(|(asked, _)| *asked).collect();
        assert_eq!(left, Vec::<&str>::new(), "nobody asked for these");
    }
}

fn has(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

async fn pass(mut client: TcpStream, server: String, state: Arc<Mutex<State>>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut asks, mut hears) = client.split();
    let (mut answers, mut told) = server.split();
    let lost: Mutex<Option<&str>> = Mutex::default();
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = asks.read(&mut buffer).await {
            let request = &buffer[..count];
            let fate = {
                let mut state = state.lock().unwrap();
                let at = state.armed.iter().position(|(asked, _)| has(request, asked));
                let fate = at.map(|at| state.armed.remove(at).1);
                if matches!(fate, Some(Fate::Hold)) {
                    state.held.push(String::from_utf8_lossy(request).into_owned());
                }
                fate
            };
            match fate {
                Some(Fate::Hold) => return std::future::pending().await,
                Some(Fate::Lose(answered)) => *lost.lock().unwrap() = Some(answered),
                None => {}
            }
            if told.write_all(request).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let (mut buffer, mut swallowed) = (vec![0; 64 << 10], Vec::new());
        while let Ok(count @ 1..) = answers.read(&mut buffer).await {
            let losing = *lost.lock().unwrap();
            match losing {
                Some(answered) => {
                    swallowed.extend_from_slice(&buffer[..count]);
                    if has(&swallowed, answered) {
                        return;
                    }
                }
                None if hears.write_all(&buffer[..count]).await.is_err() => return,
                None => {}
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
