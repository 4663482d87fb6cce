//! What was rendered of messages. Header fields are packed: most of their text is in ENVELOPE and BODYSTRUCTURE of the same row, which are ready to send.
//!
//! Packed: 1, the length (u32, little-endian) and an LZ4 block whose dictionary is ENVELOPE and BODYSTRUCTURE. Where that is no smaller: 0 and the fields.
//! Indexes of versions before 9 have the fields alone, which begin with a letter.
//!
//! Invariants, each with the test that guards it:
//! - what was packed is read back, whatever it is (`header_fields_are_read_back_whatever_they_are`)
//! - a row whose dictionary or block changed is damage, not other fields (`packed_fields_with_another_dictionary_are_damage`)

use std::sync::OnceLock;

use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};
use rusqlite::{Row, params};

use crate::{
    Change, IndexError, IndexReader, MailboxId, Uid, UserIndex,
    checksum::{Sum, damaged},
    messages::{blob, id},
};

const PLAIN: u8 = 0;
const PACKED: u8 = 1;
/// What a block may unpack to: longer fields are kept as they are. Damage that no checksum shows asks for no more memory.
const UNPACKED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// To be followed by what is asked of the id.
const RENDERED: &str = "rendered WHERE";
const SHAPE: &str = "id, envelope, body_structure, shape_sum";
const ALL: &str = "id, envelope, body_structure, shape_sum, headers, headers_sum";

/// What was rendered of a message, ready to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenderedRecord<'a> {
    /// ENVELOPE.
    pub envelope: &'a [u8],
    /// BODYSTRUCTURE.
    pub body_structure: &'a [u8],
    /// Header fields, if they were asked for.
    pub headers: &'a [u8],
}

/// Of packed header fields: plus the row's id, so that SQL can copy a row.
fn headers_sum(headers: &[u8]) -> Sum {
    of_rendered().bytes(headers)
}
/// The same of ENVELOPE and BODYSTRUCTURE.
fn shape_sum(envelope: &[u8], body_structure: &[u8]) -> Sum {
    of_rendered().bytes(envelope).bytes(body_structure)
}
fn of_rendered() -> Sum {
    static BEGUN: OnceLock<u32> = OnceLock::new();
    Sum::of_many("rendered", &BEGUN)
}

/// ENVELOPE and BODYSTRUCTURE, from the columns [`SHAPE`] or [`ALL`].
fn shape<'a>(row: &'a Row<'_>) -> rusqlite::Result<RenderedRecord<'a>> {
    let record = RenderedRecord { envelope: blob(row, 1)?, body_structure: blob(row, 2)?, headers: b"" };
    shape_sum(record.envelope, record.body_structure).check("rendered", row.get::<_, i64>(3)?.wrapping_sub(row.get(0)?))?;
    Ok(record)
}

/// Header fields are unpacked into memory that is used again for the next row.
#[derive(Default)]
struct Unpacking {
    dictionary: Vec<u8>,
    fields: Vec<u8>,
}

impl Unpacking {
    /// What was rendered, from the columns [`ALL`].
    fn record<'a>(&'a mut self, row: &'a Row<'_>) -> rusqlite::Result<RenderedRecord<'a>> {
        let record = shape(row)?;
        let stored = blob(row, 4)?;
        headers_sum(stored).check("rendered", row.get::<_, i64>(5)?.wrapping_sub(row.get(0)?))?;
        let headers = self.unpack(&record, stored).ok_or_else(|| damaged("rendered", "its header fields can't be unpacked"))?;
        Ok(RenderedRecord { headers, ..record })
    }
    fn unpack<'a>(&'a mut self, shape: &RenderedRecord<'_>, stored: &'a [u8]) -> Option<&'a [u8]> {
        match stored.split_first() {
            Some((&PLAIN, fields)) => Some(fields),
            Some((&PACKED, packed)) => {
                let (length, block) = packed.split_first_chunk()?;
                let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= UNPACKED_BYTES_MAX)?;
                self.dictionary.clear();
                self.dictionary.extend_from_slice(shape.envelope);
                self.dictionary.extend_from_slice(shape.body_structure);
                self.fields.resize(length, 0);
                let unpacked = decompress_into_with_dict(block, &mut self.fields, &self.dictionary).ok()?;
                (unpacked == length).then_some(&*self.fields)
            }
            _ => Some(stored),
        }
    }
}

fn pack(envelope: &[u8], body_structure: &[u8], headers: &[u8]) -> Vec<u8> {
    let block = compress_with_dict(headers, &[envelope, body_structure].concat());
    match u32::try_from(headers.len()) {
        Ok(length) if block.len() + 4 < headers.len() && headers.len() <= UNPACKED_BYTES_MAX => {
            [&[PACKED], &length.to_le_bytes()[..], &block].concat()
        }
        _ => [&[PLAIN], headers].concat(),
    }
}

impl UserIndex {
    pub(crate) fn check_rendered(&self, ids: [i64; 2]) -> Result<(), IndexError> {
        self.check_rows(ALL, RENDERED, ids, |row| Unpacking::default().record(row).map(drop))
    }
}

