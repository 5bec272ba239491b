//! From a TCP connection to a WebSocket: what is asked for, and the answers to everything else.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::site::{Content, Site};
use crate::transport::{self, Socket, Stream};

/// Bytes of a request, its headers included.
pub(super) const LONGEST_REQUEST: usize = 8 * 1024;
/// The one subprotocol, which a peer may ask for.
const SUBPROTOCOL: &str = "sessioncap.1";

const PAGE: &str = "This is an agent of sessioncap: it lets a phone into a terminal session.\n\
    There is nothing to see for a browser. Open the link, or scan its code, in the app on the phone;\n\
    the part after # is a secret, and stays on the phone.\n";

/// Why a request got an answer and no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoUpgrade {
    /// It is no WebSocket request for the agent's path.
    NotAsked,
    /// It comes from a web page that is not on the list.
    Origin,
    /// The connection broke.
    Gone,
}

/// The answer to a request: its status line, its text and its further headers.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: &'static str,
    content: Content,
    why: NoUpgrade,
}

fn answer(status: &'static str, headers: &str, text: &str) -> Answer {
    let content = Content { headers: format!("{PLAIN}{headers}"), text: text.to_owned() };
    Answer { status, content, why: NoUpgrade::NotAsked }
}

/// Answers an upgrade to WebSocket on one of the paths, without an `Origin` or with a listed one.
pub(super) async fn accept(
    mut stream: Stream,
    paths: &[&str],
    origins: &[String],
    site: &Site,
) -> Result<Socket, NoUpgrade> {
    // Keystrokes must not wait for each other. Failing costs only that.
    let _ = stream.tcp().set_nodelay(true);
    let (head, rest) = match read_head(&mut stream).await.ok_or(NoUpgrade::Gone)? {
        Ok(read) => read,
        Err(error) => return refuse(stream, malformed(&error)).await,
    };
    match judge(&head, paths, origins, site) {
        Ok(response) => {
            stream.write_all(&response).await.map_err(|_| NoUpgrade::Gone)?;
            Ok(WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(transport::config()))
                .await)
        }
        Err(answer) => refuse(stream, answer).await,
    }
}

async fn refuse(mut stream: Stream, answer: Answer) -> Result<Socket, NoUpgrade> {
    let text = respond(answer.status, &answer.content.headers, &answer.content.text);
    // Whoever does not take it loses it.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
    transport::drain(&mut stream).await;
    Err(answer.why)
}

/// The headers of a line of text.
const PLAIN: &str = "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n";

/// An answer in plain text, after which the connection ends.
pub(super) fn http(status: &str, headers: &str, text: &str) -> String {
    respond(status, &format!("{PLAIN}{headers}"), text)
}

fn respond(status: &str, headers: &str, text: &str) -> String {
    let length = text.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n{text}")
}

