//! The files of a mailbox's messages: what a name says that the other columns say as well is left out, so a name of ours takes about ten bytes.
//!
//! A name that is not printed in the usual form (`<unique>,S=<bytes>,W=<bytes>,U=<uid>:2,<flags>`, each part optional) is kept as it is.
//!
//! Invariants, each with the test that guards it:
//! - every file is read back as it was, whatever it is called (`any_file_is_read_back`)
//! - names of ours and of other servers are kept small (`usual_names_are_small`)

use index::FlagSet;
use memchr::{memchr, memchr_iter};

use super::numbers::{push, retain};
use crate::{EmailId, maildir::filename::FileName};

/// Names in one block: a name is found by walking over those before it in its block.
pub(super) const BLOCK: usize = 32;
/// Different hosts (what follows the second dot) that are remembered; names of more are kept with theirs.
pub(super) const HOSTS_MAX: usize = 250;

const IN_NEW: u8 = 1;
const OWN: u8 = 1 << 1;
const HAS_HOST: u8 = 1 << 2;
const HAS_S: u8 = 1 << 3;
const S_DIFFERS: u8 = 1 << 4;
const HAS_W: u8 = 1 << 5;
const HAS_U: u8 = 1 << 6;
const HAS_FLAGS: u8 = 1 << 7;
/// The name as it is: no packed name has `S_DIFFERS` without `HAS_S`.
const AS_IT_IS: u8 = S_DIFFERS;
/// The 16 bytes of an EMAILID, then the packed name without that field.
const WITH_ID: u8 = S_DIFFERS | IN_NEW;
/// How long the field is in a name: `,G=` and 32 digits.
const ID_FIELD_BYTES: usize = 35;

/// What the other columns say of a message, and never changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub uid: u32,
    pub size: u64,
    pub internal_date: i64,
    pub save_date: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Each name with its length before it.
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) len: usize,
    pub(super) hosts: Vec<Box<str>>,
    /// Where the next name is packed.
    scratch: Vec<u8>,
}

