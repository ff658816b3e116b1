//! The clock, and who started it. What there is of memory and threads the server looks at itself.

use std::{env, path::Path};

use super::finding::{Finding, Level};
use crate::command::wall_clock;

pub(super) fn look() -> Vec<Finding> {
    let warn = |text: String| Finding::new(Level::Warning, "clock", &text);
    wall_clock::warning().into_iter().map(warn).chain(manager()).collect()
}

/// The service manager, if there is one.
fn manager() -> Option<Finding> {
    let socket = env::var("NOTIFY_SOCKET").ok().filter(|socket| !socket.is_empty())?;
    let is_there = socket.starts_with('@') || socket.starts_with('/') && Path::new(&socket).exists();
    Some(if is_there {
        Finding::new(Level::Ok, "unit", &format!("the service manager is told how it is, at {socket}"))
    } else {
        Finding::new(Level::Warning, "unit", &format!("NOTIFY_SOCKET is {socket}, which is not there"))
    })
}
