//! ENVELOPE (RFC 9051 §7.5.2): raw strings, encoded-words not decoded.

use super::{
    address::{self, Address},
    fields::fields,
    tokens::collapse,
    write::nstring,
};

/// The fields of one header block that an envelope tells of. Of several fields the last counts; address fields add up.
#[derive(Debug, Default)]
struct Envelope {
    date: Option<Vec<u8>>,
    subject: Option<Vec<u8>>,
    from: Vec<Address>,
    sender: Vec<Address>,
    reply_to: Vec<Address>,
    to: Vec<Address>,
    cc: Vec<Address>,
    bcc: Vec<Address>,
    in_reply_to: Option<Vec<u8>>,
    message_id: Option<Vec<u8>>,
}

/// Appends the envelope of a header block to `out`.
pub(super) fn write(out: &mut Vec<u8>, header: &[u8]) {
    let envelope = Envelope::read(header);
    out.push(b'(');
    nstring(out, envelope.date.as_deref());
    out.push(b' ');
    nstring(out, envelope.subject.as_deref());
    // A missing Sender or Reply-To is the From (RFC 9051 §7.5.2).
    let or_from = |list| if Vec::is_empty(list) { &envelope.from } else { list };
    let (sender, reply_to) = (or_from(&envelope.sender), or_from(&envelope.reply_to));
    for list in [&envelope.from, sender, reply_to, &envelope.to, &envelope.cc, &envelope.bcc] {
        out.push(b' ');
        write_list(out, list);
    }
    out.push(b' ');
    nstring(out, envelope.in_reply_to.as_deref());
    out.push(b' ');
    nstring(out, envelope.message_id.as_deref());
    out.push(b')');
}

impl Envelope {
    fn read(header: &[u8]) -> Envelope {
        let mut envelope = Envelope::default();
        for field in fields(header) {
            match field.name.to_ascii_lowercase().as_slice() {
                b"date" => envelope.date = Some(field.unfolded()),
                b"subject" => envelope.subject = Some(collapse(field.value)),
                b"in-reply-to" => envelope.in_reply_to = Some(field.unfolded()),
                b"message-id" => envelope.message_id = Some(field.unfolded()),
                b"from" => address::parse(field.value, &mut envelope.from),
                b"sender" => address::parse(field.value, &mut envelope.sender),
                b"reply-to" => address::parse(field.value, &mut envelope.reply_to),
                b"to" => address::parse(field.value, &mut envelope.to),
                b"cc" => address::parse(field.value, &mut envelope.cc),
                b"bcc" => address::parse(field.value, &mut envelope.bcc),
                _ => {}
            }
        }
        envelope
    }
}

fn write_list(out: &mut Vec<u8>, list: &[Address]) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for address in list {
        out.push(b'(');
        nstring(out, address.name.as_deref());
        out.push(b' ');
        nstring(out, address.route.as_deref());
        out.push(b' ');
        nstring(out, address.mailbox.as_deref());
        out.push(b' ');
        nstring(out, address.host.as_deref());
        out.push(b')');
    }
    out.push(b')');
}
