//! The control socket of a node on this host, `<local_dir>/control.sock`: one JSON line asked, one answered.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::node::control::Question;

/// A node asks all others first, and waits 5 s for each of them at most, all at once.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Longest answer: some 100,000 sessions.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Asks; `None`: no node runs here.
pub fn ask<Reply: DeserializeOwned>(socket: &Path, question: &Question) -> anyhow::Result<Option<Reply>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // Refused: a socket that a node left behind.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't reach the node's control socket {}", socket.display())),
    };
    exchange(stream, question).with_context(|| format!("the node behind {} did not answer", socket.display())).map(Some)
}

fn exchange<Reply: DeserializeOwned>(mut stream: UnixStream, question: &Question) -> anyhow::Result<Reply> {
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    let mut line = serde_json::to_string(question)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;

    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        bail!("it closed the connection");
    }
    let answer: serde_json::Value = serde_json::from_str(&answer).context("its answer is not JSON")?;
    if let Some(error) = answer.get("error").and_then(|error| error.as_str()) {
        bail!("it said: {error}");
    }
    serde_json::from_value(answer).context("its answer is not understood: is it of another version?")
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use affinity::UserName;
    use serde_json::Value;

    use super::*;

    /// Answers one connection; gives what was asked.
    fn node(socket: &Path, answer: &'static str) -> thread::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(&stream).read_line(&mut asked).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
            asked
        })
    }

    #[test]
    fn a_question_is_one_line_and_so_is_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let asked = node(&socket, "{\"held\":[]}\n");
        let user = UserName::normalise("ada").unwrap();
        let reply: Value = ask(&socket, &Question::Who { user: Some(user) }).unwrap().unwrap();
        assert_eq!(asked.join().unwrap(), "{\"command\":\"who\",\"user\":\"ada\"}\n");
        assert_eq!(reply, serde_json::json!({ "held": [] }));
    }

    #[test]
    fn without_a_node_there_is_no_answer_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        assert_eq!(ask::<Value>(&socket, &Question::Nodes).unwrap(), None);
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(ask::<Value>(&socket, &Question::Nodes).unwrap(), None);
    }

    #[test]
    fn what_a_node_refuses_is_said() {
        let folder = tempfile::tempdir().unwrap();
        for (name, answer, expected) in [
            ("a", "{\"error\":\"draining\"}\n", "it said: draining"),
            ("b", "", "it closed the connection"),
            ("c", "what?\n", "its answer is not JSON"),
            ("d", "{}\n", "its answer is not understood"),
        ] {
            let socket = folder.path().join(name);
            let asked = node(&socket, answer);
            let error = format!("{:#}", ask::<Vec<u8>>(&socket, &Question::Nodes).unwrap_err());
            assert!(error.contains(expected), "{error}");
            asked.join().unwrap();
        }
    }
}
