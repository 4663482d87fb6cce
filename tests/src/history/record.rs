//! Recording a history while it happens, and keeping it in a file: one JSON value a line, so that `grep` finds a message.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

use super::{Acknowledgement, Fault, Final, History, Micros, Operation};
use crate::wait;

/// Takes what many clients do at once.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

impl Recorder {
    /// An empty history that begins now.
    pub fn new(title: &str) -> Recorder {
        Recorder { start: wait::now(), history: Mutex::new(History { title: title.to_owned(), ..History::default() }) }
    }
    /// Now.
    pub fn now(&self) -> Micros {
        Micros::try_from(self.start.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }
    /// Adds an operation; its identifier is given here.
    pub fn operation(&self, mut operation: Operation) {
        self.with(|history| {
            operation.id = history.operations.len();
            history.operations.push(operation);
        });
    }
    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.with(|history| history.faults.push(fault));
    }
    /// Looks at or adds to what there is.
    pub fn with<T>(&self, work: impl FnOnce(&mut History) -> T) -> T {
        work(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// The whole.
    pub fn finish(self) -> History {
        self.history.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize, Deserialize)]
enum Line {
    Title(String),
    Operation(Operation),
    Fault(Fault),
    Acknowledgement(Acknowledgement),
    CarriedOutAgain(String),
    Final(Final),
}

/// Writes it to a file.
pub fn write(history: &History, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let title = std::iter::once(Line::Title(history.title.clone()));
    let lines = title
        .chain(history.operations.iter().cloned().map(Line::Operation))
        .chain(history.faults.iter().cloned().map(Line::Fault))
        .chain(history.acknowledgements.iter().cloned().map(Line::Acknowledgement))
        .chain(history.carried_out_again.iter().cloned().map(Line::CarriedOutAgain))
        .chain(history.finals.iter().cloned().map(Line::Final));
    for line in lines {
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
    }
    file.flush().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`write`] wrote.
pub fn read(path: &Path) -> Result<History> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut history = History::default();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = serde_json::from_str(&line?).with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        match line {
            Line::Title(title) => history.title = title,
            Line::Operation(operation) => history.operations.push(operation),
            Line::Fault(fault) => history.faults.push(fault),
            Line::Acknowledgement(acknowledgement) => history.acknowledgements.push(acknowledgement),
            Line::CarriedOutAgain(sender) => drop(history.carried_out_again.insert(sender)),
            Line::Final(last) => history.finals.push(last),
        }
    }
    Ok(history)
}
