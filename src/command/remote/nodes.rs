//! The nodes of a cluster, where the server that is asked is in one.

use switchboard::{Audience, ConnectionInfo, Error, Hub, NodeId, NodeInfo};

use super::{failure::Failure, table::Column};

/// What is asked for at once.
const PAGE: usize = 1000;

/// Where a connection is.
pub(super) const COLUMN: Column = Column::right("NODE", 0, 2);

/// All that are known. An older server has none.
pub(super) fn all(hub: &Hub) -> Vec<NodeInfo> {
    hub.nodes().unwrap_or_default()
}

/// Takes the connections of these nodes, one after the other; without any, all that the server knows of. A node that does not answer has
/// the others listed all the same: returns what is to be said of that.
pub(super) fn each(
    hub: &Hub,
    nodes: &[NodeId],
    audience: Audience<'_>,
    mut take: impl FnMut(ConnectionInfo) -> Result<(), Failure>,
) -> Result<Option<Failure>, Failure> {
    if nodes.is_empty() {
        hub.all_connections(audience).try_for_each(|info| take(info?))?;
        return Ok(None);
    }
    let mut silent = Vec::new();
    for &node in nodes {
        let mut after = None;
        loop {
            match hub.connections_of(node, audience, after.as_ref(), PAGE) {
                Ok(page) => {
                    page.items.into_iter().try_for_each(&mut take)?;
                    after = page.next;
                }
                Err(Error::Remote(_)) => {
                    silent.push(node.to_string());
                    break;
                }
                Err(other) => return Err(other.into()),
            }
            if after.is_none() {
                break;
            }
        }
    }
    Ok(match &silent[..] {
        [] => None,
        [one] => Some(missing(&format!("node {one} does not answer, or Redis, by which it is asked"))),
        many => {
            let many = many.join(", ");
            Some(missing(&format!("the nodes {many} do not answer, or Redis, by which they are asked")))
        }
    })
}

/// A node that knows of no others may be cut off from them: what is to be said of that.
pub(super) fn cut_off(hub: &Hub) -> Option<Failure> {
    // The others are asked, too.
    let is_cut_off = matches!(hub.len(), Err(Error::Remote(_)));
    is_cut_off.then(|| missing("the other nodes of the cluster cannot be asked, since Redis does not answer"))
}

fn missing(why: &str) -> Failure {
    Failure::other(format!("the list is not whole: {why}"))
}
