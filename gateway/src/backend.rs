//! The gateway's client of the service that has the sessions.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::Outcome;

/// How long the service may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the service is.
#[derive(Clone, Copy)]
pub struct Backend {
    /// Its HTTP.
    pub http: SocketAddr,
    /// The bytes of its sessions.
    pub bytes: SocketAddr,
}

impl Backend {
    /// Asks which sessions run.
    ///
    /// # Errors
    /// If the service does not answer in time.
    pub async fn list(&self) -> Outcome<Vec<String>> {
        Ok(serde_json::from_str(&self.request("GET", "/api/sessions").await?)?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// If there is none of this id, or the service does not answer in time.
    pub async fn close(&self, id: &str) -> Outcome<()> {
        if !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err("not the id of a session".into());
        }
        self.request("DELETE", &format!("/api/sessions/{id}")).await.map(drop)
    }

    /// Connects to a session's bytes.
    ///
    /// # Errors
    /// If there is no such session.
    pub async fn attach(&self, id: &str) -> Outcome<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
        let (reader, mut writer) = TcpStream::connect(self.bytes).await?.into_split();
        writer.write_all(format!("{id}\n").as_bytes()).await?;
        let (mut reader, mut greeting) = (BufReader::new(reader), String::new());
        timeout(PATIENCE, reader.read_line(&mut greeting)).await??;
        if greeting == "ok\n" { Ok((reader, writer)) } else { Err("there is no such session".into()) }
    }

    async fn request(&self, method: &str, path: &str) -> Outcome<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.http).await?;
            let request = format!("{method} {path} HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        let answer = timeout(PATIENCE, exchange).await??;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 2") => Ok(body.to_owned()),
            _ => Err("the service refused".into()),
        }
    }
}
