"""Python's email package reads messages: one JSON line for each, what it makes of them.

Input (the file named first): a length in four bytes, then the message, again and again.

Where IMAP wants something else than this package, the package is told so here, each time with the reason.
"""

import base64, binascii, email.feedparser, email.message, email.utils, json, quopri, re, struct, sys
from email._policybase import Compat32

# A bare CR ends a line for this package, and none for mail (RFC 5322 section 2.3): it is hidden behind a byte that no message here has.
CR = b"\x01"

TOKEN = r"[^\x00-\x20()<>@,;:\\\"/\[\]?=\x7f]+"
TYPE = re.compile(rf"\s*({TOKEN})\s*(?:/\s*({TOKEN}))?")
STRICT_TYPE = re.compile(rf"\s*{TOKEN}/{TOKEN}\s*(;\s*{TOKEN}=({TOKEN}|\"([^\"\\\r\n]|\\.)*\")\s*)*;?\s*")
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
DOT_ATOM = rf"{ATOM}(?:\.{ATOM})*"
PHRASE = rf"(?:{ATOM}|\"(?:[^\"\\\r\n]|\\.)*\")(?:[ \t]+(?:{ATOM}|\"(?:[^\"\\\r\n]|\\.)*\"))*"
MAILBOX = rf"\s*(?:{DOT_ATOM}@{DOT_ATOM}|(?:{PHRASE}\s*)?<{DOT_ATOM}@{DOT_ATOM}>)\s*"
STRICT_LIST = re.compile(rf"{MAILBOX}(?:,{MAILBOX})*")


class AsWritten(Compat32):
    """Fields with every byte of their values."""

    def header_source_parse(self, lines):
        name, value = lines[0].split(":", 1)
        return name, value + "".join(lines[1:])

    def header_fetch_parse(self, name, value):
        return value


def words(value):
    """Between the words of a structured field a bare CR is white space, as the line end that it was meant for (RFC 5322 section 4); in a quoted string it is nothing."""
    return re.sub(r'("(?:[^"\\]|\\.)*"?)|\x01', lambda found: found[1].replace("\x01", "") if found[1] else " ", value, flags=re.S)


class Part(email.message.Message):
    fields = ""

    def get(self, name, failobj=None):
        """Of several fields the last counts; no RFC says which, and Berth takes the last everywhere."""
        found = [value for known, value in self._headers if known.strip().lower() == name.lower()]
        if not found:
            return failobj
        return words(found[-1]) if name.lower() in ("content-type", "content-transfer-encoding") else found[-1]

    def get_boundary(self, failobj=None):
        """Without the line ends of a folded one (RFC 5322 section 2.2.3)."""
        boundary = super().get_boundary(failobj)
        return boundary and re.sub(r"[\r\n\x01]", "", boundary)

    def get_content_type(self):
        """message/delivery-status has no parts for IMAP, and this package asks here whether it has."""
        kind = self.media()
        return "application/octet-stream" if kind == "message/delivery-status" else kind

    def media(self):
        """With comments and white space about, as RFC 2045 section 5.1 allows; a main type alone has the subtype that everybody takes it for."""
        value = self.get("content-type")
        if value is None:
            return self.get_default_type()
        found = TYPE.match(re.sub(r"\([^()]*\)", " ", value))
        if not found:
            return "text/plain"
        main, sub = found[1].lower(), (found[2] or "").lower()
        sub = sub or {"text": "plain", "multipart": "mixed"}.get(main)
        return f"{main}/{sub}" if sub else "text/plain"

    def encoding(self):
        return re.sub(r"\([^()]*\)", " ", self.get("content-transfer-encoding", "7bit")).strip().lower()

    def get_content_maintype(self):
        """What has parts: of message/* only messages (RFC 9051 section 9, media-message), and those only if they are not encoded (RFC 2046 section 5.2.1)."""
        kind = self.media()
        if kind.startswith("message/") and (kind not in ("message/rfc822", "message/global") or self.encoding() in ("base64", "quoted-printable")):
            return "application"
        return kind.split("/")[0]


class FieldLine:
    """A header ends at its blank line (RFC 5322 section 2.1), not at the first line that is no field."""

    last = None

    def match(self, line):
        self.last = line if line.startswith(("\r", "\n")) else None
        return not line.startswith(("\r", "\n"))


LINE = email.feedparser.headerRE = FieldLine()


