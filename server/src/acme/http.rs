//! Requests to an authority: over HTTPS as to every other server that we ask, each with a time limit and a longest answer.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::http;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::auth::source::tls;

/// How long one answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer: a chain of certificates has some KiB.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Asks by reqwest.
pub struct Requests(reqwest::Client);

impl Requests {
    /// Trusts the authorities in `ca_file`, or those of this host.
    pub fn new(ca_file: Option<&Path>) -> anyhow::Result<Requests> {
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(Arc::unwrap_or_clone(tls::client(ca_file)?))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .context("tls.acme: no HTTP client")?;
        Ok(Requests(client))
    }
}

impl HttpClient for Requests {
    fn request(&self, request: http::Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move { ask(client, request).await.map_err(|error| Error::Other(error.into())) })
    }
}

async fn ask(client: reqwest::Client, request: http::Request<BodyWrapper<Bytes>>) -> anyhow::Result<BytesResponse> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let request = reqwest::Request::try_from(http::Request::from_parts(parts, body))?;
    let mut response = client.execute(request).await?;
    let mut answer = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        anyhow::ensure!(answer.len() + chunk.len() <= ANSWER_BYTES_MAX, "an answer of more than {ANSWER_BYTES_MAX} bytes");
        answer.extend_from_slice(&chunk);
    }
    let (parts, _) = http::Response::<reqwest::Body>::from(response).into_parts();
    Ok(BytesResponse { parts, body: Box::new(answer.freeze()) })
}
