//! How large an index gets.

use affinity::Handover;
use index::FlagSet;

use super::*;

/// A third each: a short answer by a person, a shop's notification, and mail of a list with an attachment.
fn usual_message(number: usize) -> Vec<u8> {
    match number % 3 {
        0 => answer(number),
        1 => notification(number),
        _ => list_mail(number),
    }
}

fn answer(number: usize) -> Vec<u8> {
    format!(
        "Return-Path: <grace@example.net>\r\nReceived: from mail.example.net by mx.example.org with ESMTPS; Sat, 22 Nov 2026 03:00:00 +0000\r\n\
         Message-ID: <{number}.4711@mail.example.net>\r\nIn-Reply-To: <{0}.42@mail.example.org>\r\nReferences: <{0}.42@mail.example.org>\r\n\
         Date: Sat, 22 Nov 2026 03:00:00 +0000\r\nFrom: Grace Hopper <grace@example.net>\r\nTo: Ada Lovelace <ada@example.org>\r\n\
         Subject: Re: lunch on day {number}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nYes.\r\n",
        number + 1
    )
    .into_bytes()
}

fn notification(number: usize) -> Vec<u8> {
    format!(
        "Return-Path: <bounce-{number}@shop.example>\r\nReceived: from out.shop.example by mx.example.org with ESMTPS; Sat, 22 Nov 2026 03:00:00 +0000\r\n\
         Message-ID: <order-{number}@shop.example>\r\nDate: Sat, 22 Nov 2026 03:00:00 +0000\r\nFrom: The Shop <orders@shop.example>\r\n\
         To: ada@example.org\r\nSubject: Your order {number} is on its way\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=\"b{number}\"\r\n\r\n--b{number}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\nHello\r\n--b{number}\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>Hello</p>\r\n--b{number}--\r\n"
    )
    .into_bytes()
}

/// Two dozen header fields, text, HTML and an attachment.
fn list_mail(number: usize) -> Vec<u8> {
    let trace: String = (0..4)
        .map(|hop| format!("Received: from mx{hop}.example.org (mx{hop}.example.org [192.0.2.{hop}]) by mail.example.net with ESMTPS id {number:x}{hop:x}abcdef;\r\n\tSat, 22 Nov 2026 03:0{hop}:00 +0000\r\n"))
        .collect();
    format!(
        "Return-Path: <bounces+{number}@lists.example.org>\r\n{trace}DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=2026; h=from:to:subject;\r\n\tbh={0};\r\n\tb={0}{0}{0}\r\n\
         Message-ID: <{number}.20261122030000.4711@lists.example.org>\r\nIn-Reply-To: <{1}.20261121.42@mail.example.net>\r\n\
         References: <1.20261120.17@mail.example.net> <2.20261120.18@mail.example.org>\r\n\t<{1}.20261121.42@mail.example.net>\r\n\
         Date: Sat, 22 Nov 2026 03:00:00 +0000\r\nFrom: =?utf-8?q?Ada_L=C3=B6velace?= <ada.loevelace@lists.example.org>\r\nReply-To: Announcements <announce@lists.example.org>\r\n\
         To: Grace Hopper <grace@example.net>, \"Turing, Alan\" <alan.turing@example.net>\r\nCc: announce@lists.example.org\r\n\
         Subject: [announce] Minutes of meeting {number}: what was decided, and who does it until when\r\nList-Id: Announcements <announce.lists.example.org>\r\n\
         List-Unsubscribe: <https://lists.example.org/unsubscribe/{number}>\r\nX-Mailer: Example Mailer 4.2 (build 1234)\r\nX-Spam-Status: No, score=-1.9\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"=_outer_{number}\"\r\n\r\n--=_outer_{number}\r\nContent-Type: multipart/alternative; boundary=\"=_inner_{number}\"\r\n\r\n\
         --=_inner_{number}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHello\r\n--=_inner_{number}\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>Hello</p>\r\n--=_inner_{number}--\r\n--=_outer_{number}\r\n\
         Content-Type: application/pdf; name=\"minutes-{number}.pdf\"\r\nContent-Disposition: attachment; filename=\"minutes-{number}.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         JVBERi0xLjQK\r\n--=_outer_{number}--\r\n",
        "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v=",
        number + 1,
    )
    .into_bytes()
}

#[test]
fn an_index_takes_at_most_1500_bytes_a_message() {
    const MESSAGES: usize = 600;
    let mut user = User::new();
    let size = |user: &User| std::fs::metadata(user.index().join("1/index.db")).unwrap().len();
    user.open(Handover::Clean).close().unwrap();
    let empty = size(&user);
    let held = user.open(Handover::Clean);
    let inbox = held.inbox();
    for number in 0..MESSAGES {
        let mut staged = inbox.stage(0).unwrap();
        staged.write(&usual_message(number)).unwrap();
        inbox.append(staged, FlagSet::EMPTY, None).unwrap();
    }
    let all: Vec<Uid> = inbox.read().uids().to_vec();
    assert!(inbox.rendered(&all).unwrap().iter().all(Option::is_some));
    held.run_background_work().unwrap();
    held.close().unwrap();
    let each = (size(&user) - empty) / MESSAGES as u64;
    eprintln!("{each} bytes a message, {empty} without any");
    assert!((500..=1500).contains(&each), "{each} bytes a message");
}
