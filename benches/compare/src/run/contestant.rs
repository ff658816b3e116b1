//! Who takes part: the built-in peers, and servers that were added by `--peer`.

use std::env;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::Load;
use crate::peers::BUILTIN;

/// What is replaced by the port in a command.
const PORT: &str = "{port}";

#[derive(Serialize)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) versions: Vec<String>,
    #[serde(skip)]
    services: Vec<Service>,
}

/// A server, and where it does what a load needs.
#[derive(Clone, Debug)]
pub(super) struct Service {
    kind: Kind,
    path: String,
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Echoes.
    Ws,
    /// Echoes over TLS.
    Wss,
    /// Sends each message to all.
    Fan,
}

/// One `--peer`.
#[derive(Clone, Debug)]
pub(super) struct Added {
    name: String,
    service: Service,
}

impl Contestant {
    pub(super) fn serves(&self, load: &Load) -> bool {
        self.service(load).is_some()
    }

    pub(super) fn service(&self, load: &Load) -> Option<&Service> {
        self.services.iter().find(|service| service.kind == load.kind)
    }
}

impl Service {
    pub(super) fn command(&self, port: u16) -> impl Iterator<Item = String> {
        self.command.iter().map(move |word| word.replace(PORT, &port.to_string()))
    }

    pub(super) fn url(&self, port: u16) -> String {
        let scheme = if self.kind == Kind::Wss { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{port}{}", self.path)
    }
}

/// Those of the built-in ones that are asked for, and all that were added.
pub(super) fn all(only: &[String], added: &[Added]) -> Result<Vec<Contestant>> {
    let program = env::current_exe().context("this program does not know its own path")?;
    let program = program.to_str().context("the path of this program is not UTF-8")?;
    let mut all = Vec::new();
    for peer in BUILTIN.iter().filter(|peer| only.is_empty() || only.iter().any(|name| name == peer.name)) {
        let kinds = [(peer.echoes, Kind::Ws), (peer.tls, Kind::Wss), (peer.fans, Kind::Fan)];
        let service = |kind| {
            let mut command = [program, "serve", peer.name, PORT].map(String::from).to_vec();
            command.extend((kind == Kind::Wss).then(|| "--tls".into()));
            let path = if kind == Kind::Fan { "/fan" } else { "/echo" };
            Service { kind, path: path.into(), command }
        };
        all.push(Contestant {
            name: peer.name.into(),
            what: peer.what.into(),
            versions: peer.versions(),
            services: kinds.into_iter().filter(|(has, _)| *has).map(|(_, kind)| service(kind)).collect(),
        });
    }
    for Added { name, service } in added {
        ensure!(BUILTIN.iter().all(|peer| peer.name != name), "--peer {name}: the name is a built-in peer's");
        let service = service.clone();
        match all.iter_mut().find(|known| known.name == *name) {
            Some(known) => known.services.push(service),
            None => all.push(Contestant {
                name: name.clone(),
                what: format!("`{}`", service.command.join(" ")),
                versions: Vec::new(),
                services: vec![service],
            }),
        }
    }
    Ok(all)
}

/// The value of `--peer`: `NAME=[KIND:/PATH:]COMMAND`.
pub(super) fn added(text: &str) -> Result<Added, String> {
    let (name, server) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("no NAME= at its beginning")?;
    let kinds = [("ws:/", Kind::Ws), ("wss:/", Kind::Wss), ("fan:/", Kind::Fan)];
    let kind = kinds.into_iter().find_map(|(prefix, kind)| Some((kind, server.strip_prefix(prefix)?)));
    let (kind, path, command) = match kind {
        None => (Kind::Ws, String::new(), server),
        Some((kind, rest)) => {
            let (path, command) = rest.split_once(':').ok_or("no ':' between path and command")?;
            (kind, path.into(), command)
        }
    };
    if !command.contains(PORT) {
        return Err(format!("no {PORT} in its command"));
    }
    let command = command.split_whitespace().map(String::from).collect();
    Ok(Added { name: name.into(), service: Service { kind, path: format!("/{path}"), command } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_peers() {
        let peer = added("uws=node uws.js --port={port}").unwrap();
        assert!(peer.name == "uws" && peer.service.url(80) == "ws://127.0.0.1:80/");
        assert_eq!(peer.service.command(80).collect::<Vec<_>>(), ["node", "uws.js", "--port=80"]);
        let peer = added("a=wss:/x/y:serve {port}").unwrap();
        assert_eq!(peer.service.url(80), "wss://127.0.0.1:80/x/y");
        let all = all(&["limit".into()], &[peer, added("a=fan:/f:serve {port}").unwrap()]).unwrap();
        assert!(all.len() == 2 && all[1].services.len() == 2);
        for bad in ["a", "=serve {port}", "a=serve", "a=ws:/serve {port}"] {
            assert!(added(bad).is_err(), "{bad}");
        }
    }
}
