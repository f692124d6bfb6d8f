//! A TCP proxy that spoils what goes through it, for faults on the wire.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What happens to bytes that go one way, on all connections, those that are open and new ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every chunk comes later by this.
    Delay(Duration),
    /// Nothing passes until the fault is another one; nothing is lost.
    Hold,
    /// The first byte of every chunk comes inverted.
    Corrupt,
    /// The receiver is told that nothing more comes (half-close); the other way goes on.
    Close,
}

/// A way to a server that can be closed, opened and spoilt.
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all connections share.
struct Wire {
    state: watch::Sender<State>,
    trap: Mutex<Option<Trap>>,
}

struct State {
    /// In the order of preference.
    servers: Vec<String>,
    open: bool,
    /// How often all connections were cut.
    cuts: u64,
    faults: [Fault; 2],
}

struct Trap {
    way: Way,
    pattern: Vec<u8>,
    pass: usize,
    sprung: oneshot::Sender<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback, and passes on to `server` (`host:port`).
    pub async fn start(server: String) -> Proxy {
        Proxy::among(vec![server]).await
    }

    /// As a load balancer: each new connection goes to the first of `servers` that takes it.
    pub async fn among(servers: Vec<String>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { servers, open: true, cuts: 0, faults: Default::default() };
        let wire = Arc::new(Wire { state: watch::Sender::new(state), trap: Mutex::default() });
        let shared = wire.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, shared.clone()));
            }
        });
        Proxy { address, wire, accepting }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections; new ones are closed at once until [`Proxy::reopen`].
    pub fn cut(&self) {
        self.wire.state.send_modify(|state| {
            state.open = false;
            state.cuts += 1;
        });
    }

    /// Lets connections through again.
    pub fn reopen(&self) {
        self.wire.state.send_modify(|state| state.open = true);
    }

    /// Cuts the connections that there are; new ones go through.
    pub fn cut_once(&self) {
        self.wire.state.send_modify(|state| state.cuts += 1);
    }

    /// New connections go to the first of `servers` that takes them.
    pub fn lead_to(&self, servers: Vec<String>) {
        self.wire.state.send_modify(|state| state.servers = servers);
    }

    /// What happens from now on to bytes that go this way.
    pub fn spoil(&self, way: Way, fault: Fault) {
        self.wire.state.send_modify(|state| state.faults[way as usize] = fault);
    }

    /// When `pattern` goes this way, its connection is cut, once: of what goes, the first `pass`
    /// bytes of the pattern and all before them arrive, and nothing behind them. (Where the pattern
    /// comes in pieces, what has passed already has.) The answer comes when that has happened.
    pub fn cut_at(&self, way: Way, pattern: &[u8], pass: usize) -> oneshot::Receiver<()> {
        let (sprung, when) = oneshot::channel();
        let trap = Trap { way, pattern: pattern.to_vec(), pass, sprung };
        *self.wire.trap.lock().unwrap() = Some(trap);
        when
    }
}

async fn pass(client: TcpStream, wire: Arc<Wire>) {
    let mut state = wire.state.subscribe();
    let (servers, cuts) = {
        let state = state.borrow_and_update();
        if !state.open {
            return;
        }
        (state.servers.clone(), state.cuts)
    };
    for server in servers {
        let Ok(server) = TcpStream::connect(server).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, Way::ToServer, &wire),
                pump(from_server, to_client, Way::ToClient, &wire),
            )
        };
        tokio::select! {
            _ = both => {}
            _ = state.wait_for(|state| state.cuts != cuts) => {}
        }
        return;
    }
}

