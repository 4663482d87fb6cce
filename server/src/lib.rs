//! The Berth mail server: every node takes any connection and forwards it to the holder of the user's lease.

pub mod acme;
pub mod auth;
pub mod client;
pub mod command;
pub mod config;
pub mod connection;
pub mod deflate;
pub mod demo;
pub mod forward;
#[doc(hidden)]
pub mod fuzz;
pub mod imap;
pub mod lines;
pub mod lmtp;
pub mod log;
pub mod node;
pub mod pop3;
pub mod pressure;
pub mod sandbox;
pub mod session;
pub mod tls;
