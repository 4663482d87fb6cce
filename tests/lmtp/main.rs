//! LMTP as a mail transfer agent sees it.

mod bad_input;
mod delivery;
mod doors;
mod many;
