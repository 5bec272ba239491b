//! What may stand between a client and its agent, and what it may do.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::world::{World, new_directory, within};

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Forwards.
    Forwards,
    /// Keeps every connection, and forwards nothing.
    Frozen,
    /// Ends every connection, and answers a new one with an error page, as before an agent that is starting.
    BadGateway,
    /// Ends every connection, and a new one at once, as a forwarder without an agent behind it does.
    Closes,
    /// Answers a WebSocket's upgrade, and closes it as the agent closes for a stranger.
    Stranger,
}

#[derive(Clone)]
pub struct Proxy {
    pub url: String,
    target: Arc<Mutex<String>>,
    mood: watch::Sender<Mood>,
    cut: watch::Sender<()>,
    /// Connections that it was asked for.
    pub asked: watch::Sender<usize>,
}

impl Proxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (mood, cut, asked) =
            (watch::channel(Mood::Forwards).0, watch::channel(()).0, watch::channel(0).0);
        let proxy = Self { url, target: Arc::default(), mood, cut, asked };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                serving.asked.send_modify(|asked| *asked += 1);
                tokio::spawn(serving.clone().serve(near));
            }
        });
        proxy
    }

    /// An agent that is reached through it, and whose desktop uses it.
    pub async fn before_an_agent() -> (Self, World) {
        let proxy = Self::start().await;
        // Phones reach the agent under the proxy's address only if it is one of the agent's own.
        let world = World::start_with(new_directory(), &["--url", &proxy.url]).await;
        *proxy.target.lock().unwrap() = format!("{}:{}", world.url.host(), world.url.port());
        world.point_desktop_at(&proxy.url).await;
        (proxy, world)
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Ends every connection. New ones are treated as before.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Waits until somebody has tried so often more.
    pub async fn asked_again(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let before = *asked.borrow();
        within("more tries", asked.wait_for(|asked| *asked >= before + times)).await.unwrap();
    }

    async fn serve(self, mut near: TcpStream) {
        let mut cut = self.cut.subscribe();
        let mut mood = self.mood.subscribe();
        let now = *mood.borrow_and_update();
        match now {
            Mood::Closes => {}
            Mood::BadGateway => {
                let _ = near.read(&mut [0; 4096]).await;
                let _ = near.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\nsoon").await;
            }
            Mood::Stranger => {
                let mut socket = tokio_tungstenite::accept_async(near).await.unwrap();
                let code = tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode::Policy;
                let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code, reason: "".into() };
                let _ = socket.close(Some(frame)).await;
            }
            Mood::Forwards | Mood::Frozen => {
                let target = self.target.lock().unwrap().clone();
                let Ok(far) = TcpStream::connect(target).await else { return };
                let ((near_reads, near_writes), (far_reads, far_writes)) =
                    (near.into_split(), far.into_split());
                tokio::select! {
                    () = carry(near_reads, far_writes, mood.clone()) => {}
                    () = carry(far_reads, near_writes, mood.clone()) => {}
                    _ = cut.changed() => {}
                    _ = mood.wait_for(|mood| !matches!(mood, Mood::Forwards | Mood::Frozen)) => {}
                }
            }
        }
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mood: watch::Receiver<Mood>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if mood.wait_for(|mood| *mood != Mood::Frozen).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
