//! BINARYMIME (RFC 3030): what came with BODY=BINARYMIME becomes lines before it is stored.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

use tokio::sync::Semaphore;

use super::message::{Message, Spool};

/// Such a message is in memory whole while it is encoded, so few at a time: two of the largest default size take 250 MiB with their encodings.
static IN_MEMORY: Semaphore = Semaphore::const_new(2);

/// The message with its binary parts in base64.
pub async fn to_text(message: Message, spool_dir: PathBuf) -> io::Result<Message> {
    let _permit = IN_MEMORY.acquire().await.map_err(io::Error::other)?;
    tokio::task::spawn_blocking(move || encode(message, &spool_dir)).await.map_err(io::Error::other)?
}

fn encode(message: Message, spool_dir: &Path) -> io::Result<Message> {
    let length = usize::try_from(message.len()).map_err(io::Error::other)?;
    let mut raw = vec![0; length];
    if message.read_at(0, &mut raw)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match storage::mime::encode_binary(&raw) {
        Cow::Borrowed(_) => Ok(message),
        Cow::Owned(text) => {
            let mut spool = Spool::new(spool_dir);
            spool.write(&text)?;
            Ok(spool.finish())
        }
    }
}
