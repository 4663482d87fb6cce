//! COMPRESS=DEFLATE (RFC 4978), plain and inside of TLS, on the holder and relayed.

use tests::{
    Result,
    clients::imap::{Imap, Status},
    ensure, mail,
    site::Site,
};

use super::session;

#[test]
fn a_compressed_session_carries_everything_both_ways() -> Result<()> {
    let site = Site::shared()?;
    for node in &site.nodes {
        let mut imap = Imap::connect_tls(&node.imaps)?;
        imap.command(&format!("LOGIN {} \"{}\"", site.user.name, site.user.password))?.ok()?;
        imap.start_deflate()?;
        imap.command(&format!("CREATE {}", node.name))?.ok()?;
        let sent: Vec<Vec<u8>> = (0..20).map(|number| mail::message("compress", number)).collect();
        for message in &sent {
            imap.append(&node.name, "", message)?;
        }
        imap.select(&node.name)?;
        ensure!(imap.bodies()?.into_values().eq(sent));
        ensure!(imap.command("COMPRESS DEFLATE")?.text.code.as_deref() == Some("COMPRESSIONACTIVE"));
        imap.logout()?;
    }
    Ok(())
}

#[test]
fn an_algorithm_that_nobody_knows_is_refused() -> Result<()> {
    let (_site, mut imap) = session()?;
    ensure!(imap.command("COMPRESS LZW")?.status == Status::Bad);
    imap.start_deflate()?;
    imap.command("NOOP")?.ok()?;
    imap.logout()
}
