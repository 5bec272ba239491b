//! The service that has the sessions: processes behind HTTP, and their bytes behind a second port.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, serve};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, broadcast};

use crate::Outcome;

/// Pieces of output that wait for one viewer.
const WAITING: usize = 256;

/// The sessions. Clones share them.
#[derive(Clone, Default)]
pub struct Service(Arc<Mutex<BTreeMap<String, Session>>>);

struct Session {
    // Killed when it is dropped.
    _process: Child,
    input: Arc<Mutex<ChildStdin>>,
    output: broadcast::Sender<Vec<u8>>,
}

impl Service {
    /// Starts a session: a program without a terminal, whose input and output are the session's.
    ///
    /// # Errors
    /// If the program does not start.
    pub async fn create(&self, id: &str, program: &str) -> Outcome<()> {
        let mut process =
            Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = Arc::new(Mutex::new(process.stdin.take().ok_or("no input")?));
        let mut printed = process.stdout.take().ok_or("no output")?;
        let (output, _) = broadcast::channel(WAITING);
        let viewers = output.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; 4096];
            while let Ok(length @ 1..) = printed.read(&mut bytes).await {
                let _ = viewers.send(bytes.get(..length).unwrap_or_default().to_vec());
            }
        });
        self.0.lock().await.insert(id.to_owned(), Session { _process: process, input, output });
        Ok(())
    }

    /// Answers HTTP on one listener, and carries the bytes of sessions on the other.
    pub async fn run(self, http: TcpListener, bytes: TcpListener) {
        let routes = Router::new()
            .route("/api/sessions", get(list))
            .route("/api/sessions/{id}", delete(close))
            .with_state(self.clone());
        tokio::spawn(async move { serve(http, routes).await });
        while let Ok((stream, _)) = bytes.accept().await {
            let service = self.clone();
            tokio::spawn(async move { drop(service.attach(stream).await) });
        }
    }

    /// A viewer sends the id in a line, and gets and sends the session's bytes from then on.
    async fn attach(self, stream: TcpStream) -> Outcome<()> {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut id = String::new();
        reader.read_line(&mut id).await?;
        let (input, mut output) = {
            let sessions = self.0.lock().await;
            let session = sessions.get(id.trim_end()).ok_or("no such session")?;
            (Arc::clone(&session.input), session.output.subscribe())
        };
        writer.write_all(b"ok\n").await?;
        let mut bytes = vec![0; 4096];
        loop {
            tokio::select! {
                printed = output.recv() => writer.write_all(&printed?).await?,
                read = reader.read(&mut bytes) => match read? {
                    0 => return Ok(()),
                    length => input.lock().await.write_all(bytes.get(..length).unwrap_or_default()).await?,
                },
            }
        }
    }
}

async fn list(State(service): State<Service>) -> Json<Vec<String>> {
    Json(service.0.lock().await.keys().cloned().collect())
}

async fn close(State(service): State<Service>, Path(id): Path<String>) -> StatusCode {
    match service.0.lock().await.remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}
