//! Mail programs that we did not write, against real nodes.

mod adopt;
mod himalaya;
mod offlineimap;
mod postfix;
mod readers;
mod writers;
