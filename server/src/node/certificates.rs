//! Warns of certificates that end soon: at the start, at each reload, and once a day.

use std::{sync::Arc, time::Duration};

use super::Node;
use crate::{config::TlsSection, tls::Tls};

/// How often a warning is said again.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Until the node stops.
pub async fn follow(node: Arc<Node>) {
    let Some(tls) = node.tls.clone() else { return };
    let mut daily = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = daily.tick() => warn(&tls, &node.config().tls),
            () = node.stop_listening.cancelled() => return,
        }
    }
}

/// One line for each certificate that there is something to say about.
pub fn warn(tls: &Tls, section: &TlsSection) {
    for certificate in tls.certificates() {
        if let Some(warning) = certificate.warning(affinity::clock::wall_clock(), section.warn_before) {
            let (file, names) = (certificate.files.certificate.display(), certificate.facts.names.join(" "));
            tracing::warn!(%file, names, "a certificate {warning}");
        }
    }
}
