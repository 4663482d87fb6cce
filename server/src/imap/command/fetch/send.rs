//! Sending the bytes of sections that FETCH asked for.
//!
//! - As many bytes follow as were announced, or the connection ends (`cut_off`).
//! - No NUL is sent in a literal, which may not have one (`a_nul_never_reaches_a_client`).

use std::{borrow::Cow, ops::Range};

use super::body::{CHUNK_BYTES, Part, Prepared};
use crate::{
    connection::{Connection, ConnectionError},
    imap::{
        holding::Holding,
        reply::Stop,
        wire::{command::FetchItem, response::FetchWriter},
    },
};

/// What stands for a NUL, which RFC 3501 §4.3 forbids in literals: one byte too, so that sizes stay; other servers send the same.
const INSTEAD_OF_NUL: u8 = 0x80;

/// Sends one section's bytes.
pub async fn send_part<H: Holding>(
    connection: &mut Connection,
    held: &H,
    writer: &mut FetchWriter,
    item: &FetchItem,
    part: &Part,
    prepared: &Prepared,
) -> Result<(), Stop> {
    let bytes: &[u8] = match part {
        Part::Nil => {
            let out = connection.output();
            match item {
                FetchItem::Section { name, partial, .. } => writer.section(out, name, partial.map(|(origin, _)| origin), None),
                FetchItem::Binary { part, partial, .. } => writer.binary_nil(out, part, partial.map(|(origin, _)| origin)),
                _ => {}
            }
            return Ok(());
        }
        Part::UnknownEncoding | Part::TooMuch => return Ok(()), // the command ends with NO
        Part::Size(bytes) => {
            if let FetchItem::BinarySize(part) = item {
                writer.binary_size(connection.output(), part, *bytes);
            }
            return Ok(());
        }
        Part::Owned(bytes) => bytes,
        Part::Decoded(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
        Part::Held(range) => prepared.raw.get(range.clone()).unwrap_or_default(),
        Part::Streamed(range) => {
            begin_literal(connection, writer, item, range.end - range.start);
            return stream(connection, held, prepared, range.clone()).await;
        }
    };
    if let FetchItem::Binary { part, partial, .. } = item {
        let has_nul = memchr::memchr(0, bytes).is_some();
        let origin = partial.map(|(origin, _)| origin);
        writer.binary_header(connection.output(), part, origin, bytes.len() as u64, has_nul);
        for chunk in bytes.chunks(CHUNK_BYTES) {
            connection.output().extend_from_slice(chunk); // a literal8 where there is a NUL
            connection.flush_if_large().await?;
        }
        return Ok(());
    }
    begin_literal(connection, writer, item, bytes.len() as u64);
    put(connection, bytes).await
}

fn begin_literal(connection: &mut Connection, writer: &mut FetchWriter, item: &FetchItem, bytes: u64) {
    let out = connection.output();
    match item {
        FetchItem::Section { name, partial, .. } => writer.section_header(out, name, partial.map(|(origin, _)| origin), bytes),
        FetchItem::Rfc822Header => writer.literal_header(out, "RFC822.HEADER", bytes),
        FetchItem::Rfc822Text => writer.literal_header(out, "RFC822.TEXT", bytes),
        _ => writer.literal_header(out, "RFC822", bytes),
    }
}

/// Sends a range of a large message, reading one chunk ahead.
async fn stream<H: Holding>(connection: &mut Connection, held: &H, prepared: &Prepared, range: Range<u64>) -> Result<(), Stop> {
    let mut at = range.start;
    let mut spare = Vec::new();
    let mut ready = read_chunk(held, prepared, at..range.end, Vec::new()).await?;
    while !ready.is_empty() {
        at += ready.len() as u64;
        // The read begins before the socket is written to, which takes a whole chunk without waiting.
        let (next, sent) = tokio::join!(read_chunk(held, prepared, at..range.end, spare), put(connection, &ready));
        sent?;
        spare = std::mem::replace(&mut ready, next?);
    }
    if at == range.end {
        return Ok(());
    }
    tracing::error!(expected = range.end - range.start, sent = at - range.start, "a message file is shorter than its size");
    Err(cut_off())
}

/// The next bytes of `range`, at most a chunk. An error in the middle of a literal can only end the connection: its length was announced.
/// They are read into `chunk`, whose memory the chunk before the last one had.
async fn read_chunk<H: Holding>(held: &H, prepared: &Prepared, range: Range<u64>, mut chunk: Vec<u8>) -> Result<Vec<u8>, Stop> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let Some(reader) = prepared.reader.clone() else { return Ok(Vec::new()) };
    let length = usize::try_from(range.end - range.start).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
    let read = held.run(move |_| {
        chunk.resize(length, 0);
        let got = reader.read_at(range.start, &mut chunk)?;
        chunk.truncate(got);
        Ok(chunk)
    });
    read.await.map_err(|error| {
        tracing::error!(%error, "a message can't be read to its end");
        cut_off()
    })
}

fn cut_off() -> Stop {
    Stop::Connection(ConnectionError::Io(std::io::Error::other("a message could not be read to its end")))
}

/// Sends bytes of a plain literal; nearly all messages go out without being copied.
async fn put(connection: &mut Connection, bytes: &[u8]) -> Result<(), Stop> {
    if memchr::memchr(0, bytes).is_none() {
        return Ok(connection.send(bytes).await?);
    }
    for chunk in bytes.chunks(CHUNK_BYTES) {
        let out = connection.output();
        let from = out.len();
        out.extend_from_slice(chunk);
        replace_nul(out.get_mut(from..).unwrap_or_default());
        connection.flush_if_large().await?;
    }
    Ok(())
}

/// Replaces each NUL; mostly there is none.
pub fn without_nul(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0, bytes).is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut bytes = bytes.to_vec();
    replace_nul(&mut bytes);
    Cow::Owned(bytes)
}

fn replace_nul(mut bytes: &mut [u8]) {
    while let Some(at) = memchr::memchr(0, bytes) {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = INSTEAD_OF_NUL;
        }
        bytes = bytes.get_mut(at..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nul_is_replaced_and_nothing_else() {
        assert_eq!(without_nul(b"\0a\0\0b\x80\0").as_ref(), b"\x80a\x80\x80b\x80\x80");
        assert!(matches!(without_nul(b"plain"), Cow::Borrowed(b"plain")));
    }
}
