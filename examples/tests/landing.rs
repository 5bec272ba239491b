//! The page behind a link in a real browser: what it shows, and that nothing of the link leaves it. Needs Chromium
//! (Debian's package `chromium`); without it the test says so and does nothing.
//!
//! To take the pictures of `docs/pictures` again:
//!
//! ```text
//! SESSIONCAP_PICTURES=write cargo test -p sessioncap-programs-tests --test landing
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sessioncap::{AgentSecretKey, AgentUrl, Link, LinkHost, TicketSecret};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_secs(120);
const SCHEME: &str = "example-app";

async fn within<T>(doing: impl Future<Output = T>) -> T {
    timeout(PATIENCE, doing).await.unwrap()
}

fn browser() -> Option<PathBuf> {
    let places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    places.iter().map(PathBuf::from).find(|path| path.exists())
}

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("landing-{}", uuid::Uuid::new_v4().simple());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the example agent, and returns its process and port.
async fn agent(directory: &Path) -> (Child, u16) {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("examples/agent");
    assert!(program.exists(), "the agent is missing; run `cargo build --examples` first");
    let mut agent = Command::new(program)
        .arg("--state")
        .arg(directory.join("agent"))
        .args(["--listen", "127.0.0.1:0", "--in-memory", "--app-scheme", SCHEME])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap().unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    (agent, AgentUrl::parse(line["url"].as_str().unwrap()).unwrap().port())
}

/// Stands before the agent, and keeps every byte that the browser sends.
async fn front(agent: u16) -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((mut browser, _)) = listener.accept().await {
            let keeps = Arc::clone(&keeps);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if browser.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                if request.is_empty() {
                    // Browsers open connections in advance.
                    return;
                }
                keeps.lock().unwrap().push(request.clone());
                let mut agent = TcpStream::connect(("127.0.0.1", agent)).await.unwrap();
                agent.write_all(&request).await.unwrap();
                let _ = tokio::io::copy(&mut agent, &mut browser).await;
            });
        }
    });
    (port, sent)
}

/// A page of the browser, driven by its debugging protocol.
struct Page {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    number: u64,
    _browser: Child,
}

