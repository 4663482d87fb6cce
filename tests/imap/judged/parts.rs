//! BODYSTRUCTURE as a tree with section numbers (RFC 9051 §6.4.5.1), and everything that can be fetched of it.

use std::collections::BTreeMap;

use tests::{
    Context, Result, bail,
    clients::{
        imap::{Imap, Message, Status},
        value::Value,
    },
    ensure,
};

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Leaf,
    Message,
    Multipart,
}

/// One part.
#[derive(Debug)]
pub struct Part {
    /// As in `BODY[1.2]`; of a message's own body, the message's number, which is empty for the outermost.
    pub number: String,
    pub kind: Kind,
    /// `text/plain`, in lower case.
    pub media: String,
    /// Names in lower case.
    pub parameters: Vec<(String, Vec<u8>)>,
    pub encoding: String,
    pub octets: Option<u64>,
    pub lines: Option<u64>,
    pub envelope: Option<Value>,
    pub children: Vec<Part>,
}

fn lower(value: &Value) -> Result<String> {
    Ok(String::from_utf8_lossy(value.bytes()?).to_ascii_lowercase())
}

fn parameters(value: &Value) -> Result<Vec<(String, Vec<u8>)>> {
    let Value::List(words) = value else { return Ok(Vec::new()) };
    ensure!(words.len() % 2 == 0 && !words.is_empty(), "parameters that are no pairs: {words:?}");
    words.chunks(2).map(|pair| Ok((lower(&pair[0])?, pair[1].bytes()?.to_vec()))).collect()
}

fn below(number: &str, index: usize) -> String {
    if number.is_empty() { index.to_string() } else { format!("{number}.{index}") }
}

/// The body of the message `number`: what is not a multipart is its part 1.
pub fn body_of(number: &str, structure: &Value) -> Result<Part> {
    let number = if matches!(structure.list()?.first(), Some(Value::List(_))) { number.to_owned() } else { below(number, 1) };
    part(number, structure)
}

fn part(number: String, structure: &Value) -> Result<Part> {
    let fields = structure.list()?;
    let children = fields.iter().take_while(|field| matches!(field, Value::List(_))).count();
    if children > 0 {
        // `((…)(…) "mixed" (parameters) disposition language location)`
        ensure!(fields.len() == children + 5, "a multipart of {} fields", fields.len());
        let parts =
            fields[..children].iter().enumerate().map(|(index, child)| part(below(&number, index + 1), child)).collect::<Result<_>>()?;
        return Ok(Part {
            kind: Kind::Multipart,
            media: format!("multipart/{}", lower(&fields[children])?),
            parameters: parameters(&fields[children + 1])?,
            encoding: String::new(),
            octets: None,
            lines: None,
            envelope: None,
            children: parts,
            number,
        });
    }
    let [main, sub, pairs, _id, _description, encoding, octets, rest @ ..] = fields else { bail!("a part of {} fields", fields.len()) };
    let media = format!("{}/{}", lower(main)?, lower(sub)?);
    let is_message = matches!(media.as_str(), "message/rfc822" | "message/global");
    let (mut envelope, mut lines, mut inner) = (None, None, Vec::new());
    let expected = match rest {
        [told, body, count, ..] if is_message => {
            inner.push(body_of(&number, body)?);
            (envelope, lines) = (Some(told.clone()), Some(count.number()?));
            3 + 4
        }
        [count, ..] if media.starts_with("text/") => {
            lines = Some(count.number()?);
            1 + 4
        }
        _ => 4,
    };
    ensure!(rest.len() == expected, "{media} has {} fields behind its size", rest.len());
    Ok(Part {
        kind: if is_message { Kind::Message } else { Kind::Leaf },
        parameters: parameters(pairs)?,
        encoding: lower(encoding)?,
        octets: Some(octets.number()?),
        lines,
        envelope,
        children: inner,
        number,
        media,
    })
}

impl Part {
    /// It and all below.
    pub fn all<'a>(&'a self, into: &mut Vec<&'a Part>) {
        into.push(self);
        self.children.iter().for_each(|child| child.all(into));
    }

    /// The boundaries of all multiparts, without space at their ends (RFC 2046 §5.1.1).
    pub fn boundaries(&self) -> Vec<&[u8]> {
        let mut all = Vec::new();
        self.all(&mut all);
        let named = all.into_iter().flat_map(|part| part.parameters.iter().filter(|(name, _)| name == "boundary"));
        named.map(|(_, value)| value.trim_ascii_end()).collect()
    }

    /// Whether a delimiter of this boundary could be one of another multipart's as well.
    pub fn is_ambiguous(&self, boundary: &[u8]) -> bool {
        let all = self.boundaries();
        let closing = |other: &&[u8]| {
            other.strip_prefix(boundary).or_else(|| boundary.strip_prefix(*other)).is_some_and(|rest| rest.starts_with(b"--"))
        };
        all.iter().filter(|other| **other == boundary).count() > 1 || all.iter().any(closing)
    }

    /// The parts of which sections are fetched: not the body of a message that is a multipart, which is that message's TEXT.
    pub fn numbered(&self) -> Vec<&Part> {
        let mut all = Vec::new();
        self.all(&mut all);
        let mut seen = std::collections::BTreeSet::new();
        all.into_iter().filter(|part| !part.number.is_empty() && seen.insert(part.number.clone())).collect()
    }
}

