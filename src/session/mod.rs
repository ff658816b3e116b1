//! Sessions: values that the connections and the HTTP requests of one user share.
//!
//! A request names its session in a cookie, which the server has signed: so an ID lives as long as its cookie, although nothing
//! is kept of a session that holds nothing. What does hold values is in the store.

mod cookie;
mod handle;
mod id;
mod keys;
mod memory;
#[cfg(feature = "cluster")]
mod redis;
mod sessions;
mod store;

#[cfg(feature = "cluster")]
pub use self::redis::RedisStore;
pub use self::{
    cookie::SessionCookie,
    handle::Session,
    id::{InvalidSessionId, SessionId},
    store::{FoundSession, SessionStore, StoreResult},
};
pub(crate) use self::{
    keys::SessionKeys,
    memory::InUse,
    sessions::{SessionSettings, Sessions},
};
