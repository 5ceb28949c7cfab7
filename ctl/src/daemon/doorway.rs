//! `wires.sock`: where a namespace is handed in and a node comes out.
//!
//! One connection is one message, a [`NodeCreate`] with one descriptor, and one answer. Making the node is one step for the
//! client: when the answer does not reach it, the node is taken down again, so that nothing half-made is left.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{SockFlag, accept4};
use tokio::sync::Semaphore;

use super::Daemon;
use super::readiness::{not_accepted, readable};
use crate::api::types::{ErrorBody, NodeCreate, NodeCreated};
use crate::namespace::{channel, user};

/// Clients served at a time; more wait to be accepted.
const CLIENTS_MAX: usize = 64;

/// A client has this long to send its message.
const MESSAGE_WAIT: Duration = Duration::from_secs(10);

/// Serves the socket until the process ends.
pub(super) async fn serve(listener: OwnedFd, daemon: Arc<Daemon>) -> io::Result<()> {
    let listener = readable(listener)?;
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|fd| Ok(accept4(fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?));
        let client = match accepted {
            // SAFETY: the kernel has just made this descriptor for this process, and nobody else knows it.
            Ok(Ok(raw)) => unsafe { OwnedFd::from_raw_fd(raw) },
            Ok(Err(error)) => {
                not_accepted("a client", &error).await;
                continue;
            }
            Err(_) => continue,
        };
        // Whoever is not let in has heard why at the API's socket, which clients ask first.
        if user::admit(&client).is_err() {
            continue;
        }
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move {
            attend(&daemon, client).await;
            drop(place);
        });
    }
    Ok(())
}

async fn attend(daemon: &Arc<Daemon>, client: OwnedFd) {
    let Ok((client, message)) = hear(client).await else { return };
    let answer = match message {
        Ok((spec, descriptors)) => match <[OwnedFd; 1]>::try_from(descriptors) {
            Ok([inside]) => daemon.create_node(&spec, inside).await,
            Err(_) => {
                refused("one descriptor must come with the message: a pidfd or a network namespace")
            }
        },
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return,
        Err(error) => refused(&format!("not a message of this protocol: {error}")),
    };
    let sent = channel::send(client.as_fd(), &answer, &[]);
    if let (Err(_), NodeCreated::Ready { node, .. }) = (sent, &answer) {
        let _ = daemon.remove_node(&node.id, true).await;
    }
}

/// The client's message. Who is silent is waited for without a thread: those are few, and others' wires are made on them.
async fn hear(client: OwnedFd) -> io::Result<(OwnedFd, io::Result<(NodeCreate, Vec<OwnedFd>)>)> {
    let client = readable(client)?;
    let has_come = tokio::time::timeout(MESSAGE_WAIT, client.readable()).await.is_ok();
    let client = client.into_inner();
    if !has_come {
        return Ok((client, Err(io::ErrorKind::TimedOut.into())));
    }
    let message = channel::receive(client.as_fd(), Some(Duration::ZERO));
    Ok((client, message))
}

fn refused(message: &str) -> NodeCreated {
    NodeCreated::Refused(ErrorBody { message: message.into() })
}
