//! Sockets to listen on: TCP, UNIX socket files, and those that systemd hands over (sd_listen_fds(3)).
//!
//! Invariants, each with the test that guards it:
//! - a socket file never lets anybody in whom its mode keeps out, not even while it is made (`a_socket_file_has_its_mode_before_it_has_its_name`)
//! - a file left behind is replaced, one that somebody listens on or that is no socket is not (`only_a_socket_left_behind_is_replaced`)

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
        net::UnixStream as Probe,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::listener::{BACKLOG, bind};
use crate::config::{Address, LmtpSection};

/// Something that listens.
#[derive(Debug)]
pub enum Socket {
    /// An IP address.
    Tcp(TcpListener),
    /// A UNIX socket; its file goes with it if it is ours.
    Unix(UnixListener, Option<SocketFile>),
}

/// Somebody who connected.
#[derive(Debug)]
pub enum Accepted {
    /// From an address.
    Tcp(TcpStream, SocketAddr),
    /// From this host.
    Unix(UnixStream),
}

impl Socket {
    /// Waits for the next one. Safe to cancel.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Socket::Tcp(listener) => listener.accept().await.map(|(stream, address)| Accepted::Tcp(stream, address)),
            Socket::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
    /// For the log.
    pub fn name(&self) -> String {
        match self {
            Socket::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Socket::Unix(_, Some(file)) => file.path.display().to_string(),
            Socket::Unix(listener, None) => {
                let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
                path.map_or_else(|| "a socket of systemd's".to_owned(), |path| path.display().to_string())
            }
        }
    }
}

/// A socket file of ours; removed with this value, unless another took its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.inode) {
            // The next start replaces what is left.
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Who may connect to a UNIX socket.
#[derive(Debug, Clone, Copy)]
pub struct Permissions {
    mode: u32,
    user: Option<u32>,
    group: Option<u32>,
}

impl Permissions {
    /// For the node's own user alone.
    pub const PRIVATE: Permissions = Permissions { mode: 0o600, user: None, group: None };

    /// As the settings say.
    pub fn of(settings: &LmtpSection) -> anyhow::Result<Permissions> {
        let number = |name: &Option<String>, file: &str, key: &str| -> anyhow::Result<Option<u32>> {
            let Some(name) = name else { return Ok(None) };
            if let Ok(number) = name.parse() {
                return Ok(Some(number));
            }
            let list = fs::read_to_string(file).with_context(|| format!("can't read {file}"))?;
            let found = id_of(&list, name).with_context(|| format!("{key}: {name:?} is not in {file}: write its number"))?;
            Ok(Some(found))
        };
        Ok(Permissions {
            mode: settings.mode().context("lmtp.socket_mode is no mode")?,
            user: number(&settings.socket_user, "/etc/passwd", "lmtp.socket_user")?,
            group: number(&settings.socket_group, "/etc/group", "lmtp.socket_group")?,
        })
    }
}

/// The number of a name in passwd(5) or group(5).
fn id_of(list: &str, name: &str) -> Option<u32> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Listens at a path. A file that another process left behind is replaced in one step.
pub fn bind_unix(path: &Path, permissions: Permissions) -> anyhow::Result<(UnixListener, SocketFile)> {
    listen_at(path, permissions).with_context(|| format!("can't listen on {}", path.display()))
}

fn listen_at(path: &Path, permissions: Permissions) -> anyhow::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(there) if !there.file_type().is_socket() => bail!("it is there and is no socket: remove it, or listen elsewhere"),
        Ok(_) => match Probe::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => bail!("another process listens there"),
            Err(error) => return Err(anyhow::Error::from(error).context("whether another process listens there can't be told")),
        },
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().context("it has no file name")?);
    name.push(format!(".{}", std::process::id()));
    let unfinished = path.with_file_name(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(&unfinished)?)?;
    let finish = || -> io::Result<(u64, u64)> {
        // Nobody can connect before `listen`, and by then the mode is what it is to be.
        if permissions.user.is_some() || permissions.group.is_some() {
            chown(&unfinished, permissions.user, permissions.group)?;
        }
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(permissions.mode))?;
        socket.listen(BACKLOG)?;
        let made = fs::symlink_metadata(&unfinished)?;
        #[expect(clippy::disallowed_methods, reason = "a socket file of this host alone, neither state nor mail")]
        fs::rename(&unfinished, path)?;
        Ok((made.dev(), made.ino()))
    };
    let inode = finish().inspect_err(|_| {
        fs::remove_file(&unfinished).ok();
    })?;
    let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))?;
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

