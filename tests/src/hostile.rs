//! Clients that mean harm: thousands of connections, each with one way of doing it, from many addresses. An honest client beside them is what counts.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use flate2::{Compress, Compression, FlushCompress};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    clients::{imap::Imap, lmtp::Lmtp},
    site::{Doors, User},
    wait::{self, Deadline},
};

/// After so many tries in a row a mail program says that the server is not there.
const LOGIN_TRIES: usize = 5;

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
    /// One wrong password after the other, for names that nobody has: each takes a hash all the same.
    WrongPasswords,
    /// A line that never ends.
    EndlessLine,
    /// Logs in, switches compression on, sends a line without end: a thousand times as long as what is sent.
    DeflateBomb,
    /// The same with commands, whose answers nobody reads.
    DeflateFlood,
    /// Delivers a message byte by byte.
    SlowDelivery,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::HalfHandshake,
        Kind::Silent,
        Kind::SlowWriter,
        Kind::SlowReader,
        Kind::SlowFetcher,
        Kind::Flood,
        Kind::WrongPasswords,
        Kind::EndlessLine,
        Kind::DeflateBomb,
        Kind::DeflateFlood,
        Kind::SlowDelivery,
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
    /// `count` connections to a node, of all kinds as the seed has it; `accomplices` can log in. Where one is closed another follows.
    pub fn start(doors: &Doors, accomplices: &[User], count: usize, seed: u64) -> Result<Attack> {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut kinds: Vec<Kind> = Kind::ALL.into_iter().cycle().take(count).collect();
        kinds.shuffle(&mut StdRng::seed_from_u64(seed));
        let target = Arc::new(Target { doors: doors.clone(), accomplices: accomplices.to_vec(), seed });
        let (stopped, counting) = (stop.clone(), counts.clone());
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                for (number, kind) in kinds.into_iter().enumerate() {
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

struct Target {
    doors: Doors,
    accomplices: Vec<User>,
    seed: u64,
}

async fn keep_at_it(number: usize, kind: Kind, target: Arc<Target>, counts: Arc<Counts>) {
    let mut chance = StdRng::seed_from_u64(target.seed.wrapping_add(number as u64));
    let door = match kind {
        Kind::HalfHandshake => &target.doors.imaps,
        Kind::SlowDelivery => &target.doors.lmtp,
        _ => &target.doors.imap,
    };
    let Some(accomplice) = target.accomplices.get(number % target.accomplices.len().max(1)) else { return };
    loop {
        match connect(number, door).await {
            Ok(stream) => {
                counts.made.fetch_add(1, Ordering::Relaxed);
                counts.open.fetch_add(1, Ordering::Relaxed);
                // However it ends: being thrown out is what is expected.
                drop(attack(kind, stream, accomplice, &mut chance).await);
                counts.open.fetch_sub(1, Ordering::Relaxed);
            }
            Err(_) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(REST + Duration::from_millis(chance.random_range(0..500))).await;
    }
}

/// Connects from an address of its own on loopback: 127.0.1.1 and up.
async fn connect(number: usize, to: &str) -> Result<TcpStream> {
    let host = u32::from(Ipv4Addr::new(127, 0, 1, 1)) + u32::try_from(number / CONNECTIONS_PER_ADDRESS)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(host), 0)))?;
    timeout(Duration::from_secs(10), socket.connect(to.parse()?)).await.context("no answer")?.context("refused")
}

async fn attack(kind: Kind, mut stream: TcpStream, accomplice: &User, chance: &mut StdRng) -> Result<()> {
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
                stream.write_all(format!("a LOGIN guest{} wrong{}\r\n", chance.random::<u32>(), chance.random::<u32>()).as_bytes()).await?;
                anyhow::ensure!(stream.read(&mut answers).await? > 0, "closed");
            }
        }
        Kind::EndlessLine => {
            let line = vec![b'x'; 64 * 1024];
            loop {
                stream.write_all(&line).await?;
            }
        }
        Kind::DeflateBomb => inflating(stream, accomplice, &BOMB).await,
        Kind::DeflateFlood => inflating(stream, accomplice, &FLOOD).await,
        Kind::SlowDelivery => {
            let transaction = format!("LHLO hostile.example\r\nMAIL FROM:<>\r\nRCPT TO:<{}>\r\nDATA\r\n", accomplice.address());
            stream.write_all(transaction.as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(DRIP).await;
            }
        }
    }
}