class Parser(email.feedparser.BytesFeedParser):
    def _parse_headers(self, lines):
        blank = LINE.last is not None
        fields, kept = [], False
        for line in lines:
            if line[0] in " \t":
                if kept:
                    fields.append(line)
                continue
            kept = ":" in line and not line.startswith(":")
            if kept:
                fields.append(line)
        in_multipart = len(self._msgstack) > 1 and self._msgstack[-2].get_content_maintype() == "multipart"
        if not fields and lines and not blank and not in_multipart:
            # A message without a blank line and without any field is text.
            for line in lines[::-1]:
                self._input.unreadline(line)
        self._cur.fields = "".join(fields)
        # This package takes "From x: y" for the line between two messages of an mbox; and RFC 5322 section 4.5 allows white space before the colon (Berth: a bare CR, too).
        fields = [re.sub(r"^([^:\s\x01]+)[ \t\x01]+:", r"\1:", line) for line in fields]
        super()._parse_headers([line for line in fields if not line.startswith("From ")])


def octets(text):
    return text.encode("ascii", "surrogateescape").replace(CR, b"\r")


def readable(text):
    return octets(text).decode("utf-8", "replace")


def pack(data):
    return base64.b64encode(data).decode("ascii")


def decoded(part, body):
    """The content, or how far two programs may differ about it."""
    encoding = part.encoding()
    if encoding in ("7bit", "8bit", "binary"):
        return body, True
    if encoding == "base64":
        try:
            return binascii.a2b_base64(re.sub(rb"[ \t\r\n]", b"", body), strict_mode=True), True
        except binascii.Error:
            return None, False  # damaged: RFC 2045 section 6.8 leaves it to the reader
    if encoding == "quoted-printable":
        sound = all(re.fullmatch(rb"([!-<>-~ \t]|=[0-9A-F]{2})*=?", line) and len(line) < 80 for line in body.split(b"\r\n"))
        # Section 6.7 (3): white space at the end of a line is not the writer's.
        return quopri.decodestring(re.sub(rb"[ \t]+(?=\r\n|$)", b"", body)), sound
    return None, True  # not known


def unfolded(value):
    return None if value is None else octets(re.sub(r"[\r\n\x01]", "", value).strip(" \t\x0b\x0c"))


def text(value):
    return None if value is None else pack(value)


def addresses(part, name):
    values = [value for known, value in part._headers if known.strip().lower() == name]
    joined = ",".join(re.sub(r"[\r\n]", "", value) for value in values)
    if not STRICT_LIST.fullmatch(joined):
        return None
    # Strict above: this reads what nobody reads in two ways.
    return [[pack(octets(name)), pack(octets(address))] for name, address in email.utils.getaddresses([joined])]


def parameters(part):
    value = part.get("content-type")
    if value is None or "*" in value or not STRICT_TYPE.fullmatch(re.sub(r"[\r\n\x01]", "", value)):
        return None
    found = part.get_params(failobj=[("", "")], header="content-type")[1:]
    return [[pack(octets(re.sub(r"[\r\n\x01]", "", word))) for word in pair] for pair in found if pair[0]]


def envelope(part):
    told = {name: text(unfolded(part.get(name))) for name in ("date", "in-reply-to", "message-id")}
    # White space in a subject becomes one space in the end; a bare CR is white space there.
    subject = part.get("subject")
    told["subject"] = text(unfolded(subject and subject.replace("\x01", " ")))
    told.update({name: addresses(part, name) for name in ("from", "sender", "reply-to", "to", "cc", "bcc")})
    return told


def unclear(part):
    """A multipart whose Content-Type is broken, so that programs find boundaries of their own in it."""
    value = re.sub(r"[\r\n\x01]|\([^()]*\)", "", part.get("content-type") or "")
    return part.media().startswith("multipart/") and not STRICT_TYPE.fullmatch(value)


def words_behind(root, raw):
    """Whether more than spaces and tabs stands behind something that begins as a delimiter: words, or a bare CR."""
    boundaries = {part.get_boundary() for part in root.walk() if part.get_boundary()}
    return any(re.search(rb"^--" + re.escape(boundary.encode("ascii", "surrogateescape")) + rb"(--[^\s]|(--)?[ \t]+[^\s]|(--)?[ \t]*\r(?!\n))", raw, re.M) for boundary in boundaries)


def describe(part):
    told = {"type": readable(part.media()), "parameters": parameters(part), "unclear": unclear(part), "fields": pack(octets(part.fields)), "envelope": envelope(part)}
    kind = part.get_content_maintype()
    payload = part._payload
    if isinstance(payload, list):
        told["kind"] = "message" if kind == "message" else "multipart"
        told["children"] = [describe(child) for child in payload]
        return told
    body = octets(payload or "")
    content, sound = decoded(part, body)
    told.update(kind="leaf", body=pack(body), content=text(content), sound=sound, encoding=readable(part.encoding()), children=[])
    return told


def main():
    sys.setrecursionlimit(20000)
    with open(sys.argv[1], "rb") as file:
        while head := file.read(4):
            raw = file.read(struct.unpack(">I", head)[0])
            parser = Parser(Part, policy=AsWritten())
            parser.feed(re.sub(rb"\r(?!\n)", CR, raw))
            root = parser.close()
            print(json.dumps({"words_behind": words_behind(root, raw), **describe(root)}))


main()
