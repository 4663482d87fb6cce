//! The files of one certificate on the shared directory (see the module's map). Every call blocks.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use affinity::{
    HolderId,
    swap::{MountedDirectory, SharedDirectory, Swapped, read_small, swap, write_private},
};
use sha2::{Digest, Sha256};

use super::claim::Claim;
use crate::config::AcmeSection;

/// Everything of ACME, below the shared directory.
const ACME: &str = "acme";
/// Answers to challenges, as names of empty files.
const CHALLENGES: &str = "acme/challenges";
/// A listing that runs through a rename may show neither name: it is made again, this often at most.
const LISTINGS_MAX: u32 = 5;
/// Certificates that are kept: the one in use and the one before.
const CERTIFICATES_KEPT: usize = 2;
/// Letters of the first host name in the folder's name, for people; the hash tells folders apart.
const LABEL_MAX: usize = 100;

/// What a listing showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose turn it is.
    pub claim: Claim,
    /// Numbers of certificates, the newest first.
    certificates: Vec<u64>,
    /// Numbers of accounts, the newest first.
    accounts: Vec<u64>,
}

/// One certificate's files.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    /// Relative to the root.
    name: String,
    directory: MountedDirectory,
}

impl Folder {
    /// Where the certificate of `section` is; nodes with the same authority and names share it.
    pub fn of(root: &Path, section: &AcmeSection) -> io::Result<Folder> {
        let mut names = section.names.clone();
        names.sort();
        names.dedup();
        let hash = Sha256::digest(format!("{}\n{}", section.directory, names.join("\n")));
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let label: String = names.first().map(String::as_str).unwrap_or_default().chars().take(LABEL_MAX).collect();
        Ok(Folder { root: root.to_owned(), name: format!("{ACME}/{label}-{hash}"), directory: MountedDirectory::new(root)? })
    }

    /// What is there; `None` before the first node made the folder.
    pub fn look(&self) -> io::Result<Option<Seen>> {
        for _ in 0..LISTINGS_MAX {
            let listing = match self.directory.list(&self.name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // A missing name is remembered for a minute, unless the folder above is looked at.
                    match self.directory.refresh(ACME).and_then(|()| self.directory.list(&self.name)) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                        listed => listed?,
                    }
                }
                listed => listed?,
            };
            let numbers = |ending: &str| {
                let mut found: Vec<u64> = listing.iter().filter_map(|name| name.strip_suffix(ending)?.parse().ok()).collect();
                found.sort_unstable_by(|a, b| b.cmp(a));
                found
            };
            if let Some(claim) = listing.iter().filter_map(|name| name.parse::<Claim>().ok()).max_by_key(|claim| claim.n) {
                return Ok(Some(Seen { claim, certificates: numbers(".pem"), accounts: numbers(".account") }));
            }
        }
        let text = format!("{} has no claim: if it was removed by hand, remove the whole folder", self.root.join(&self.name).display());
        Err(io::Error::other(text))
    }

    /// Makes the folder, unless another node was faster.
    pub fn make(&self, me: &HolderId) -> io::Result<()> {
        let made = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        made(self.directory.create_folder(ACME))?;
        made(self.directory.create_folder(CHALLENGES))?;
        let prepared = format!("{ACME}/~{me}");
        let claim = format!("{prepared}/{}", Claim::NEW);
        made(self.directory.create_folder(&prepared))?;
        made(self.directory.create(&claim))?;
        match self.directory.rename(&prepared, &self.name) {
            // Resent after it had worked, or another node was first: a look tells.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                self.directory.remove(&claim)?;
                self.directory.remove_folder(&prepared)?;
            }
            done => done?,
        }
        self.directory.sync(ACME)
    }

    /// Changes the claim; of several who try, one wins.
    pub fn swap(&self, old: &Claim, new: &Claim) -> io::Result<Swapped> {
        swap(&self.directory, &format!("{}/{old}", self.name), &format!("{}/{new}", self.name))
    }

    /// The file of the newest certificate.
    pub fn certificate(&self, seen: &Seen) -> Option<PathBuf> {
        seen.certificates.first().map(|n| self.path(&format!("{n}.pem")))
    }

    /// The newest account.
    pub fn account(&self, seen: &Seen) -> io::Result<Option<Vec<u8>>> {
        seen.accounts.first().map(|n| read_small(&self.path(&format!("{n}.account")))).transpose()
    }

    /// Keeps a certificate, with its key, under the number of the claim that it was ordered under.
    pub fn keep_certificate(&self, n: u64, pem: &[u8]) -> io::Result<()> {
        self.keep(&format!("{n}.pem"), pem)
    }

    /// Keeps an account.
    pub fn keep_account(&self, n: u64, credentials: &[u8]) -> io::Result<()> {
        self.keep(&format!("{n}.account"), credentials)
    }

    /// Nobody sees half of a file: it gets its name when it is whole.
    fn keep(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = format!("{}/~{name}", self.name);
        write_private(&self.root.join(&unfinished), content)?;
        match swap(&self.directory, &unfinished, &format!("{}/{name}", self.name))? {
            Swapped::Won => self.directory.sync(&self.name),
            Swapped::Lost => Err(io::Error::other(format!("{unfinished} was removed while it was written"))),
        }
    }

    /// Removes what newer files replaced, and what other holders of the claim left unfinished. For the holder of the claim.
    pub fn tidy(&self) -> io::Result<()> {
        let Some(seen) = self.look()? else { return Ok(()) };
        let old = seen.certificates.iter().skip(CERTIFICATES_KEPT).map(|n| format!("{n}.pem"));
        let old = old.chain(seen.accounts.iter().skip(1).map(|n| format!("{n}.account")));
        let unfinished = self.directory.list(&self.name)?.into_iter().filter(|name| name.starts_with('~'));
        for name in old.chain(unfinished) {
            self.directory.remove(&format!("{}/{name}", self.name))?;
        }
        Ok(())
    }

    /// Lets every node answer a challenge with `answer`, a key authorization (RFC 8555 §8.1).
    pub fn show(&self, answer: &str) -> io::Result<()> {
        match self.directory.create(&format!("{CHALLENGES}/{answer}")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done,
        }
    }

    /// Takes back all answers of the account with this thumbprint: also those of orders whose node is gone.
    pub fn take_back(&self, thumbprint: &str) -> io::Result<()> {
        for name in self.directory.list(CHALLENGES)?.iter().filter(|name| name.rsplit_once('.').is_some_and(|(_, of)| of == thumbprint)) {
            self.directory.remove(&format!("{CHALLENGES}/{name}"))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(&self.name).join(name)
    }
}

