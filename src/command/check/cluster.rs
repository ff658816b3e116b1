//! The cluster: who is there. What is wrong with it is told by the library when it tries it.

use switchboard::{NodeInfo, Redis};

use super::finding::{Finding, Level};
use crate::command::{args::Serve, escaped::escaped};

/// What this program is to other nodes.
const SOFTWARE: &str = concat!("switchboard ", env!("CARGO_PKG_VERSION"));

pub(super) fn look(redis: &Redis, args: &Serve, is_running: bool) -> Vec<Finding> {
    let Ok(nodes) = args.cluster.over(redis.clone()).nodes() else { return Vec::new() };
    let tell = |level, text: &str| Finding::new(level, "cluster", &format!("{redis}: {text}"));
    let mut findings = vec![tell(Level::Ok, &there(&nodes))];
    for NodeInfo { node, software, .. } in nodes.iter().filter(|node| *node.software != *SOFTWARE) {
        let software = escaped(software);
        let text = format!("node {node} runs {software}, this is {SOFTWARE}: have all run the same");
        findings.push(tell(Level::Warning, &text));
    }
    if let Some(own) = args.cluster.node().filter(|_| is_running)
        && !nodes.iter().any(|node| node.node == own)
    {
        let text = format!("node {own} is not there: the server does not run, or does not reach Redis");
        findings.push(tell(Level::Error, &text));
    }
    findings
}

fn there(nodes: &[NodeInfo]) -> String {
    let numbers: Vec<_> = nodes.iter().map(|node| node.node.to_string()).collect();
    match &numbers[..] {
        [] => "it is reached, and there is no node yet".into(),
        [one] => format!("it is reached, and there is node {one}"),
        all => format!("it is reached, and there are the nodes {}", all.join(", ")),
    }
}
