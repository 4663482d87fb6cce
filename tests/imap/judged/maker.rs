//! Messages from a seed: nested in every way that mail nests, and then broken as mail is broken.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Deepest nesting that is made on purpose.
const DEPTH: u32 = 5;

const ADDRESSES: [&str; 12] = [
    "ada@tests.example",
    "Ada Lovelace <ada@tests.example>",
    "\"Lovelace, Ada\" <ada@tests.example>",
    "\"a \\\"b\\\"\" <a.b+c@tests.example>",
    "ada@tests.example (Ada)",
    "=?UTF-8?Q?Gr=C3=BC=C3=9Fe?= <g@tests.example>",
    "friends: ada@tests.example, Bob <bob@tests.example>;",
    "undisclosed-recipients:;",
    "<@a.example,@b.example:c@d.example>",
    "<ada@[127.0.0.1]>",
    "no address",
    "<unclosed@tests.example",
];
const LEAVES: [&str; 8] = [
    "text/plain; charset=utf-8",
    "text/html",
    "image/png; name=\"a \\\"b\\\".png\"",
    "application/octet-stream; name*0*=utf-8''%C3%BC; name*1=b",
    "message/delivery-status",
    "message/partial; id=1; number=2",
    "text",
    "Text/X-y (a comment); format=flowed; delsp = yes",
];

pub struct Maker {
    rng: StdRng,
    boundaries: Vec<String>,
}

/// A header without its blank line, and a body.
struct Entity {
    header: String,
    body: String,
}

impl Entity {
    fn whole(&self) -> String {
        format!("{}\r\n{}", self.header, self.body)
    }
}

impl Maker {
    pub fn new(seed: u64) -> Maker {
        Maker { rng: StdRng::seed_from_u64(seed), boundaries: Vec::new() }
    }

