//! The black-box tests' tools: they start real nodes and real mail programs, and speak the protocols from the outside.
//!
//! Rules:
//! - only what an operator or a client can see is used: the `berth` binary, its sockets, the shared directory;
//! - no sleeps: everything waits for an event, with a deadline ([`wait`]);
//! - only processes that a test started are signalled ([`process`]);
//! - ports are free ones and directories temporary, so that tests run at once and in any order;
//! - a program that is not installed makes its test say `SKIPPED`, and fail where `CI=true` ([`packages`]).
//!
//! `BERTH_TESTS_ON=dovecot` runs the suites for one server against a private Dovecot: what they expect is then
//! known to hold on a server that we did not write ([`site`]).

pub mod berth;
pub mod clients;
pub mod cluster;
pub mod history;
pub mod hostile;
pub mod lab;
pub mod mail;
pub mod mounts;
pub mod packages;
pub mod peers;
pub mod process;
pub mod site;
pub mod tls;
pub mod wait;

pub use anyhow::{Context, Error as Report, Result, bail, ensure};
