//! Pushing to one connection again and again.

use std::{sync::Arc, time::Duration};

use crate::{
    connection::{Connection, PushError, Pushed},
    error::CloseReason,
    id::WebSocketId,
    message::{Message, Payload},
    metrics::Metrics,
    place::wherever_of_hub,
    registry::Found,
};

/// Pushes to one connection; made by [`Hub::pusher`](crate::Hub::pusher), or by [`Client::pusher`](crate::Client::pusher) for the server at
/// its other end. It does not keep the connection open.
#[derive(Clone, Debug)]
#[must_use = "nothing is pushed until `push`"]
pub struct Pusher(Place);

/// Where the connection is.
#[derive(Clone, Debug)]
enum Place {
    Local(Local),
    #[cfg(feature = "remote")]
    Remote(remote::Remote),
    #[cfg(feature = "cluster")]
    Clustered(elsewhere::There),
}

/// To a connection of this process.
#[derive(Clone, Debug)]
struct Local {
    to: Found,
    /// `None`: nothing is counted.
    metrics: Option<Arc<Metrics>>,
}

impl Pusher {
    /// `metrics`: what becomes of the pushes is counted there.
    pub(super) fn local(to: Found, metrics: Option<Arc<Metrics>>) -> Self {
        Self(Place::Local(Local { to, metrics }))
    }

    #[cfg(feature = "remote")]
    pub(super) fn remote(link: Arc<crate::remote::Linked>, id: WebSocketId) -> Self {
        Self(Place::Remote(remote::Remote::new(link, id)))
    }

    #[cfg(feature = "cluster")]
    pub(super) fn elsewhere(
        elsewhere: Arc<dyn crate::elsewhere::Elsewhere>,
        link: Arc<crate::remote::Linked>,
        id: WebSocketId,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        Self(Place::Clustered(elsewhere::There::new(elsewhere, link, id, metrics)))
    }

    pub(crate) fn to(connection: &Arc<Connection>) -> Self {
        Self::local(Found::Open(connection.clone()), None)
    }

    /// As [`Hub::push`](crate::Hub::push).
    ///
    /// # Errors
    /// As [`Hub::push`](crate::Hub::push); if the connection has ended,
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed), and if it was never opened,
    /// [`PushErrorKind::Refused`](crate::PushErrorKind::Refused).
    pub fn push(&self, data: impl Into<Payload>) -> Result<Pushed, PushError> {
        wherever_of_hub!(self.0, push(data.into()))
    }

    /// As [`Hub::push_wait`](crate::Hub::push_wait).
    ///
    /// # Errors
    /// As [`Hub::push_wait`](crate::Hub::push_wait); if the connection has ended,
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed), and if it was never opened,
    /// [`PushErrorKind::Refused`](crate::PushErrorKind::Refused).
    pub fn push_wait(&self, data: impl Into<Payload>, timeout: Duration) -> Result<(), PushError> {
        wherever_of_hub!(self.0, push_wait(data.into().into_message(), timeout))
    }

    /// The connection's ID; that of a client is known in this process only.
    pub fn websocket_id(&self) -> &WebSocketId {
        wherever_of_hub!(self.0, id())
    }

    /// How the connection ended; `None` while it is open, before that, and if it was never opened.
    pub fn close_reason(&self) -> Option<CloseReason> {
        wherever_of_hub!(self.0, close_reason())
    }
}

impl Local {
    fn push(&self, data: Payload) -> Result<Pushed, PushError> {
        match &self.metrics {
            Some(metrics) => metrics.push(|| self.to.push(data)),
            None => self.to.push(data),
        }
    }

    fn push_wait(&self, message: Message, timeout: Duration) -> Result<(), PushError> {
        let result = self.to.push_wait(message, timeout);
        if let Some(metrics) = &self.metrics {
            metrics.push_waited(&result);
        }
        result
    }

    fn id(&self) -> &WebSocketId {
        self.to.id()
    }