static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| compressed(&vec![b'x'; 4 << 20]));
static FLOOD: LazyLock<Vec<u8>> = LazyLock::new(|| compressed(&b"a NOOP\r\n".repeat(1 << 19)));

/// What a fresh compressor makes refers to nothing before it, so it may be sent again and again.
fn compressed(piece: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(piece.len() / 10);
    let done = Compress::new(Compression::best(), false).compress_vec(piece, &mut compressed, FlushCompress::Sync);
    if let Err(error) = done {
        eprintln!("no bomb: {error}");
    }
    compressed
}

/// Logs in, switches compression on, and sends `compressed` for ever; reads nothing after that.
async fn inflating(mut stream: TcpStream, accomplice: &User, compressed: &[u8]) -> Result<()> {
    let login = format!("a LOGIN {} \"{}\"\r\n", accomplice.name, accomplice.password);
    stream.write_all(login.as_bytes()).await?;
    answered(&mut stream, b"\na OK ").await?;
    stream.write_all(b"b COMPRESS DEFLATE\r\n").await?;
    answered(&mut stream, b"b OK ").await?;
    loop {
        stream.write_all(compressed).await?;
    }
}

async fn answered(stream: &mut TcpStream, words: &[u8]) -> Result<()> {
    let mut said = Vec::new();
    while !said.windows(words.len()).any(|window| window == words) {
        anyhow::ensure!(said.len() < 16 * 1024 && stream.read_buf(&mut said).await? > 0, "refused");
    }
    Ok(())
}

async fn until_closed(stream: &mut TcpStream) -> Result<()> {
    let mut rest = [0; 256];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// What honest clients did, and how long each step took.
#[derive(Debug, Default)]
pub struct Honest {
    /// From connect to the answer of LOGIN.
    pub logins: Vec<Duration>,
    /// SELECT, and FETCH of everything.
    pub fetches: Vec<Duration>,
    /// From connect to the last 250.
    pub deliveries: Vec<Duration>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Honest {
    /// Everybody in turn logs in, fetches and gets a message, until `lasting` is over; `look` is called after each.
    pub fn work(doors: &Doors, users: &[User], lasting: Duration, mut look: impl FnMut() -> Result<()>) -> Result<Honest> {
        let deadline = Deadline::after(lasting);
        let mut honest = Honest::default();
        for user in users.iter().cycle() {
            if deadline.passed() {
                break;
            }
            if let Err(error) = honest.visit(doors, user) {
                honest.failures.push(format!("{}: {error:#}", user.name));
            }
            look()?;
            thread::sleep(Duration::from_millis(20));
        }
        [&mut honest.logins, &mut honest.fetches, &mut honest.deliveries].into_iter().for_each(|times| times.sort_unstable());
        Ok(honest)
    }

    fn visit(&mut self, doors: &Doors, user: &User) -> Result<()> {
        let started = wait::now();
        let mut lmtp = Lmtp::connect(&doors.lmtp).context("LMTP")?;
        lmtp.deliver_ok("ada@tests.example", &[&user.address()], b"Subject: small\r\n\r\nsmall\r\n").context("delivery")?;
        self.deliveries.push(started.elapsed());
        lmtp.quit().context("QUIT")?;
        let started = wait::now();
        let mut imap = log_in(doors, user).context("login")?;
        self.logins.push(started.elapsed());
        let started = wait::now();
        imap.select("INBOX").context("SELECT")?;
        imap.command("FETCH 1:* (FLAGS BODY.PEEK[])").and_then(|reply| reply.ok().map(drop)).context("FETCH")?;
        self.fetches.push(started.elapsed());
        // The mailbox stays small.
        imap.command("STORE 1:* +FLAGS.SILENT (\\Deleted)")?.ok().context("STORE")?;
        imap.command("EXPUNGE")?.ok().context("EXPUNGE")?;
        imap.logout().context("LOGOUT")
    }

    /// Each step with its name and times, sorted.
    pub fn steps(&self) -> [(&'static str, &[Duration]); 3] {
        [("login", &self.logins), ("SELECT and FETCH", &self.fetches), ("delivery", &self.deliveries)]
    }
}

/// As mail programs do: who had to make room for others before the password was read connects again. The time of all tries counts.
fn log_in(doors: &Doors, user: &User) -> Result<Imap> {
    let mut tries = 1;
    loop {
        match Imap::login(&doors.imap, &user.name, &user.password) {
            Err(_) if tries < LOGIN_TRIES => tries += 1,
            outcome => return outcome,
        }
    }
}

/// The time within which `percent` of them were done.
pub fn within(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
