//! Load for a mail server, and what it did with it: deliveries and logins per second, memory per idle connection.
//!
//! The same code drives Berth and any other server with the same doors. Method: `README.md` beside this folder.

pub mod load;
pub mod memory;
pub mod table;