impl Names {
    pub fn reserve(&mut self, more: usize) {
        self.blocks.reserve_exact(more.div_ceil(BLOCK));
    }
    pub fn push(&mut self, file: &str, facts: Facts) {
        let mut packed = std::mem::take(&mut self.scratch);
        self.pack(file, facts, &mut packed);
        self.push_packed(&packed);
        self.scratch = packed;
    }
    pub fn get(&self, position: usize, facts: Facts) -> String {
        let block = self.blocks.get(position / BLOCK).map(Vec::as_slice).unwrap_or_default();
        let (start, end) = span(block, position % BLOCK);
        let mut packed = Reader(block.get(start..end).unwrap_or_default());
        packed.number();
        let mut file = String::with_capacity(96);
        unpack(packed, &self.hosts, facts, &mut file);
        file
    }
    /// Calls `visit` with every name and its position, in the memory of one.
    pub fn each(&self, facts: impl Fn(usize) -> Facts, visit: &mut dyn FnMut(usize, &str)) {
        let mut file = String::with_capacity(96);
        let mut position = 0;
        for block in &self.blocks {
            let mut rest = Reader(block);
            while !rest.0.is_empty() {
                file.clear();
                unpack(Reader(rest.bytes()), &self.hosts, facts(position), &mut file);
                visit(position, &file);
                position += 1;
            }
        }
    }
    pub fn set(&mut self, position: usize, file: &str, facts: Facts) {
        let mut packed = Vec::new();
        self.pack(file, facts, &mut packed);
        if let Some(block) = self.blocks.get_mut(position / BLOCK) {
            let (start, end) = span(block, position % BLOCK);
            let mut with_length = Vec::with_capacity(packed.len() + 2);
            write_packed(&mut with_length, &packed);
            block.splice(start..end, with_length);
        }
    }
    /// Keeps those of which `keep` is true.
    pub fn retain(&mut self, keep: &[bool]) {
        let Some(first) = keep.iter().position(|keep| !keep).map(|first| first / BLOCK) else { return };
        let changed = self.blocks.split_off(first.min(self.blocks.len()));
        self.len = self.len.min(first * BLOCK);
        let mut keep = keep.iter().skip(first * BLOCK);
        for block in changed {
            let mut rest = Reader(&block);
            while !rest.0.is_empty() {
                let packed = rest.bytes();
                if keep.next().copied().unwrap_or(true) {
                    self.push_packed(packed);
                }
            }
        }
        retain(&mut self.blocks, &[]);
    }

    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Vec<u8>>() + self.blocks.iter().map(|block| block.capacity() + 16).sum::<usize>()
    }

    fn push_packed(&mut self, packed: &[u8]) {
        if self.len.is_multiple_of(BLOCK) {
            // The next block is about as large: it need not grow from nothing.
            let bytes = self.blocks.last_mut().map_or(0, |full| {
                full.shrink_to_fit();
                full.len() + full.len() / 16
            });
            push(&mut self.blocks, Vec::with_capacity(bytes));
        }
        if let Some(block) = self.blocks.last_mut() {
            write_packed(block, packed);
        }
        self.len += 1;
    }

    /// Puts the packed name in the place of what is in `packed`.
    fn pack(&mut self, file: &str, facts: Facts, packed: &mut Vec<u8>) {
        packed.clear();
        let usual = match split_id(file) {
            Some((rest, id)) => {
                packed.push(WITH_ID);
                packed.extend(id.to_bytes());
                self.pack_usual(&rest, facts, packed)
            }
            None => self.pack_usual(file, facts, packed),
        };
        if usual.is_none() {
            packed.clear();
            packed.push(AS_IT_IS);
            packed.extend(file.as_bytes());
        }
    }
    /// `None`: it has another form.
    fn pack_usual(&mut self, file: &str, facts: Facts, packed: &mut Vec<u8>) -> Option<()> {
        let (mut form, name) = match file.strip_prefix("cur/") {
            Some(name) => (0, name),
            None => (IN_NEW, file.strip_prefix("new/")?),
        };
        let (base, info) = match split_at_byte(name, b':') {
            Some((base, info)) => (base, Some(info)),
            None => (name, None),
        };
        let (unique, mut fields) = memchr(b',', base.as_bytes()).map_or((base, ""), |at| base.split_at(at));
        let form_at = packed.len();
        packed.push(0);

        if let Some((number, rest)) = field(fields, ",S=") {
            form |= HAS_S;
            let difference = number.wrapping_sub(facts.size).cast_signed();
            if difference != 0 {
                form |= S_DIFFERS;
                // Small numbers of either sign stay small.
                write_number(packed, (difference.wrapping_shl(1) ^ difference.wrapping_shr(63)).cast_unsigned());
            }
            fields = rest;
        }
        if let Some((_, rest)) = field(fields, ",W=").filter(|(number, _)| *number == facts.size) {
            form |= HAS_W;
            fields = rest;
        }
        if let Some((_, rest)) = field(fields, ",U=").filter(|(number, _)| *number == u64::from(facts.uid)) {
            form |= HAS_U;
            fields = rest;
        }
        if !fields.is_empty() {
            return None;
        }
        if let Some(info) = info {
            let flags = flags_of(info)?;
            form |= HAS_FLAGS;
            write_number(packed, flags.bits());
        }
        // `<seconds>.<anything unique>.<host>`, whose dots are its own.
        let (own, host) = match memchr_iter(b'.', unique.as_bytes()).nth(1) {
            Some(at) => (&unique[..at], Some(&unique[at + 1..])),
            None => (unique, None),
        };
        if let Some(host) = host {
            form |= HAS_HOST;
            packed.push(self.host(host)?);
        }
        match moment(own, facts).filter(|_| host.is_some()) {
            Some(numbers) => {
                form |= OWN;
                numbers.into_iter().for_each(|number| write_number(packed, number));
            }
            None => packed.extend(own.as_bytes()),
        }
        if let Some(first) = packed.get_mut(form_at) {
            *first = form;
        }
        Some(())
    }
    fn host(&mut self, host: &str) -> Option<u8> {
        let known = self.hosts.iter().position(|known| **known == *host);
        let position = known.or_else(|| {
            (self.hosts.len() < HOSTS_MAX).then(|| {
                self.hosts.push(host.into());
                self.hosts.len() - 1
            })
        });
        position.and_then(|position| u8::try_from(position).ok())
    }
}