    fn close_reason(&self) -> Option<CloseReason> {
        self.to.connection()?.reason().cloned()
    }
}

/// To a connection of another process.
#[cfg(feature = "remote")]
mod remote {
    use std::{
        sync::{Arc, OnceLock},
        time::Duration,
    };

    use crate::{
        connection::{PushError, PushErrorKind, Pushed},
        error::{CloseReason, Error},
        id::WebSocketId,
        message::{Message, Payload},
        remote::{Linked, unknown_end},
    };

    #[derive(Clone, Debug)]
    pub(super) struct Remote {
        link: Arc<Linked>,
        id: WebSocketId,
        /// How it ended, as far as it is known.
        reason: Arc<OnceLock<CloseReason>>,
    }

    impl Remote {
        pub(super) fn new(link: Arc<Linked>, id: WebSocketId) -> Self {
            Self { link, id, reason: Arc::default() }
        }

        pub(super) fn id(&self) -> &WebSocketId {
            &self.id
        }

        pub(super) fn push(&self, data: Payload) -> Result<Pushed, PushError> {
            self.link.push(&self.id, data).map_err(|error| self.known(error))
        }

        pub(super) fn push_wait(&self, message: Message, timeout: Duration) -> Result<(), PushError> {
            self.link.push_wait(&self.id, message, timeout).map_err(|error| self.known(error))
        }

        /// There was a connection with this ID: it has ended.
        pub(super) fn known(&self, mut error: PushError) -> PushError {
            match &error.kind {
                PushErrorKind::Unknown => error.kind = PushErrorKind::Closed(self.gone()),
                PushErrorKind::Closed(reason) => drop(self.reason.set(reason.clone())),
                _ => {}
            }
            error
        }

        fn gone(&self) -> CloseReason {
            self.reason.get_or_init(unknown_end).clone()
        }

        pub(super) fn close_reason(&self) -> Option<CloseReason> {
            if let Some(reason) = self.reason.get() {
                return Some(reason.clone());
            }
            match self.link.close_reason(&self.id) {
                Ok(reason) => reason.map(|reason| self.reason.get_or_init(|| reason).clone()),
                Err(Error::UnknownId) => Some(self.gone()),
                Err(_) => None,
            }
        }
    }
}

/// To a connection of another node.
#[cfg(feature = "cluster")]
mod elsewhere {
    use std::{sync::Arc, time::Duration};

    use super::{super::clustered::forward, remote::Remote};
    use crate::{
        connection::{PushError, Pushed},
        elsewhere::Elsewhere,
        error::CloseReason,
        id::WebSocketId,
        message::{Message, Payload},
        metrics::Metrics,
        remote::Linked,
    };

    #[derive(Clone, Debug)]
    pub(super) struct There {
        elsewhere: Arc<dyn Elsewhere>,
        /// What is answered comes by the link.
        asked: Remote,
        metrics: Option<Arc<Metrics>>,
    }

    impl There {
        pub(super) fn new(
            elsewhere: Arc<dyn Elsewhere>,
            link: Arc<Linked>,
            id: WebSocketId,
            metrics: Option<Arc<Metrics>>,
        ) -> Self {
            Self { elsewhere, asked: Remote::new(link, id), metrics }
        }

        pub(super) fn push(&self, data: Payload) -> Result<Pushed, PushError> {
            let push = || {
                let pushed = forward(&*self.elsewhere, self.id(), data);
                pushed.map_err(|error| self.asked.known(error))
            };
            match &self.metrics {
                Some(metrics) => metrics.push(push),
                None => push(),
            }
        }

        pub(super) fn push_wait(&self, message: Message, timeout: Duration) -> Result<(), PushError> {
            self.asked.push_wait(message, timeout)
        }

        pub(super) fn id(&self) -> &WebSocketId {
            self.asked.id()
        }

        pub(super) fn close_reason(&self) -> Option<CloseReason> {
            self.asked.close_reason()
        }
    }
}
