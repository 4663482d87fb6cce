//! Mail programs that we did not write, against real nodes.

mod postfix;
mod readers;
