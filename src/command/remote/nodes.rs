//! The nodes of a cluster, where the server that is asked is in one.

use switchboard::Hub;

use super::table::Column;

/// Where a connection is.
pub(super) const COLUMN: Column = Column::right("NODE", 0, 2);

/// Whether there are others than the one that is asked. An older server has none.
pub(super) fn are_many(hub: &Hub) -> bool {
    hub.nodes().is_ok_and(|nodes| nodes.len() > 1)
}
