//! Real mail, and mail that broke other programs: what the MIME parser's crate and Python's own tests bring along.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tests::{Context, Result, clients::python};

/// Folders deep that are looked into.
const DEPTH: usize = 6;
/// Larger ones are not what is looked for here.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Every message that is found on this machine. The crate's are there wherever Berth was built from the registry; Python's tests are
/// in a package of their own (Debian: libpython3-testsuite).
pub fn messages() -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")));
    for registry in home.iter().flat_map(|home| entries(&home.join("registry/src"))) {
        for package in entries(&registry).into_iter().filter(|path| path.display().to_string().contains("/mail-parser-1")) {
            collect(&package.join("resources"), "eml", DEPTH, &mut messages)?;
        }
    }
    let found = python::run(
        "import importlib.util as u, os\ntry: print(os.path.dirname(u.find_spec('test.test_email').origin))\nexcept (ImportError, AttributeError): pass",
        &[],
    )?;
    let folder = String::from_utf8(found)?;
    if !folder.trim().is_empty() {
        collect(&Path::new(folder.trim()).join("data"), "txt", 1, &mut messages)?;
    }
    Ok(messages)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn collect(folder: &Path, extension: &str, depth: usize, messages: &mut Vec<Vec<u8>>) -> Result<()> {
    for path in entries(folder) {
        if path.is_dir() && depth > 0 {
            collect(&path, extension, depth - 1, messages)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            let message = fs::read(&path).with_context(|| path.display().to_string())?;
            if message.len() <= MESSAGE_BYTES_MAX && !message.contains(&0) && !message.is_empty() {
                messages.push(message);
            }
        }
    }
    Ok(())
}