/// Adds the name to `file`.
fn unpack(mut packed: Reader<'_>, hosts: &[Box<str>], facts: Facts, file: &mut String) {
    let form = packed.byte();
    if form == AS_IT_IS {
        file.push_str(&String::from_utf8_lossy(packed.0));
        return;
    }
    if form == WITH_ID {
        let (id, rest) = packed.0.split_first_chunk().unwrap_or((&[0; 16], &[]));
        unpack(Reader(rest), hosts, facts, file);
        join_id(file, EmailId::from_bytes(*id));
        return;
    }
    let disk_size = match form & S_DIFFERS {
        0 => facts.size,
        _ => {
            let number = packed.number();
            facts.size.wrapping_add((number >> 1) ^ (number & 1).wrapping_neg())
        }
    };
    let flags = if form & HAS_FLAGS == 0 { FlagSet::EMPTY } else { FlagSet::from_bits(packed.number()) };
    let host = if form & HAS_HOST == 0 { None } else { hosts.get(usize::from(packed.byte())) };

    let mut digits = itoa::Buffer::new();
    file.push_str(if form & IN_NEW == 0 { "cur/" } else { "new/" });
    if form & OWN == 0 {
        file.push_str(&String::from_utf8_lossy(packed.0));
    } else {
        let (micros, counter, epoch) = (packed.number(), packed.number(), packed.number());
        let moment = facts.save_date.wrapping_mul(1_000_000).wrapping_add_unsigned(micros);
        file.push_str(digits.format(facts.internal_date));
        file.push_str(".M");
        file.push_str(digits.format(moment));
        file.push('N');
        file.push_str(digits.format(counter));
        file.push('E');
        file.push_str(digits.format(epoch));
    }
    if let Some(host) = host {
        file.push('.');
        file.push_str(host);
    }
    for (has, field, number) in [(HAS_S, ",S=", disk_size), (HAS_W, ",W=", facts.size), (HAS_U, ",U=", u64::from(facts.uid))] {
        if form & has != 0 {
            file.push_str(field);
            file.push_str(digits.format(number));
        }
    }
    if form & HAS_FLAGS != 0 {
        FileName::write_flags(file, flags, "");
    }
}

/// The name without its EMAILID, which is the last field before the flags.
fn split_id(file: &str) -> Option<(String, EmailId)> {
    let end = memchr(b':', file.as_bytes()).unwrap_or(file.len());
    let start = end.checked_sub(ID_FIELD_BYTES)?;
    let id = EmailId::parse_bare(file.get(start..end)?.strip_prefix(",G=")?)?;
    Some((format!("{}{}", file.get(..start)?, file.get(end..)?), id))
}
/// Puts it there again.
fn join_id(file: &mut String, id: EmailId) {
    let end = file.find(':').unwrap_or(file.len());
    file.insert_str(end, &format!(",G={}", id.print_bare()));
}

/// A number after `prefix`, printed as we would print it, and what follows.
fn field<'a>(text: &'a str, prefix: &str) -> Option<(u64, &'a str)> {
    number(text.strip_prefix(prefix)?)
}
fn number(text: &str) -> Option<(u64, &str)> {
    let mut number: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = text.as_bytes().get(digits).filter(|byte| byte.is_ascii_digit()) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        digits += 1;
    }
    let is_usual = digits == 1 || (digits > 0 && !text.starts_with('0'));
    Some((number, text.get(digits..)?)).filter(|_| is_usual)
}
/// `text` before and after the first `byte`, which is ASCII.
fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = memchr(byte, text.as_bytes())?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}
/// Microseconds, counter and epoch of `<internal date>.M<moment>N<counter>E<epoch>`.
fn moment(own: &str, facts: Facts) -> Option<[u64; 3]> {
    let (date, rest) = own.split_once(".M")?;
    let (negative, date) = date.strip_prefix('-').map_or((false, date), |date| (true, date));
    let (date, nothing) = number(date)?;
    if !nothing.is_empty() || date != facts.internal_date.unsigned_abs() || negative != (facts.internal_date < 0) {
        return None;
    }
    let (moment, rest) = number(rest)?;
    let micros = moment.checked_sub(u64::try_from(facts.save_date.checked_mul(1_000_000)?).ok()?)?;
    let (counter, rest) = field(rest, "N")?;
    let (epoch, rest) = field(rest, "E")?;
    (rest.is_empty() && micros < 1_000_000).then_some([micros, counter, epoch])
}
/// The flags of `2,<letters>`, if they are printed as we would print them.
fn flags_of(info: &str) -> Option<FlagSet> {
    let letters = info.strip_prefix("2,")?;
    if !letters.bytes().zip(letters.bytes().skip(1)).all(|(a, b)| a < b) {
        return None;
    }
    FileName::flags_of(letters)
}

/// Where the `wanted`-th name of a block begins and ends, its length included.
fn span(block: &[u8], wanted: usize) -> (usize, usize) {
    let mut rest = Reader(block);
    for _ in 0..wanted {
        rest.bytes();
    }
    let start = block.len() - rest.0.len();
    rest.bytes();
    (start, block.len() - rest.0.len())
}
/// With its length before it.
pub(super) fn write_packed(bytes: &mut Vec<u8>, packed: &[u8]) {
    write_number(bytes, u64::try_from(packed.len()).unwrap_or(u64::MAX));
    bytes.extend_from_slice(packed);
}
/// Seven bits a byte, the lowest first.
pub(super) fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0));
}

