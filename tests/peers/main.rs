//! Mail programs that we did not write, against real nodes.

mod adopt;
mod postfix;
mod readers;
mod writers;