impl IndexReader {
    /// Calls `visit` with ENVELOPE and BODYSTRUCTURE of `uids` (ascending); header fields are left out.
    pub fn shapes(&self, mailbox: MailboxId, uids: &[Uid], visit: &mut dyn FnMut(Uid, RenderedRecord<'_>)) -> Result<(), IndexError> {
        self.each_row(SHAPE, RENDERED, mailbox, uids, &mut |uid, row| {
            visit(uid, shape(row)?);
            Ok(())
        })
    }
    /// Calls `visit` with what was rendered of `uids` (ascending).
    pub fn rendered(&self, mailbox: MailboxId, uids: &[Uid], visit: &mut dyn FnMut(Uid, RenderedRecord<'_>)) -> Result<(), IndexError> {
        let mut unpacking = Unpacking::default();
        self.each_row(ALL, RENDERED, mailbox, uids, &mut |uid, row| {
            visit(uid, unpacking.record(row)?);
            Ok(())
        })
    }
}

impl Change<'_> {
    /// Stores what was rendered of a message.
    pub fn insert_rendered(&mut self, mailbox: MailboxId, uid: Uid, rendered: [&[u8]; 3]) -> Result<(), IndexError> {
        let mut insert = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO rendered (id, envelope, body_structure, headers, shape_sum, headers_sum)
             SELECT ?1, ?2, ?3, ?4, ?5 + ?1, ?6 + ?1 WHERE EXISTS (SELECT 1 FROM messages WHERE id = ?1)",
        )?;
        let [envelope, body_structure, headers] = rendered;
        let packed = pack(envelope, body_structure, headers);
        let sums = (shape_sum(envelope, body_structure).get(), headers_sum(&packed).get());
        insert.execute(params![id(mailbox, uid.get()), envelope, body_structure, packed, sums.0, sums.1])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape<'a>(envelope: &'a [u8], body_structure: &'a [u8]) -> RenderedRecord<'a> {
        RenderedRecord { envelope, body_structure, headers: b"" }
    }

    proptest! {
        #[test]
        fn header_fields_are_read_back_whatever_they_are(
            envelope in proptest::collection::vec(any::<u8>(), 0..300),
            body_structure in proptest::collection::vec(any::<u8>(), 0..100),
            headers in proptest::collection::vec(any::<u8>(), 0..300),
            repeated in any::<bool>(),
            long in any::<bool>(),
        ) {
            // A block reaches back for 64 KiB.
            let envelope = if long { envelope.repeat(400) } else { envelope };
            let headers = if repeated { [&envelope[..], &headers, &envelope, &headers].concat() } else { headers };
            let packed = pack(&envelope, &body_structure, &headers);
            prop_assert!(packed.len() <= headers.len() + 1);
            let mut unpacking = Unpacking::default();
            prop_assert_eq!(unpacking.unpack(&shape(&envelope, &body_structure), &packed), Some(&headers[..]));
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(stored in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut stored = stored;
            if let Some(first) = stored.first_mut() {
                *first %= 3;
            }
            Unpacking::default().unpack(&shape(b"some text", b"and more"), &stored);
        }
    }

    #[test]
    fn packed_fields_with_another_dictionary_are_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = UserIndex::open(folder.path()).unwrap();
        let mut change = index.begin().unwrap();
        let (mailbox, _) = crate::testing::two_mailboxes_of_three(&mut change);
        let uid = Uid::new(1).unwrap();
        let headers = b"Subject: Minutes of the meeting\r\nMessage-ID: <4711@mail.example.net>\r\n";
        let envelope = b"(NIL \"Minutes of the meeting\" NIL NIL NIL NIL NIL NIL NIL \"<4711@mail.example.net>\")";
        change.insert_rendered(mailbox, uid, [envelope, b"b", headers]).unwrap();
        change.commit().unwrap();
        let read = |index: &UserIndex| {
            let mut found = Vec::new();
            let read = index.reader().unwrap().rendered(mailbox, &[uid], &mut |_, rendered| found.push(rendered.headers.to_vec()));
            read.map(|()| found)
        };
        assert_eq!(read(&index).unwrap(), [headers.to_vec()]);
        let stored: i64 =
            index.connection.query_row("SELECT length(headers) FROM rendered WHERE headers < x'02'", [], |row| row.get(0)).unwrap();
        assert!(stored < 60, "{stored} bytes");

        index.connection.execute("UPDATE rendered SET envelope = CAST(replace(envelope, 'Min', 'min') AS BLOB)", []).unwrap();
        assert!(matches!(read(&index), Err(IndexError::Damaged(_))));
        // As a version before 9 stored them.
        let plain = (shape_sum(envelope, b"b").get(), headers_sum(headers).get());
        index
            .connection
            .execute(
                "UPDATE rendered SET envelope = ?2, headers = ?3, shape_sum = ?4 + id, headers_sum = ?5 + id WHERE id = ?1",
                params![id(mailbox, 1), envelope, headers, plain.0, plain.1],
            )
            .unwrap();
        assert_eq!(read(&index).unwrap(), [headers.to_vec()]);
    }
}
