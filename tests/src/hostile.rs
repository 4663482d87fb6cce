//! Clients that mean harm: thousands of connections, each with one way of doing it, from many addresses. An honest client beside them is what counts.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    clients::imap::Imap,
    site::{Doors, User},
    wait::{self, Deadline},
};

/// Connections from one address: below `limits.connections_per_address`, so that what is met is not that limit alone.
const CONNECTIONS_PER_ADDRESS: usize = 250;
/// How long one who was thrown out waits before the next try.
const REST: Duration = Duration::from_secs(2);
/// Between two bytes of a slow writer.
const DRIP: Duration = Duration::from_millis(500);

/// What one connection does. A new kind of attack is a new line here and an arm in [`attack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connects to a TLS door and sends half of a hello.
    HalfHandshake,
    /// Connects and says nothing.
    Silent,
    /// A command, byte by byte.
    SlowWriter,
    /// Asks again and again, reads no answer.
    SlowReader,
    /// Logs in, has large messages sent, reads none.
    SlowFetcher,
    /// Commands without a pause, answers read.
    Flood,
    /// One wrong password after the other.
    WrongPasswords,
    /// A line that never ends.
    EndlessLine,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::HalfHandshake,
        Kind::Silent,
        Kind::SlowWriter,
        Kind::SlowReader,
        Kind::SlowFetcher,
        Kind::Flood,
        Kind::WrongPasswords,
        Kind::EndlessLine,
    ];
}

/// A running attack; it ends with this value.
#[derive(Debug)]
pub struct Attack {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What came of it so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that are open.
    pub open: AtomicUsize,
    /// Connections that were made.
    pub made: AtomicUsize,
    /// Connects that failed.
    pub failed: AtomicUsize,
}

impl Attack {
    /// `count` connections to a node, of all kinds; `accomplice` can log in. Where one is closed another follows.
    pub fn start(doors: &Doors, accomplice: &User, count: usize) -> Result<Attack> {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = Arc::new((doors.clone(), accomplice.clone()));
        let (stopped, counting) = (stop.clone(), counts.clone());
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                for (number, kind) in (0..count).zip(Kind::ALL.into_iter().cycle()) {
                    tokio::spawn(keep_at_it(number, kind, target.clone(), counting.clone()));
                }
                while !stopped.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(50)).await;
                }
            });
        });
        Ok(Attack { stop, counts, thread: Some(thread) })
    }

    /// What came of it so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits until so many connections were made.
    pub fn wait_made(&self, count: usize, limit: Duration) -> Result<()> {
        wait::until(&format!("{count} hostile connections"), limit, || {
            let made = self.counts.made.load(Ordering::Relaxed);
            anyhow::ensure!(made >= count, "only {made}, {} failed", self.counts.failed.load(Ordering::Relaxed));
            Ok(())
        })
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the attackers' thread panicked");
        }
    }
}

async fn keep_at_it(number: usize, kind: Kind, target: Arc<(Doors, User)>, counts: Arc<Counts>) {
    let (doors, accomplice) = &*target;
    loop {
        match connect(number, if kind == Kind::HalfHandshake { &doors.imaps } else { &doors.imap }).await {
            Ok(stream) => {
                counts.made.fetch_add(1, Ordering::Relaxed);
                counts.open.fetch_add(1, Ordering::Relaxed);
                // However it ends: being thrown out is what is expected.
                drop(attack(kind, stream, accomplice).await);
                counts.open.fetch_sub(1, Ordering::Relaxed);
            }
            Err(_) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(REST).await;
    }
}

/// Connects from an address of its own on loopback: 127.0.1.1 and up.
async fn connect(number: usize, to: &str) -> Result<TcpStream> {
    let host = u32::from(Ipv4Addr::new(127, 0, 1, 1)) + u32::try_from(number / CONNECTIONS_PER_ADDRESS)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(host), 0)))?;
    timeout(Duration::from_secs(10), socket.connect(to.parse()?)).await.context("no answer")?.context("refused")
}

async fn attack(kind: Kind, mut stream: TcpStream, accomplice: &User) -> Result<()> {
    match kind {
        Kind::HalfHandshake => {
            // A record header that announces more than follows.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await?;
            until_closed(&mut stream).await
        }
        Kind::Silent => until_closed(&mut stream).await,
        Kind::SlowWriter => loop {
            for byte in b"a LOGIN {100}\r\n" {
                stream.write_all(&[*byte]).await?;
                sleep(DRIP).await;
            }
        },
        Kind::SlowReader => {
            let questions = b"a CAPABILITY\r\n".repeat(100);
            loop {
                stream.write_all(&questions).await?;
            }
        }
        Kind::SlowFetcher => {
            let login = format!("a LOGIN {} \"{}\"\r\nb SELECT INBOX\r\n", accomplice.name, accomplice.password);
            stream.write_all(login.as_bytes()).await?;
            let questions = b"c FETCH 1:* BODY.PEEK[]\r\n".repeat(100);
            loop {
                stream.write_all(&questions).await?;
            }
        }
        Kind::Flood => {
            let (mut read, mut write) = stream.split();
            let commands = b"a NOOP\r\n".repeat(100);
            let sending = async {
                loop {
                    write.write_all(&commands).await?;
                }
            };
            let mut answers = vec![0; 16 * 1024];
            let reading = async {
                while read.read(&mut answers).await? > 0 {}
                Err::<(), _>(anyhow!("closed"))
            };
            tokio::select! {
                sent = sending => sent,
                read = reading => read,
            }
        }
        Kind::WrongPasswords => {
            let mut answers = [0; 1024];
            loop {
                stream.write_all(format!("a LOGIN {} wrong{}\r\n", accomplice.name, rand::random::<u32>()).as_bytes()).await?;
                anyhow::ensure!(stream.read(&mut answers).await? > 0, "closed");
            }
        }
        Kind::EndlessLine => {
            let line = vec![b'x'; 64 * 1024];
            loop {
                stream.write_all(&line).await?;
            }
        }
    }
}

async fn until_closed(stream: &mut TcpStream) -> Result<()> {
    let mut rest = [0; 256];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// How long each visit of an honest client took, from connect to the answer of LOGOUT: sorted.
pub fn honest_visits(doors: &Doors, user: &User, lasting: Duration, mut look: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let deadline = Deadline::after(lasting);
    let mut took = Vec::new();
    while !deadline.passed() {
        let started = wait::now();
        let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
        imap.select("INBOX")?;
        imap.command("FETCH 1:* (FLAGS BODY.PEEK[])")?.ok()?;
        imap.logout()?;
        took.push(started.elapsed());
        look()?;
        thread::sleep(Duration::from_millis(20));
    }
    took.sort_unstable();
    Ok(took)
}