/// Every answer that is shown at present.
pub fn answers(root: &Path) -> io::Result<Vec<String>> {
    match MountedDirectory::new(root)?.list(CHALLENGES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Whether others than its owner can read a file.
pub fn is_open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn holder(n: u32) -> HolderId {
        format!("node{n},00000000000000aa").parse().unwrap()
    }

    fn folder(root: &Path, names: &[&str]) -> Folder {
        let names = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        Folder::of(root, &toml::from_str(&format!("names = [{names}]")).unwrap()).unwrap()
    }

    #[test]
    fn of_many_nodes_one_takes_the_claim() {
        let root = tempfile::tempdir().unwrap();
        let start = Barrier::new(8);
        let won = std::thread::scope(|scope| {
            let tries: Vec<_> = (1..=8)
                .map(|n| {
                    let (start, root) = (&start, root.path());
                    scope.spawn(move || {
                        let folder = folder(root, &["mail.example.org"]);
                        start.wait();
                        folder.make(&holder(n)).unwrap();
                        let seen = folder.look().unwrap().unwrap();
                        // Whoever comes late sees that it is held; whoever is in time tries to take it.
                        !seen.claim.held && folder.swap(&seen.claim, &seen.claim.taken(&holder(n))).unwrap() == Swapped::Won
                    })
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
        let left: Vec<_> = fs::read_dir(root.path().join(ACME)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "challenges and one folder: {left:?}");
    }

    #[test]
    fn what_is_secret_is_readable_by_its_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), &["mail.example.org"]);
        assert_eq!(folder.look().unwrap(), None);
        folder.make(&holder(1)).unwrap();
        folder.keep_certificate(1, b"chain and key").unwrap();
        folder.keep_account(1, b"account").unwrap();
        let seen = folder.look().unwrap().unwrap();
        let file = folder.certificate(&seen).unwrap();
        assert!(!is_open_to_others(&file).unwrap() && !is_open_to_others(&folder.path("1.account")).unwrap());
        assert_eq!(folder.account(&seen).unwrap().unwrap(), b"account");
    }

    #[test]
    fn the_newest_file_counts_and_old_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), &["mail.example.org"]);
        folder.make(&holder(1)).unwrap();
        for n in [2, 9, 10, 11] {
            folder.keep_certificate(n, b"x").unwrap();
            folder.keep_account(n, n.to_string().as_bytes()).unwrap();
        }
        fs::write(folder.path("~12.pem"), "half").unwrap();
        let seen = folder.look().unwrap().unwrap();
        assert!(folder.certificate(&seen).unwrap().ends_with("11.pem"), "{seen:?}");
        folder.tidy().unwrap();
        let seen = folder.look().unwrap().unwrap();
        assert_eq!((&seen.certificates[..], &seen.accounts[..]), (&[11, 10][..], &[11][..]));
        assert!(!folder.path("~12.pem").exists());
    }

    #[test]
    fn the_same_names_in_any_order_are_one_certificate() {
        let root = tempfile::tempdir().unwrap();
        let one = folder(root.path(), &["a.example.org", "b.example.org"]);
        assert_eq!(one.name, folder(root.path(), &["b.example.org", "a.example.org", "b.example.org"]).name);
        assert_ne!(one.name, folder(root.path(), &["a.example.org"]).name);
        assert!(one.name.starts_with("acme/a.example.org-"));
        assert!(folder(root.path(), &[&"long.".repeat(50)]).name.len() < 200);
    }

    #[test]
    fn answers_are_shown_and_taken_back_by_account() {
        let root = tempfile::tempdir().unwrap();
        let folder = folder(root.path(), &["mail.example.org"]);
        assert_eq!(answers(root.path()).unwrap(), Vec::<String>::new());
        folder.make(&holder(1)).unwrap();
        for answer in ["one.mine", "two.mine", "three.theirs", "one.mine"] {
            folder.show(answer).unwrap();
        }
        folder.take_back("mine").unwrap();
        assert_eq!(answers(root.path()).unwrap(), ["three.theirs"]);
    }
}
