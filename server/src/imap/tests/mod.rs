//! Sessions over a stream in memory, against a real mail store.
