//! The server side of the API: HTTP/1.1 with JSON over a Unix socket, each route one call of the daemon.
//!
//! Whoever connects is checked before a byte is read: a guest's processes run under the user's uid on the same files, so only
//! a peer of the daemon's own user namespace is served. Any other is told why in an answer that is the same whatever it asks:
//! nothing that it sends is looked at. Requests, headers and connections are bounded in size, number and time. The routes themselves are in [`super::routes`], and what they have in common in `answers`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::answers::refusal;
use super::routes;
use super::types::ErrorBody;
use crate::daemon::Daemon;
use crate::daemon::readiness::not_accepted;
use crate::namespace::user;
use crate::topology::RefusalKind;

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// A client has this long to send its headers.
const HEADERS_MAX: Duration = Duration::from_secs(10);

/// Peers that are being told why they are not served; more are cut off without a word.
const STRANGERS_MAX: usize = 8;

/// Such a peer has this long to ask.
const STRANGER_WAIT: Duration = Duration::from_secs(1);

/// What is taken of the question of such a peer, unread, so that closing does not take the answer back; bytes.
const STRANGER_BYTES: usize = 16 * 1024;

/// Largest body of a request, bytes.
const BODY_MAX: usize = 1 << 20;

/// All routes, within their limits.
pub fn router(daemon: Arc<Daemon>) -> Router {
    routes::all(daemon)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(to_its_end))
}

/// Answers on a task of its own: a client that hangs up must not stop a change half-way.
async fn to_its_end(request: Request, next: Next) -> Response {
    let answered = tokio::spawn(next.run(request)).await;
    answered.unwrap_or_else(|_| {
        refusal(RefusalKind::Internal, "the daemon has failed; look at daemon.log").into_response()
    })
}

/// Serves the API until the process ends.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let service = TowerToHyperService::new(router(daemon));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                not_accepted("a connection", &error).await;
                continue;
            }
        };
        if let Err(why) = user::admit(&stream) {
            if let Ok(place) = Arc::clone(&strangers).try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(STRANGER_WAIT, turn_away(stream, why)).await;
                    drop(place);
                });
            }
            continue;
        }
        let service = service.clone();
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX).max_buf_size(64 * 1024);
            // A connection that ends badly is the client's affair.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

/// Tells a peer why it is not served, once it has begun to ask: a client takes no answer before.
async fn turn_away(mut stream: UnixStream, why: &str) -> io::Result<()> {
    let body = serde_json::to_vec(&ErrorBody { message: why.into() })?;
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    if stream.read(&mut vec![0; STRANGER_BYTES]).await? == 0 {
        return Ok(());
    }
    stream.write_all(&[head.into_bytes(), body].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_not_served_hears_why_whatever_he_asks() {
        for asked in ["GET /v1/nodes HTTP/1.1\r\n\r\n", "\0", "}{"] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(asked.as_bytes()).await.unwrap();
            turn_away(ours, "not you").await.unwrap();
            let mut heard = String::new();
            theirs.read_to_string(&mut heard).await.unwrap();
            let (head, body) = heard.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
            assert_eq!(body, r#"{"message":"not you"}"#);
        }
    }
}
