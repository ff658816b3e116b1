//! Why the codec cannot go on.

use std::borrow::Cow;

use crate::{message::CloseCode, scarce::Short};

/// Why a connection cannot go on: the close code for the peer, and a text for the peer and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: CloseCode,
    pub(crate) text: Cow<'static, str>,
}

impl Failure {
    pub(super) fn protocol(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::PROTOCOL_ERROR, text: text.into() }
    }

    pub(super) fn not_utf8() -> Self {
        Self { code: CloseCode::INVALID_DATA, text: "text that is not UTF-8".into() }
    }

    pub(super) fn too_big(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::TOO_BIG, text: text.into() }
    }

    /// The connection below is broken or has ended: no close frame can be sent.
    #[cfg(feature = "__tls")]
    pub(crate) fn network(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: CloseCode::ABNORMAL, text: text.into() }
    }
}

impl From<Short> for Failure {
    fn from(_: Short) -> Self {
        Self { code: CloseCode::TRY_AGAIN, text: "short of memory".into() }
    }
}