    /// One message; every second one is broken.
    pub fn message(&mut self) -> Vec<u8> {
        self.boundaries.clear();
        let mut message = self.whole_message(0).into_bytes();
        if self.rng.random_bool(0.5) {
            for _ in 0..self.rng.random_range(1..4) {
                self.damage(&mut message);
            }
        }
        message.retain(|byte| *byte != 0);
        message
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.random_range(0..of.len())]
    }

    fn whole_message(&mut self, depth: u32) -> String {
        let mut header = String::new();
        for name in ["From", "Sender", "To", "CC", "bcc", "Reply-To"] {
            if self.rng.random_bool(0.5) {
                let list: Vec<&str> = (0..self.rng.random_range(1..4)).map(|_| self.pick(&ADDRESSES)).collect();
                let between = self.pick(&[", ", ",", ",\r\n ", " ,\r\n\t"]);
                header.push_str(&format!("{name}: {}\r\n", list.join(between)));
            }
        }
        for field in [
            "Subject: plain words",
            "Subject:  =?UTF-8?B?w7w=?=\r\n  folded \r\n\tand  spaced",
            "Subject:",
            "Date: Sat, 21 Nov 2026 10:00:00 +0100",
            "Message-ID: <1@tests.example>",
            "message-id :\r\n <2@tests.example>",
            "In-Reply-To: <a@b>\r\n <c@d>",
            "X-Empty:",
            "X-8bit: \u{fc}\u{20ac}",
        ] {
            if self.rng.random_bool(0.3) {
                header.push_str(field);
                header.push_str("\r\n");
            }
        }
        if self.rng.random_bool(0.02) {
            header.push_str(&format!("References: {}<z@z>\r\n", "<0123456789@tests.example>\r\n ".repeat(900)));
        }
        let entity = self.entity(depth);
        format!("{header}MIME-Version: 1.0\r\n{}", entity.whole())
    }

    fn entity(&mut self, depth: u32) -> Entity {
        match self.rng.random_range(0..if depth < DEPTH { 12 } else { 5 }) {
            0 | 1 => Entity { header: format!("Content-Type: {}\r\n", self.pick(&LEAVES)), body: self.text() },
            2 => Entity { header: String::new(), body: self.text() },
            3 => {
                let bytes: Vec<u8> = (0..self.rng.random_range(0..200)).map(|_| self.rng.random()).collect();
                let kind = self.pick(&["application/pdf", "message/rfc822", "text/plain; charset=iso-8859-1"]);
                let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes);
                let lines: Vec<&str> = text.as_bytes().chunks(60).filter_map(|line| std::str::from_utf8(line).ok()).collect();
                Entity { header: format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: BASE64\r\n"), body: lines.join("\r\n") }
            }
            4 => {
                let encoding = self.pick(&["quoted-printable", "Quoted-Printable ", "x-uuencode", "8bit", "7bit (really)", "binary"]);
                let text = self.text().replace('=', "=3D").replace('\u{fc}', "=C3=BC").replace("of", "of=\r\n");
                Entity { header: format!("Content-Type: text/plain\r\nContent-Transfer-Encoding: {encoding}\r\n"), body: text }
            }
            5 | 6 => {
                let kind = self.pick(&["message/rfc822", "Message/RFC822; name=x.eml", "message/global"]);
                Entity { header: format!("Content-Type: {kind}\r\n"), body: self.whole_message(depth + 1) }
            }
            7 => {
                let header = self.pick(&["Content-Type: multipart/mixed\r\n", "Content-Type: multipart/mixed; boundary=none\r\n"]);
                Entity { header: header.to_owned(), body: self.text() }
            }
            _ => self.multipart(depth),
        }
    }

    fn multipart(&mut self, depth: u32) -> Entity {
        // Some begin as another does, or with dashes.
        let before = self.boundaries.last().cloned().filter(|_| self.rng.random_bool(0.3)).unwrap_or_default();
        // (One that goes on with dashes behind another looks like the other's end.)
        let names: &[&str] = if before.is_empty() { &["b", "--=_", "next part", "x'()+_,-./:=?"] } else { &["b", "=_", "+part"] };
        let boundary = format!("{before}{}{}", self.pick(names), self.boundaries.len());
        self.boundaries.push(boundary.clone());
        let sub = self.pick(&["mixed", "alternative", "digest", "x-other", "Related; type=\"text/html\""]);
        let mut body = if self.rng.random_bool(0.3) { "a preamble\r\n".to_owned() } else { String::new() };
        for _ in 0..self.rng.random_range(1..5) {
            let padding = self.pick(&["", "", "", " ", "\t "]);
            let part = if sub == "digest" && self.rng.random_bool(0.7) {
                format!("\r\n{}", self.whole_message(depth + 1))
            } else {
                self.entity(depth + 1).whole()
            };
            body.push_str(&format!("--{boundary}{padding}\r\n{part}\r\n"));
        }
        if self.rng.random_bool(0.9) {
            body.push_str(&format!("--{boundary}--"));
        }
        body.push_str(self.pick(&["", "\r\n", "\r\nan epilogue\r\n"]));
        Entity { header: format!("Content-Type: multipart/{sub};\r\n\tboundary=\"{boundary}\"\r\n"), body }
    }

    fn text(&mut self) -> String {
        let lines = self.rng.random_range(0..6);
        (0..lines)
            .map(|_| {
                self.pick(&[
                    "a line of text\r\n",
                    "\r\n",
                    "> --b0\r\n",
                    "-- \r\n",
                    "--\r\n",
                    "Subject: no header\r\n",
                    "8 bit: \u{fc}\r\n",
                    "no end of line",
                    "1+1=2 \r\n",
                    "From here\r\n",
                ])
            })
            .collect()
    }

    fn damage(&mut self, message: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = message.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..lines.len());
        let other = self.rng.random_range(0..lines.len());
        match self.rng.random_range(0..15) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => lines.truncate(at),
            4 => lines[at] = lines[at].iter().copied().filter(|byte| *byte != b'\r').collect(),
            5 => lines.iter_mut().for_each(|line| line.retain(|byte| *byte != b'\r')),
            6 => {
                let column = self.rng.random_range(0..lines[at].len());
                lines[at].insert(column, b'\r');
            }
            7 => {
                let column = self.rng.random_range(0..lines[at].len());
                lines[at][column] = self.rng.random_range(1..=255);
            }
            8 => lines.insert(at, b"\r\n".to_vec()),
            9 => lines.insert(at, b"no field at all\r\n".to_vec()),
            10 => {
                let delimiters: Vec<Vec<u8>> = lines.iter().filter(|line| line.starts_with(b"--")).cloned().collect();
                if !delimiters.is_empty() {
                    lines.insert(at, delimiters[self.rng.random_range(0..delimiters.len())].clone());
                }
            }
            11 => lines[at].splice(0..0, *b"x ").for_each(drop),
            12 => lines[at].splice(0..0, *b" ").for_each(drop),
            13 => lines.insert(at, self.pick(&["From ada Sat Nov 21\r\n", ": x\r\n", " \r\n", "Content-Type: text/html\r\n"]).into()),
            _ => {
                let line = lines[at].len().saturating_sub(2);
                lines[at].splice(line..line, *b"--").for_each(drop);
            }
        }
        *message = lines.concat();
    }
}
