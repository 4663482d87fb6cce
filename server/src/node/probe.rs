//! Tells load balancers whether this node takes clients: over HTTP (`listen.health`), or in the words of HAProxy's agent check (`listen.health_agent`).
//!
//! | state | HTTP | agent | when |
//! | --- | --- | --- | --- |
//! | up | 200 `up` | `ready up` | |
//! | draining | 503 `draining` | `drain` | `berth drain`; connections that come all the same are relayed |
//! | leaving | 503 `leaving` | `down #leaving` | it is stopping |
//! | suspended | 503 `suspended` | `down #suspended` | no contact with the shared directory, or fenced |
//! | trouble | 200 `trouble` | `ready up` | `berth nodes` says what the trouble is; the node takes clients and sends them on to nodes that are well |
//!
//! A trouble leaves a node in the balancer: what keeps it from serving mail does not keep it from relaying, and a file server that is full is every
//! node's trouble at once (`a_trouble_leaves_a_node_in_the_balancer`).
//!
//! At `listen.acme` it answers what an authority asks for (`acme::answers`), within the same bounds.
//!
//! Anybody who reaches the address may ask, so the answer says no more than that, and what askers can take is bounded.

use std::{convert::Infallible, sync::Arc, time::Duration};

use affinity::NodeState;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::Node;

/// Askers at once: some balancers with several checks each. More wait in the backlog.
const ASKERS_MAX: usize = 64;
/// How long one may take, from its connection to its answer.
const ASKER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest request: hyper takes no smaller limit.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// What an address answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.
    Http,
    /// One line of HAProxy's agent check, whatever is sent.
    Agent,
    /// HTTP/1, for an authority that asks for proof (ACME).
    Acme,
}

/// How a node is, as far as a load balancer has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Send clients.
    Up,
    /// An operator takes it out of service.
    Draining,
    /// It is stopping.
    Leaving,
    /// It has lost the shared directory, or its place in the cluster.
    Suspended,
    /// It can't serve users as it should, and sends them on.
    Trouble,
}

impl Condition {
    fn of(node: &Node) -> Condition {
        if node.stop_listening.is_cancelled() {
            Condition::Leaving
        } else if node.keeper.state() != NodeState::Up {
            Condition::Suspended
        } else if node.accounts.placing.is_draining() {
            Condition::Draining
        } else if !super::health::trouble(node).is_empty() {
            Condition::Trouble
        } else {
            Condition::Up
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Condition::Up | Condition::Trouble => StatusCode::OK,
            Condition::Draining | Condition::Leaving | Condition::Suspended => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Condition::Up => "up\n",
            Condition::Draining => "draining\n",
            Condition::Leaving => "leaving\n",
            Condition::Suspended => "suspended\n",
            Condition::Trouble => "trouble\n",
        }
    }

    /// HAProxy, "agent-check": administrative state, then operational state. `ready up` also ends an earlier `drain`.
    fn agent(self) -> &'static str {
        match self {
            Condition::Up | Condition::Trouble => "ready up\n",
            Condition::Draining => "drain\n",
            Condition::Leaving => "down #leaving\n",
            Condition::Suspended => "down #suspended\n",
        }
    }
}

/// Answers until the node has said goodbye to its sessions.
pub async fn run(node: Arc<Node>, listener: TcpListener, speaks: Speaks) {
    let askers = Arc::new(Semaphore::new(ASKERS_MAX));
    let accept = async {
        loop {
            let Ok(asker) = askers.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((tcp, _)) => {
                    let node = node.clone();
                    tokio::spawn(async move {
                        // Whoever asks too slowly gets no answer, which is one.
                        drop(timeout(ASKER_TIMEOUT, answer(&node, tcp, speaks)).await);
                        drop(asker);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a health check");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = node.stop_sessions.cancelled() => {}
    }
}

async fn answer(node: &Arc<Node>, mut tcp: TcpStream, speaks: Speaks) {
    let result = match speaks {
        Speaks::Agent => {
            let said = tcp.write_all(Condition::of(node).agent().as_bytes()).await;
            match said {
                Ok(()) => tcp.shutdown().await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        }
        Speaks::Http | Speaks::Acme => http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ASKER_TIMEOUT)
            .keep_alive(false)
            .max_buf_size(REQUEST_BYTES_MAX)
            .serve_connection(
                TokioIo::new(tcp),
                service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, Infallible>(match speaks {
                        Speaks::Acme => {
                            let (status, text) = node.renewal.answers.respond(request.method(), request.uri().path()).await;
                            said(status, text.into(), HeaderValue::from_static("application/octet-stream"))
                        }
                        Speaks::Http | Speaks::Agent => respond(&request, Condition::of(node)),
                    })
                }),
            )
            .await
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = result {
        tracing::debug!(error, "a health check ended early");
    }
}

/// `/` too: HAProxy asks for that unless it is told otherwise.
fn respond(request: &Request<Incoming>, condition: Condition) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD | &Method::OPTIONS, "/" | "/health") => (condition.status(), condition.word()),
        (_, "/" | "/health") => (StatusCode::METHOD_NOT_ALLOWED, "ask with GET, HEAD or OPTIONS\n"),
        _ => (StatusCode::NOT_FOUND, "there is only /health\n"),
    };
    said(status, Bytes::from_static(text.as_bytes()), HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn said(status: StatusCode, text: Bytes, kind: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_leaves_a_node_in_the_balancer() {
        for (condition, status, agent) in [
            (Condition::Up, 200, "ready up\n"),
            (Condition::Trouble, 200, "ready up\n"),
            (Condition::Draining, 503, "drain\n"),
            (Condition::Leaving, 503, "down #leaving\n"),
            (Condition::Suspended, 503, "down #suspended\n"),
        ] {
            assert_eq!((condition.status().as_u16(), condition.agent()), (status, agent), "{condition:?}");
        }
    }
}