/// What was fetched of one message, by item.
#[derive(Debug, Default)]
pub struct Fetched {
    pub items: Message,
    /// `None`: UNKNOWN-CTE.
    pub decoded: BTreeMap<String, Option<Vec<u8>>>,
}

/// Where the slices begin and how long they are that are compared with the whole.
pub const SLICE: (usize, usize) = (3, 40);

impl Fetched {
    /// Every section of every part, some slices, and some that are not there.
    pub fn everything(imap: &mut Imap, uid: u32, body: &Part) -> Result<Fetched> {
        let slice = format!("<{}.{}>", SLICE.0, SLICE.1);
        // HEADER alone takes another way through the server than together with other sections.
        let header = imap.send(&format!("UID FETCH {uid} BODY.PEEK[HEADER]"))?;
        let lone_text = imap.send(&format!("UID FETCH {uid} (BODY.PEEK[TEXT] BODY.PEEK[TEXT]{slice} BODY.PEEK[]{slice})"))?;
        let mut wanted = vec![
            "RFC822.SIZE ENVELOPE BODY BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT] RFC822.HEADER BODY.PEEK[99] BODY.PEEK[99.MIME]".to_owned(),
            "BODY.PEEK[HEADER.FIELDS (Subject CONTENT-TYPE)] BODY.PEEK[HEADER.FIELDS.NOT (Subject CONTENT-TYPE)] BODY.PEEK[HEADER.FIELDS (X-8bit)]".to_owned(),
        ];
        let mut binaries = Vec::new();
        for part in body.numbered() {
            let number = &part.number;
            wanted.push(format!("BODY.PEEK[{number}] BODY.PEEK[{number}]{slice} BODY.PEEK[{number}.MIME]"));
            match part.kind {
                Kind::Message => wanted.push(format!(
                    "BODY.PEEK[{number}.HEADER] BODY.PEEK[{number}.TEXT] BODY.PEEK[{number}.HEADER.FIELDS (Subject CONTENT-TYPE)] BODY.PEEK[{number}.HEADER.FIELDS.NOT (Subject CONTENT-TYPE)]"
                )),
                Kind::Leaf => {
                    wanted.push(format!("BODY.PEEK[{number}.1] BODY.PEEK[{number}.HEADER] BODY.PEEK[{number}.TEXT]"));
                    binaries.push((number, imap.send(&format!("UID FETCH {uid} (BINARY.PEEK[{number}] BINARY.PEEK[{number}]{slice} BINARY.SIZE[{number}])"))?));
                }
                Kind::Multipart => wanted.push(format!("BODY.PEEK[{number}.99] BODY.PEEK[{number}.HEADER]")),
            }
        }
        // A line of a command has its limit.
        let all =
            wanted.chunks(20).map(|wanted| imap.send(&format!("UID FETCH {uid} ({})", wanted.join(" ")))).collect::<Result<Vec<_>>>()?;

        let mut fetched = Fetched::default();
        let items = |imap: &mut Imap, tag: &str| -> Result<(Status, Message)> {
            let reply = imap.finish(tag)?;
            let mut messages = reply.messages()?;
            ensure!(messages.len() == 1, "{} messages for one", messages.len());
            Ok((reply.status, messages.pop_first().context("nothing")?.1))
        };
        let (_, lone_header) = items(imap, &header)?;
        let (_, lone_text) = items(imap, &lone_text)?;
        for (number, tag) in binaries {
            let (status, message) = items(imap, &tag)?;
            if status == Status::No {
                ensure!(!message.contains_key(&format!("BINARY[{number}]")), "UNKNOWN-CTE, and content all the same");
                fetched.decoded.insert(number.clone(), None);
                continue;
            }
            let whole = message[&format!("BINARY[{number}]")].bytes()?.to_vec();
            ensure!(message[&format!("BINARY[{number}]<{}>", SLICE.0)].bytes()? == slice_of(&whole), "a slice of BINARY[{number}]");
            ensure!(message[&format!("BINARY.SIZE[{number}]")].number()? == whole.len() as u64, "BINARY.SIZE[{number}]");
            fetched.decoded.insert(number.clone(), Some(whole));
        }
        let mut message = Message::new();
        for tag in all {
            let (status, more) = items(imap, &tag)?;
            ensure!(status == Status::Ok, "FETCH of every section was refused");
            message.extend(more);
        }
        for (name, value) in lone_header.iter().chain(&lone_text) {
            ensure!(
                message.get(name).is_none_or(|other| other == value),
                "{name} is another one when it is fetched alone: {} and {}",
                shown(value),
                shown(&message[name])
            );
        }
        fetched.items = lone_text;
        fetched.items.extend(message);
        Ok(fetched)
    }

    /// The bytes of `BODY[section]`.
    pub fn bytes(&self, section: &str) -> Result<&[u8]> {
        self.items.get(&format!("BODY[{section}]")).with_context(|| format!("no BODY[{section}]"))?.bytes()
    }

    /// Whether `BODY[section]` is NIL.
    pub fn is_nil(&self, section: &str) -> bool {
        self.items.get(&format!("BODY[{section}]")) == Some(&Value::Nil)
    }
}

/// The slice that is fetched everywhere.
pub fn slice_of(whole: &[u8]) -> &[u8] {
    let start = SLICE.0.min(whole.len());
    &whole[start..(start + SLICE.1).min(whole.len())]
}

fn shown(value: &Value) -> String {
    value.bytes().map_or_else(|_| format!("{value:?}"), |bytes| format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)])))
}