impl Page {
    async fn open(program: &Path, directory: &Path) -> Self {
        let mut browser = Command::new(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", directory.join("browser").display()))
            .arg("about:blank")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(browser.stderr.take().unwrap()).lines();
        let address = loop {
            let line = within(lines.next_line()).await.unwrap().expect("the browser listens");
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                break address.to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = within(connect_async(address)).await.unwrap();
        let mut page = Self { socket, session: None, number: 0, _browser: browser };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", attach).await;
        let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        page.call("Browser.grantPermissions", permissions).await;
        page.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Runtime.enable"] {
            page.call(domain, json!({})).await;
        }
        page.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true })).await;
        page
    }

    async fn message(&mut self) -> Value {
        loop {
            if let Message::Text(text) = within(self.socket.next()).await.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut request = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(request.to_string())).await.unwrap();
        loop {
            let message = self.message().await;
            if message["id"] == self.number {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// Opens an address, anew.
    async fn visit(&mut self, address: &str) {
        self.call("Page.navigate", json!({ "url": "about:blank" })).await;
        self.call("Page.navigate", json!({ "url": address })).await;
        self.until("document.readyState === 'complete' && location.pathname === '/P'").await;
    }

    async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "userGesture": true, "returnByValue": true });
        let outcome = self.call("Runtime.evaluate", params).await;
        assert!(outcome.get("exceptionDetails").is_none(), "{expression}: {outcome}");
        outcome["result"]["value"].clone()
    }

    async fn until(&mut self, expression: &str) {
        within(async {
            while self.value(expression).await != json!(true) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn picture(&mut self, name: &str, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
        assert_eq!(
            self.value("document.documentElement.scrollWidth <= innerWidth").await,
            true,
            "{name}: too wide"
        );
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        assert!(picture.starts_with(b"\x89PNG"));
        if std::env::var_os("SESSIONCAP_PICTURES").is_some() {
            let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures");
            std::fs::write(pictures.join(name), picture).unwrap();
        }
    }
}

fn shown(id: &str) -> String {
    format!("!document.getElementById('{id}').hidden")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_link_shows_it_and_sends_nothing_of_it_anywhere() {
    let Some(program) = browser() else {
        println!("skipped: there is no Chromium here");
        return;
    };
    let directory = Directory::new();
    let (_agent, port) = agent(&directory.0).await;
    let (port, sent) = front(port).await;
    let origin = format!("http://127.0.0.1:{port}");
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let link = |url: &str| Link::new(AgentUrl::parse(url).unwrap(), agent, TicketSecret::from_bytes([9; 16]));
    let after_host = |text: &str| text.split_once("/P#").unwrap().1.to_owned();
    let mut page = Page::open(&program, &directory.0).await;

    // The agent's own origin; a link host; an agent with an IPv6 address behind a link host.
    let fixed = LinkHost::Fixed("link.example".to_owned());
    let own = link(&format!("wss://127.0.0.1:{port}"));
    let cases = [
        (own.clone(), LinkHost::Agent),
        (link("wss://agent.example"), fixed.clone()),
        (link("ws://[2001:db8::1]:9480"), fixed),
    ];
    for (link, host) in &cases {
        let fragment = after_host(&link.to_https(host).unwrap());
        let address = format!("{origin}/P#{fragment}");
        page.visit(&address).await;
        page.until(&shown("here")).await;
        assert_eq!(page.value("location.href").await, json!(format!("{origin}/P")), "the address bar");
        assert_eq!(page.value("document.getElementById('link').value").await, json!(address));
        let opens = page.value("document.getElementById('open').getAttribute('href')").await;
        assert_eq!(opens, json!(link.to_custom_scheme(SCHEME).unwrap()));
        assert_eq!(Link::parse_custom_scheme(opens.as_str().unwrap(), SCHEME).as_ref(), Ok(link));
        assert_eq!(page.value(&format!("{} || {}", shown("none"), shown("damaged"))).await, false);
    }

    let address = format!("{origin}/P#{}", after_host(&own.to_https(&LinkHost::Agent).unwrap()));
    page.visit(&address).await;
    page.value("document.getElementById('copy').click()").await;
    page.until("document.getElementById('said').textContent.startsWith('Copied')").await;
    assert_eq!(page.value("navigator.clipboard.readText()").await, json!(address));
    // Opened again in the same place, it is read again.
    page.value(&format!("location.href = '{address}0'")).await;
    page.until("document.getElementById('link').value.endsWith('0')").await;
    assert_eq!(page.value("location.href").await, json!(format!("{origin}/P")));
    page.value("document.activeElement.blur()").await;
    page.picture("landing-light.png", 720, 900, "light").await;
    page.picture("landing-dark.png", 720, 900, "dark").await;
    page.picture("landing-narrow.png", 320, 900, "light").await;

    // The policy holds even for a script that runs in the page.
    let tries = "(async () => {
        const tried = [];
        await fetch('/fetched?' + document.getElementById('link').value).catch(() => tried.push('fetch'));
        navigator.sendBeacon('/beacon', 'x');
        const image = new Image();
        image.src = '/image';
        await new Promise((done) => { image.onerror = done; });
        const form = document.createElement('form');
        form.action = '/form';
        document.body.append(form);
        form.submit();
        const frame = document.createElement('iframe');
        frame.src = '/frame';
        document.body.append(frame);
        return tried.join();
    })()";
    assert_eq!(page.value(tries).await, json!("fetch"));
    // An app that is not installed: the tap leads nowhere, and asks no server.
    page.value("document.getElementById('open').click()").await;

    for (fragment, id) in
        [("", "none"), ("#123", "damaged"), ("#12345678901234567x", "damaged"), ("#%3Cimg%3E", "damaged")]
    {
        page.visit(&format!("{origin}/P{fragment}")).await;
        page.until(&shown(id)).await;
        assert_eq!(page.value(&shown("here")).await, false, "{fragment}");
        assert_eq!(page.value("location.href").await, json!(format!("{origin}/P")), "{fragment}");
    }

    let sent = sent.lock().unwrap().clone();
    assert!(sent.len() >= 8, "{}", sent.len());
    for request in sent {
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /P HTTP/1.1\r\n"), "{request}");
        assert!(
            !request.contains('#') && !request.to_ascii_lowercase().contains("\r\nreferer:"),
            "{request}"
        );
        let longest = request.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
        assert!(longest < Some(17), "no digits of a link: {request}");
    }
}
