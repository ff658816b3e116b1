//! Who is meant.

use crate::id::WebSocketId;

/// Which connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience<'a> {
    /// All connections.
    All,
    /// Those whose request had this path.
    Path(&'a str),
    /// Those that are served by this route, as it was [registered](crate::ServerBuilder::route): with `/chat/*` all below
    /// `/chat/`, except those for which a longer or an exact route was registered.
    Route(&'a str),
    /// Those that joined this topic.
    Topic(&'a str),
    /// Those of this [user](crate::Opening::set_user): two tabs of a browser are two connections of one user.
    User(&'a str),
}

impl<'a> Audience<'a> {
    /// All of these but one, such as the one that a message came from. It need not be among them.
    ///
    /// ```
    /// # fn example(ws: &switchboard::WebSocket, line: &str) -> switchboard::Result<()> {
    /// use switchboard::Audience;
    ///
    /// let others = Audience::Topic("room").except(ws.websocket_id());
    /// println!("{} others got it", ws.hub().broadcast(others, line)?.sent);
    /// # Ok(()) }
    /// ```
    pub fn except(self, id: &'a WebSocketId) -> Recipients<'a> {
        Recipients { audience: self, except: Some(id) }
    }
}

/// An [`Audience`], or what is left of one: made by [`Audience::except`]. Where this is asked for, an `Audience` will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nobody gets anything yet"]
pub struct Recipients<'a> {
    pub(crate) audience: Audience<'a>,
    pub(crate) except: Option<&'a WebSocketId>,
}

impl<'a> From<Audience<'a>> for Recipients<'a> {
    fn from(audience: Audience<'a>) -> Self {
        Self { audience, except: None }
    }
}