/// Passes on what comes until its end, which is passed on as well. An error ends both ways.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    wire: &Wire,
) -> io::Result<()> {
    let mut state = wire.state.subscribe();
    let mut buffer = vec![0; 64 << 10];
    let mut before = Vec::new();
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read?,
            _ = state.wait_for(|state| state.faults[way as usize] == Fault::Close) => 0,
        };
        let held = state.wait_for(|state| state.faults[way as usize] != Fault::Hold).await;
        let fault = held.map_or(Fault::None, |state| state.faults[way as usize]);
        if read == 0 || fault == Fault::Close {
            return to.shutdown().await;
        }
        let chunk = &mut buffer[..read];
        match fault {
            Fault::None | Fault::Hold | Fault::Close => {}
            Fault::Delay(time) => sleep(time).await,
            Fault::Corrupt => chunk[0] = !chunk[0],
        }
        if let Some((passes, trap)) = sprung(wire, way, &mut before, chunk) {
            to.write_all(&chunk[..passes]).await?;
            let _ = trap.sprung.send(());
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        to.write_all(chunk).await?;
    }
}

/// The trap, if it is set and its pattern ends within this chunk, and how many bytes of the chunk
/// still pass. `before` is the end of what went before.
fn sprung(wire: &Wire, way: Way, before: &mut Vec<u8>, chunk: &[u8]) -> Option<(usize, Trap)> {
    let mut slot = wire.trap.lock().unwrap();
    let Some(trap) = slot.as_ref().filter(|trap| trap.way == way) else {
        before.clear();
        return None;
    };
    let gone = before.len();
    before.extend_from_slice(chunk);
    let length = trap.pattern.len();
    if let Some(at) = before.windows(length).position(|bytes| bytes == trap.pattern) {
        let passes = (at + trap.pass.min(length)).saturating_sub(gone);
        return slot.take().map(|trap| (passes, trap));
    }
    before.drain(..before.len().saturating_sub(length - 1));
    None
}

/// A connection through `proxy`.
async fn through(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

#[tokio::test]
async fn bytes_are_held_spoilt_and_cut_as_a_test_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.into_split();
                tokio::io::copy(&mut from, &mut to).await?;
                to.write_all(b"end").await
            });
        }
    });
    // The first server of the list is away.
    let proxy = Proxy::among(vec!["127.0.0.1:1".to_owned(), server.clone()]).await;
    let mut bytes = [0; 4];

    let mut client = through(&proxy).await;
    proxy.spoil(Way::ToServer, Fault::Corrupt);
    proxy.spoil(Way::ToClient, Fault::Delay(Duration::from_millis(1)));
    client.write_all(b"\0abc").await.unwrap();
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"\xffabc");

    proxy.spoil(Way::ToServer, Fault::None);
    proxy.spoil(Way::ToClient, Fault::Hold);
    client.write_all(b"held").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), client.read(&mut bytes)).await;
    assert!(early.is_err(), "nothing passes while it is held");
    proxy.spoil(Way::ToClient, Fault::None);
    client.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"held");

    proxy.spoil(Way::ToServer, Fault::Close);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"end", "the other way goes on");
    proxy.spoil(Way::ToServer, Fault::None);

    let mut client = through(&proxy).await;
    let cut = proxy.cut_at(Way::ToServer, b"commit", 3);
    client.write_all(b"first, comm").await.unwrap();
    client.read_exact(&mut [0; 11]).await.unwrap();
    client.write_all(b"it").await.unwrap();
    cut.await.unwrap();
    assert_eq!(client.read(&mut bytes).await.unwrap_or(0), 0, "it is cut");

    let mut client = through(&proxy).await;
    let cut = proxy.cut_at(Way::ToClient, b"commit", 3);
    client.write_all(b"first, commit").await.unwrap();
    cut.await.unwrap();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"endfirst, com");

    let mut client = through(&proxy).await;
    client.write_all(b"once").await.unwrap();
    client.read_exact(&mut bytes).await.unwrap();
    proxy.cut_once();
    assert_eq!(client.read(&mut bytes).await.unwrap_or(0), 0, "it is cut");
    proxy.lead_to(vec![]);
    assert_eq!(through(&proxy).await.read(&mut bytes).await.unwrap_or(0), 0, "there is no server");
    proxy.lead_to(vec![server]);
    let mut client = through(&proxy).await;
    client.write_all(b"more").await.unwrap();
    client.read_exact(&mut bytes).await.unwrap();
}