/// Reads what was packed.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }
    pub fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    /// A length and so many bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.number()).unwrap_or(usize::MAX).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FACTS: Facts = Facts { uid: 77, size: 5_000, internal_date: 1_763_748_000, save_date: 1_763_748_001 };

    fn file() -> impl Strategy<Value = String> {
        let number = || prop_oneof![Just("77".to_owned()), Just("5000".to_owned()), "0?[0-9]{1,20}"];
        let unique = prop_oneof![
            Just("1763748000.M1763748001000042N7E3.node-a".to_owned()),
            "-?[0-9]{1,3}\\.M[0-9]{1,20}N[0-9]{1,3}E[0-9]{1,3}\\.[a-c]",
            "[0-9a-zA-Z.é]{0,12}",
        ];
        let fields = ("(,S=)?", number(), "(,W=)?", number(), "(,U=)?", number());
        let info = prop_oneof![Just(String::new()), ":2,[DFPRSTXab]{0,4}", ":1,x", ":"];
        let folder = prop_oneof![Just("cur/"), Just("new/"), Just("tmp/"), Just("")];
        let id = prop_oneof![4 => Just(String::new()), 1 => ",G=[0-9a-f]{32}", 1 => ",G=[0-9A-F:]{0,33}"];
        (folder, unique, fields, id, info).prop_map(|(folder, unique, (s, a, w, b, u, c), id, info)| {
            let part = |name: String, number: String| if name.is_empty() { name } else { name + &number };
            format!("{folder}{unique}{}{}{}{id}{info}", part(s, a), part(w, b), part(u, c))
        })
    }

    proptest! {
        #[test]
        fn any_file_is_read_back(mut files in prop::collection::vec(file(), 1..80), changes in prop::collection::vec((any::<prop::sample::Index>(), file()), 0..30),
                                 keep in prop::collection::vec(any::<bool>(), 80), date in any::<i64>(), save_date in any::<i64>()) {
            let facts = |at: usize| if at.is_multiple_of(3) { Facts { internal_date: date, save_date, ..FACTS } } else { FACTS };
            let mut names = Names::default();
            files.iter().enumerate().for_each(|(at, file)| names.push(file, facts(at)));
            for (at, file) in changes {
                let at = at.index(files.len());
                names.set(at, &file, facts(at));
                files[at] = file;
            }
            let mut kept: Vec<(usize, String)> = files.into_iter().enumerate().collect();
            for (at, (original, file)) in kept.iter().enumerate() {
                prop_assert_eq!(&names.get(at, facts(*original)), file);
            }
            names.retain(&keep);
            kept.retain(|(at, _)| keep[*at]);
            for (at, (original, file)) in kept.iter().enumerate() {
                prop_assert_eq!(&names.get(at, facts(*original)), file);
            }
            let mut each = Vec::new();
            names.each(|at| facts(kept[at].0), &mut |at, file| each.push((at, file.to_owned())));
            prop_assert_eq!(each, kept.iter().map(|(_, file)| file.clone()).enumerate().collect::<Vec<_>>());
            names.push("cur/last", FACTS);
            prop_assert_eq!(names.get(kept.len(), FACTS), "cur/last");
        }
    }

    #[test]
    fn usual_names_are_small() {
        let mut names = Names::default();
        let mut packed = |file: &str| {
            let mut packed = Vec::new();
            names.pack(file, FACTS, &mut packed);
            packed.len()
        };
        assert_eq!(packed("cur/1763748000.M1763748001000042N7E300.node-a.example,S=5000,W=5000,U=77:2,FS"), 7);
        assert_eq!(packed("cur/1763748000.M1763748001999999N70000E300.node-a.example,S=4900,W=5000,U=77:2,FS"), 13);
        assert_eq!(packed("cur/1763748000.M52P9.host,S=4900,W=5000:2,S"), 21);
        assert_eq!(packed("new/1763748000.M52P9.host,S=5000"), 18);
        let copy = "cur/1763748000.M1763748001000042N7E300.node-a.example,S=5000,W=5000,U=77,G=00112233445566778899aabbccddeeff:2,FS";
        assert_eq!(packed(copy), 24);
        assert_eq!(packed("cur/1763748000.M52P9.host,S=5000,W=4:2,S"), 1 + "cur/1763748000.M52P9.host,S=5000,W=4:2,S".len());
    }
}