/// Reads a request up to the end of its headers, and what came with it. `None` if there is none.
pub(super) async fn read_head(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Option<Result<(Request, Vec<u8>), Error>> {
    let mut read = Vec::with_capacity(1024);
    loop {
        match Request::try_parse(&read) {
            Ok(Some((length, request))) => {
                return Some(Ok((request, read.split_off(length.min(read.len())))));
            }
            Ok(None) if read.len() < LONGEST_REQUEST => {}
            Ok(None) => return Some(Err(Error::AttackAttempt)),
            Err(error) => return Some(Err(error)),
        }
        let room = LONGEST_REQUEST.saturating_sub(read.len());
        let room = u64::try_from(room).unwrap_or(0);
        if stream.take(room).read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

fn malformed(error: &Error) -> Answer {
    match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => {
            answer("405 Method Not Allowed", "Allow: GET\r\n", "Only GET is answered here.\n")
        }
        Error::AttackAttempt => {
            answer("431 Request Header Fields Too Large", "", "The request is too long.\n")
        }
        _ => answer("400 Bad Request", "", "This is no request of HTTP/1.1.\n"),
    }
}

/// The response to an upgrade, or the answer in its place.
fn judge(request: &Request, paths: &[&str], origins: &[String], site: &Site) -> Result<Vec<u8>, Answer> {
    let upgrades = request.headers().get("Upgrade").is_some();
    match request.uri().path() {
        asked if paths.contains(&asked) && (upgrades || asked != "/") => {}
        "/" if !upgrades => return Err(answer("200 OK", "", PAGE)),
        // The page of a pairing link, which previews of links and browsers ask for, and the files of an app's links.
        asked if !upgrades && site.has(asked) => {
            let mut hosts = request.headers().get_all(HOST).iter().filter_map(|host| host.to_str().ok());
            let content = match (hosts.next(), hosts.next()) {
                (Some(host), None) => site.content(asked, host),
                _ => None,
            };
            return Err(match content {
                Some(content) => Answer { status: "200 OK", content, why: NoUpgrade::NotAsked },
                None => answer("421 Misdirected Request", "", "This agent has another name.\n"),
            });
        }
        _ => return Err(answer("404 Not Found", "", "There is nothing here.\n")),
    }
    let mut response = create_response(request).map_err(|_| {
        answer(
            "426 Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "This address is for the WebSocket of a phone or a desktop.\n",
        )
    })?;
    let mut named = request.headers().get_all(ORIGIN).iter();
    if named.any(|named| !origins.iter().any(|listed| named == listed.as_str())) {
        let refusal = answer("403 Forbidden", "", "Web pages may not connect to this agent.\n");
        return Err(Answer { why: NoUpgrade::Origin, ..refusal });
    }
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if offered.any(|name| name.trim() == SUBPROTOCOL) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    let mut bytes = Vec::new();
    let written = write_response(&mut bytes, &response);
    written.map_err(|_| answer("400 Bad Request", "", "This is no request of HTTP/1.1.\n"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::site::SiteOptions;

    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn judged(path: &str, headers: &str) -> Result<String, Answer> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: agent\r\n{headers}\r\n");
        let (_, request) = Request::try_parse(text.as_bytes()).unwrap().unwrap();
        let listed = ["https://app.example".to_owned()];
        let urls = [sessioncap::AgentUrl::parse("wss://agent").unwrap()];
        let site = Site::new(&SiteOptions::default(), &urls).unwrap();
        judge(&request, &["/noise/ws"], &listed, &site).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn status(path: &str, headers: &str) -> &'static str {
        judged(path, headers).unwrap_err().status.split(' ').next().unwrap()
    }

    #[test]
    fn only_an_upgrade_on_the_agents_path_becomes_a_websocket() {
        let response = judged("/noise/ws", UPGRADE).unwrap();
        assert!(response.starts_with("HTTP/1.1 101"), "{response}");
        assert!(response.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="));
        assert_eq!(status("/other", UPGRADE), "404");
        assert_eq!(status("/P", UPGRADE), "404");
        assert_eq!(status("/noise/ws", ""), "426");
        assert_eq!(status("/noise/ws", "Upgrade: websocket\r\n"), "426");
        assert_eq!((status("/P", ""), status("/", ""), status("/p", "")), ("200", "200", "404"));
        assert_eq!(status("/P", "Host: agent\r\n"), "421", "two hosts");
    }

    #[test]
    fn the_page_of_a_link_has_every_header_that_keeps_it_from_sending_anything() {
        let page = judged("/P", "").unwrap_err();
        for (name, value) in sessioncap::web::LandingPage::HEADERS {
            assert_eq!(page.content.headers.matches(&format!("{name}: {value}\r\n")).count(), 1, "{name}");
        }
        assert_eq!(page.content.text, sessioncap::web::LandingPage::new().as_str());
    }

    #[test]
    fn a_web_page_is_refused_unless_it_is_listed() {
        let from = |origin: &str| judged("/noise/ws", &format!("{UPGRADE}Origin: {origin}\r\n"));
        for origin in ["https://evil.example", "null", "https://app.example.evil", "", "https://app.example/"]
        {
            let refused = from(origin).unwrap_err();
            assert_eq!((&refused.status[..3], refused.why), ("403", NoUpgrade::Origin), "{origin}");
        }
        assert!(from("https://app.example").is_ok());
        assert!(from("https://app.example\r\nOrigin: https://evil.example").is_err());
    }

    #[test]
    fn the_subprotocol_is_selected_where_it_is_offered_and_no_other_is() {
        let offer = |names: &str| {
            let response = judged("/noise/ws", &format!("{UPGRADE}Sec-WebSocket-Protocol: {names}\r\n"));
            response.unwrap().to_ascii_lowercase().contains("sec-websocket-protocol: sessioncap.1\r\n")
        };
        assert!(
            offer("sessioncap.1")
                && offer("chat, sessioncap.1")
                && offer("a\r\nSec-WebSocket-Protocol: sessioncap.1")
        );
        assert!(!offer("chat") && !offer("sessioncap.10"));
    }
}
