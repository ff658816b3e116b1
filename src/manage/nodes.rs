//! The nodes of the cluster that the server is in, and how it stands with that.

use http::StatusCode;

use super::{
    answers::{json, refused},
    json::{List, Object, Seconds},
    routes::nothing_but,
};
use crate::{
    http::{Refusal, Request, Response},
    hub::Hub,
    node_info::NodeInfo,
    server::MainServer,
};

/// All that are known, each with what it says of itself.
pub(super) fn answer(main: &MainServer, hub: &Hub, request: &Request) -> Result<Response, Refusal> {
    let nodes: List = hub.nodes().map_err(refused)?.iter().map(about).collect();
    let object = Object::new().with("cluster", main.cluster_state()).with("nodes", nodes);
    nothing_but(request, json(StatusCode::OK, object))
}

fn about(info: &NodeInfo) -> Object {
    Object::new()
        .with("node", u64::from(info.node.get()))
        .with("this", info.is_this)
        .with("software", &*info.software)
        .with("connections", info.connections)
        .with("uptimeSeconds", info.uptime.map(Seconds))
}
