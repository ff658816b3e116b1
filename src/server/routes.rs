//! The routes: which WebSocket or page serves a path. The builder fills them; then the connections' threads only read them.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use log::Level;

use super::exchange::Exchange;
use crate::{
    caught::caught,
    error::{Result, ServerError},
    http::{FAILED, Files, Refusal, Response, normalize},
    interned::Name,
    seldom::Seldom,
    shown::Shown,
    websocket::WebSocketServer,
};

/// Each request may cause it.
static PANICKED: Seldom = Seldom::new(Duration::from_secs(10));

/// Makes the application instance for a connection.
pub(super) type Factory = Arc<dyn Fn() -> Box<dyn WebSocketServer> + Send + Sync>;

type Handler = Arc<dyn Fn(&Exchange<'_>) -> Response + Send + Sync>;

/// What serves the WebSockets of a route.
pub(super) struct Target {
    pub(super) factory: Factory,
    /// The route, if it stands for several paths.
    pub(super) route: Option<Name>,
}

/// WebSockets and pages; a path may have one of each.
#[derive(Default)]
pub(super) struct Routes {
    websockets: Table<Target>,
    pages: Table<Page>,
}

enum Page {
    Handler(Handler),
    Files(Files),
}

/// Exact paths and prefixes. An exact path wins over a prefix, and a longer prefix over a shorter one.
struct Table<T> {
    exact: HashMap<String, T>,
    prefixes: Vec<(String, T)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), prefixes: Vec::new() }
    }
}

impl<T> Table<T> {
    /// `/a/*` stands for everything below `/a/`; a path without the star stands for itself.
    fn insert(&mut self, path: &str, target: T) -> Result<(), ServerError> {
        if !path.starts_with('/') || path.trim_end_matches('*').contains(['*', '?', '#']) {
            return Err(ServerError::config(format!(
                "route {path:?}: a path must start with /, and have no ?, #, or * except for /* at its end"
            )));
        }
        match normalize(path) {
            Ok(normal) if normal == path => {}
            Ok(normal) => {
                let why = "the paths of requests are compared in their decoded, shortest form";
                return Err(ServerError::config(format!("route {path:?}: write {normal:?}: {why}")));
            }
            Err(why) => return Err(ServerError::config(format!("route {path:?}: {why}"))),
        }
        let taken = match path.strip_suffix('*') {
            None => self.exact.insert(path.to_owned(), target).is_some(),
            Some(prefix) if prefix.ends_with('/') => {
                let taken = self.prefixes.iter().any(|(other, _)| other == prefix);
                self.prefixes.push((prefix.to_owned(), target));
                self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
                taken
            }
            Some(_) => return Err(ServerError::config(format!("route {path:?}: a prefix must end with /*"))),
        };
        if taken { Err(ServerError::config(format!("route {path:?} is registered twice"))) } else { Ok(()) }
    }

    fn paths(&self) -> Vec<String> {
        let prefixes = self.prefixes.iter().map(|(prefix, _)| format!("{prefix}*"));
        self.exact.keys().cloned().chain(prefixes).collect()
    }

    fn targets_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.prefixes.iter_mut().map(|(_, target)| target))
    }

    /// The target of the best match, and the part of the path after its prefix.
    fn find<'a>(&self, path: &'a str) -> Option<(&T, &'a str)> {
        if let Some(target) = self.exact.get(path) {
            return Some((target, ""));
        }
        self.prefixes.iter().find_map(|(prefix, target)| Some((target, path.strip_prefix(prefix.as_str())?)))
    }
}

impl Routes {
    pub(super) fn websocket(&mut self, path: &str, factory: Factory) -> Result<(), ServerError> {
        let route = path.ends_with('*').then(|| Name::new(path));
        self.websockets.insert(path, Target { factory, route })
    }

    pub(super) fn page(&mut self, path: &str, handler: Handler) -> Result<(), ServerError> {
        self.pages.insert(path, Page::Handler(handler))
    }

    pub(super) fn files(&mut self, path: &str, files: Files) -> Result<(), ServerError> {
        self.pages.insert(path, Page::Files(files))
    }

    /// The `Cache-Control` of files for which none was chosen.
    pub(super) fn set_default_cache_control(&mut self, value: &HeaderValue) {
        for page in self.pages.targets_mut() {
            if let Page::Files(files) = page {
                files.set_default_cache_control(value);
            }
        }
    }

    /// The application for the WebSocket at this path.
    pub(super) fn find_websocket(&self, path: &str) -> std::result::Result<&Target, Refusal> {
        let not_found = || Refusal::new(StatusCode::NOT_FOUND, "no WebSocket at this path");
        self.websockets.find(path).map(|(target, _)| target).ok_or_else(not_found)
    }

    /// Answers a request that does not ask for a WebSocket.
    pub(super) fn respond(&self, exchange: &Exchange<'_>) -> std::result::Result<Response, Refusal> {
        let path = exchange.request().path();
        match self.pages.find(path) {
            Some((Page::Handler(handler), _)) => caught(|| handler(exchange)).ok_or_else(|| {
                PANICKED.log(Level::Error, format_args!("the handler of {} panicked", Shown(path)));
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
            }),
            Some((Page::Files(files), below)) => {
                if matches!(*exchange.request().method(), Method::GET | Method::HEAD) {
                    Ok(files.get(below, exchange.request()))
                } else {
                    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD for a file")
                        .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD")))
                }
            }
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "nothing at this path")),
        }
    }

    pub(super) fn is_websocket(&self, path: &str) -> bool {
        self.websockets.find(path).is_some()
    }

    pub(super) fn has_page(&self, path: &str) -> bool {
        self.pages.find(path).is_some()
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("websockets", &self.websockets.paths())
            .field("pages", &self.pages.paths())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_but_an_exact_path_wins_over_it() {
        let mut table = Table::default();
        for path in
            ["/", "/csp/user/MyApp.MyWebSocketServer.cls", "/chat/*", "/chat/rooms/*", "/chat/rooms/1"]
        {
            table.insert(path, path.to_owned()).unwrap();
        }
        let found = |path| table.find(path).map(|(target, below)| (target.as_str(), below));
        assert_eq!(found("/"), Some(("/", "")));
        assert_eq!(found("/csp/user/MyApp.MyWebSocketServer.cls").unwrap().1, "");
        assert_eq!(found("/chat/x/y"), Some(("/chat/*", "x/y")));
        assert_eq!(found("/chat/rooms/2"), Some(("/chat/rooms/*", "2")));
        assert_eq!(found("/chat/rooms/1"), Some(("/chat/rooms/1", "")));
        assert_eq!(found("/chat"), None);
    }

    #[test]
    fn bad_paths_are_refused() {
        let mut table = Table::default();
        for path in ["", "echo", "/a*", "/a/*/b", "/a?b", "*"] {
            assert!(table.insert(path, ()).is_err(), "{path}");
        }
        table.insert("/a/*", ()).unwrap();
        assert!(table.insert("/a/*", ()).unwrap_err().to_string().contains("twice"));
    }
}
