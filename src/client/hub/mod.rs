//! The way to a hub in another process: from a URL to a link, and to the next one when it has ended.

mod builder;
mod error;
mod keeper;
mod url;

pub use self::{builder::HubBuilder, error::HubError};