/// What systemd handed over, by name.
pub struct Activated {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Activated {
    /// Reads the environment; nothing where this process was not started for a socket.
    pub fn from_environment() -> Activated {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Activated { sockets: ListenFd::from_env(), names: names.split(':').map(str::to_owned).collect() }
    }

    /// Every socket of this name.
    fn take(&mut self, name: &str) -> anyhow::Result<Vec<Socket>> {
        let wrong = || format!("a socket named {name} of systemd's can't be listened on: it must be a stream socket (ListenStream=)");
        let mut found = Vec::new();
        let count = self.sockets.len();
        let named: Vec<usize> = (0..count).filter(|index| self.names.get(*index).is_some_and(|known| known == name)).collect();
        for index in named {
            let tcp = self.sockets.take_tcp_listener(index);
            let socket = match tcp {
                Ok(Some(listener)) => {
                    listener.set_nonblocking(true).with_context(wrong)?;
                    Socket::Tcp(TcpListener::from_std(listener).with_context(wrong)?)
                }
                Ok(None) => continue,
                Err(_) => {
                    let listener = self.sockets.take_unix_listener(index).with_context(wrong)?.with_context(wrong)?;
                    listener.set_nonblocking(true).with_context(wrong)?;
                    Socket::Unix(UnixListener::from_std(listener).with_context(wrong)?, None)
                }
            };
            found.push(socket);
        }
        if found.is_empty() {
            bail!(
                "systemd handed over no socket named {name:?} ({}): set FileDescriptorName={name} in the socket unit, and start that unit",
                if count == 0 { "none at all".to_owned() } else { format!("but {}", self.names.join(", ")) }
            );
        }
        Ok(found)
    }
}

/// Listens on `address`.
pub fn open(address: &Address, settings: &LmtpSection, activated: &mut Activated) -> anyhow::Result<Vec<Socket>> {
    Ok(match address {
        Address::Tcp(address) => vec![Socket::Tcp(bind(*address)?)],
        Address::Unix(path) => {
            let (listener, file) = bind_unix(path, Permissions::of(settings)?)?;
            vec![Socket::Unix(listener, Some(file))]
        }
        Address::Systemd(name) => activated.take(name)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_file_has_its_mode_before_it_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lmtp");
        let socket = bind_unix(&path, Permissions::PRIVATE).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), socket.0.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "its file goes with it");
        // Owners that can't be given are refused before anybody can connect.
        let beyond = Permissions { group: Some(u32::MAX - 7), ..Permissions::PRIVATE };
        if !rustix::process::geteuid().is_root() {
            assert!(bind_unix(&path, beyond).is_err());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_a_socket_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lmtp");
        // Left behind: the listener is gone, its file is not.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = bind_unix(&path, Permissions::PRIVATE).unwrap();
        let error = format!("{:#}", bind_unix(&path, Permissions::PRIVATE).unwrap_err());
        assert!(error.ends_with("another process listens there"), "{error}");
        assert!(Probe::connect(&path).is_ok(), "the first one goes on");
        drop(socket);
        fs::write(&path, "precious").unwrap();
        let error = format!("{:#}", bind_unix(&path, Permissions::PRIVATE).unwrap_err());
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn names_of_users_and_groups_are_found() {
        let list = "root:x:0:0:root:/root:/bin/sh\npostfix:x:101:102::/var/spool/postfix:/usr/sbin/nologin\nbroken\n";
        assert_eq!(
            [id_of(list, "postfix"), id_of(list, "root"), id_of(list, "post"), id_of(list, "broken")],
            [Some(101), Some(0), None, None]
        );
    }
}
