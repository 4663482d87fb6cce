//! What lies on disk: file names, the state file of each folder, keywords, the folders of the hierarchy. Mostly pure rules; the calls that change
//! anything go through [`crate::filesystem`].

pub(crate) mod beside;
pub(crate) mod ceiling;
pub(crate) mod courier;
pub(crate) mod filename;
pub(crate) mod further;
pub(crate) mod keywords;
pub(crate) mod layout;
pub(crate) mod scan;
pub(crate) mod uidlist;
