//! Load for mail servers, and what they did with it: speed, CPU time and memory, from outside, Berth beside Dovecot.
//!
//! The same code drives every server. Method and figures: `README.md` beside this folder.

pub mod accounts;
pub mod client;
pub mod corpus;
pub mod idle;
pub mod large;
pub mod scaling;
pub mod servers;
pub mod steps;
pub mod table;
pub mod usage;
