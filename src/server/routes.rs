//! The routes: which WebSocket or page serves a path. The builder fills them; then the connections' threads only read them.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use log::Level;

use super::exchange::Exchange;
use crate::{
    caught::caught,
    error::{Result, ServerError},
    http::{FAILED, Files, Refusal, Request, Response, normalize, websocket_here},
    interned::Name,
    seldom::Seldom,
    shown::ShownPath,
    websocket::WebSocketServer,
};

/// Each request may cause it.
static PANICKED: Seldom = Seldom::new(Duration::from_secs(10));

/// Makes the application instance for a connection.
pub(super) type Factory = Arc<dyn Fn() -> Box<dyn WebSocketServer> + Send + Sync>;

pub(super) type Handler = Arc<dyn Fn(&Exchange<'_>) -> Response + Send + Sync>;

/// What serves the WebSockets of a route.
pub(super) struct Target {
    pub(super) factory: Factory,
    /// The route, if it stands for several paths.
    pub(super) route: Option<Name>,
}

/// WebSockets and pages; a path may have a WebSocket, and a page for each method.
#[derive(Default)]
pub(super) struct Routes {
    websockets: Table<Target>,
    pages: Table<Pages>,
    /// Answers all that is not for a WebSocket, in place of the pages.
    pub(super) all: Option<Handler>,
}

/// The pages of a path. One for GET is for HEAD, too, unless that has its own.
type Pages = Vec<(Method, Page)>;

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
        match self.entry(path)? {
            Some(_) => Err(twice(path)),
            None => {
                self.put(path, target);
                Ok(())
            }
        }
    }

    /// What is there already.
    fn entry(&mut self, path: &str) -> Result<Option<&mut T>, ServerError> {
        if !path.starts_with('/') || path.trim_end_matches('*').contains(['*', '?', '#', '{', '}']) {
            return Err(ServerError::config(format!(
                "route {path:?}: a path must start with /, and have no ?, #, {{, }}, or * except for /* at its end"
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
        match path.strip_suffix('*') {
            None => Ok(self.exact.get_mut(path)),
            Some(prefix) if prefix.ends_with('/') => {
                Ok(self.prefixes.iter_mut().find(|(other, _)| other == prefix).map(|(_, target)| target))
            }
            Some(_) => Err(ServerError::config(format!("route {path:?}: a prefix must end with /*"))),
        }
    }

    fn put(&mut self, path: &str, target: T) {
        match path.strip_suffix('*') {
            None => drop(self.exact.insert(path.to_owned(), target)),
            Some(prefix) => {
                self.prefixes.push((prefix.to_owned(), target));
                self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
            }
        }
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

fn twice(path: &str) -> ServerError {
    ServerError::config(format!("route {path:?} is registered twice"))
}

impl Routes {
    pub(super) fn websocket(&mut self, path: &str, factory: Factory) -> Result<(), ServerError> {
        let route = path.ends_with('*').then(|| Name::new(path));
        self.websockets.insert(path, Target { factory, route })
    }

    /// `route` is a path for GET, or begins with another method.
    pub(super) fn page(&mut self, route: &str, handler: Handler) -> Result<(), ServerError> {
        let (method, path) = parse_route(route)?;
        self.add(method, path, Page::Handler(handler)).map_err(|e| e.unwrap_or_else(|| twice(route)))
    }

    pub(super) fn files(&mut self, path: &str, files: Files) -> Result<(), ServerError> {
        self.add(Method::GET, path, Page::Files(files)).map_err(|e| e.unwrap_or_else(|| twice(path)))
    }

    /// # Errors
    /// `None` if there is one already.
    fn add(
        &mut self,
        method: Method,
        path: &str,
        page: Page,
    ) -> std::result::Result<(), Option<ServerError>> {
        match self.pages.entry(path)? {
            Some(pages) if pages.iter().any(|(other, _)| *other == method) => return Err(None),
            Some(pages) => pages.push((method, page)),
            None => self.pages.put(path, vec![(method, page)]),
        }
        Ok(())
    }

    /// The `Cache-Control` of files for which none was chosen.
    pub(super) fn set_default_cache_control(&mut self, value: &HeaderValue) {
        for (_, page) in self.pages.targets_mut().flatten() {
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

    /// Whether a request that asks for a WebSocket gets one, or is told why not. Where one handler answers all, it answers those
    /// whose path is no WebSocket's, too: it is to say who may learn that.
    pub(super) fn take_upgrade(&self, path: &str) -> bool {
        self.all.is_none() || self.websockets.find(path).is_some()
    }

    /// What the `*` of the page at this path stands for.
    pub(super) fn below_page<'a>(&self, path: &'a str) -> &'a str {
        self.pages.find(path).map(|(_, below)| below).unwrap_or_default()
    }

    /// Answers a request that does not ask for a WebSocket.
    pub(super) fn respond(&self, exchange: &Exchange<'_>) -> std::result::Result<Response, Refusal> {
        let (method, path) = (exchange.request().method(), exchange.request().path());
        if let Some(all) = &self.all {
            return call(all, exchange);
        }
        let Some((pages, below)) = self.pages.find(path) else {
            return match *method {
                // Its target is no path, and whatever it is, there is no tunnel to it (RFC 9110, section 9.3.6).
                Method::CONNECT => Err(not_allowed(&[Method::GET])),
                // Only this method may ask for no path: it is a ping of HTTP (RFC 9110, section 9.3.7).
                Method::OPTIONS if path == "*" => Ok(Response::without_body(StatusCode::NO_CONTENT)),
                _ => Err(nothing_here()),
            };
        };
        match page_for(pages, method) {
            Some(Page::Handler(handler)) => call(handler, exchange),
            Some(Page::Files(files)) => match files.get(below, exchange.request()) {
                missing if missing.status() == StatusCode::NOT_FOUND && self.is_websockets(path, below) => {
                    Err(websocket_here())
                }
                response => Ok(response),
            },
            None => Err(self.other_methods(path, pages)),
        }
    }

    /// Whether a WebSocket is nearer to this path than what has only a prefix of it, with this `below` that.
    fn is_websockets(&self, path: &str, below: &str) -> bool {
        self.websockets.find(path).is_some_and(|(_, rest)| rest.len() < below.len())
    }

    /// The refusal of a method that none of the pages is for.
    fn other_methods(&self, path: &str, pages: &Pages) -> Refusal {
        let websocket = self.websockets.find(path).map(|_| Method::GET);
        let mut methods: Vec<_> = pages.iter().map(|(method, _)| method.clone()).chain(websocket).collect();
        methods.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        methods.dedup();
        not_allowed(&methods)
    }

    /// Whether there is a WebSocket at the path of this request, and no page that it could be for instead.
    pub(super) fn is_only_websocket(&self, request: &Request) -> bool {
        self.all.is_none()
            && self.websockets.find(request.path()).is_some()
            && match self.pages.find(request.path()) {
                None => true,
                Some((pages, _)) => {
                    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
                    is_get && page_for(pages, request.method()).is_none()
                }
            }
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

fn call(handler: &Handler, exchange: &Exchange<'_>) -> std::result::Result<Response, Refusal> {
    caught(|| handler(exchange)).ok_or_else(|| {
        let path = ShownPath(exchange.request().path());
        PANICKED.log(Level::Error, format_args!("the handler of {path} panicked"));
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
    })
}

/// `METHOD /path`, or a path only: then it is for GET.
fn parse_route(route: &str) -> Result<(Method, &str), ServerError> {
    let (method, path) = match route.split_once(' ') {
        Some((method, path)) if !method.starts_with('/') => (method, path),
        _ => ("GET", route),
    };
    let method = Method::from_bytes(method.as_bytes()).ok();
    let method = method.filter(|method| {
        *method != Method::CONNECT && !method.as_str().bytes().any(|b| b.is_ascii_lowercase())
    });
    let method = method.ok_or_else(|| {
        ServerError::config(format!(
            "route {route:?}: write a path, or METHOD /path with a method in capitals"
        ))
    })?;
    Ok((method, path))
}

/// One for GET answers HEAD, too.
fn page_for<'a>(pages: &'a Pages, method: &Method) -> Option<&'a Page> {
    let of = |method: &Method| pages.iter().find(|(other, _)| other == method).map(|(_, page)| page);
    of(method).or_else(|| of(&Method::GET).filter(|_| *method == Method::HEAD))
}

fn nothing_here() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "nothing at this path")
}

/// The methods that there are, HEAD with GET (RFC 9110, section 15.5.6).
fn not_allowed(methods: &[Method]) -> Refusal {
    let mut names: Vec<_> = methods.iter().map(Method::as_str).collect();
    if let (Some(get), false) = (names.iter().position(|name| *name == "GET"), names.contains(&"HEAD")) {
        names.insert(get + 1, "HEAD");
    }
    let names = names.join(", ");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("here is only {names}"))
        .with_header(header::ALLOW, names.as_str())
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
        for path in ["", "echo", "/a*", "/a/*/b", "/a?b", "*", "/a/{b}"] {
            assert!(table.insert(path, ()).is_err(), "{path}");
        }
        table.insert("/a/*", ()).unwrap();
        assert!(table.insert("/a/*", ()).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_route_may_begin_with_a_method() {
        let parsed = |route| parse_route(route).map(|(method, path)| (method.to_string(), path.to_owned()));
        assert_eq!(parsed("/x").unwrap(), ("GET".into(), "/x".into()));
        assert_eq!(parsed("POST /x/*").unwrap(), ("POST".into(), "/x/*".into()));
        assert_eq!(parsed("M-SEARCH /").unwrap(), ("M-SEARCH".into(), "/".into()));
        for bad in ["post /x", "CONNECT /x", "PO,ST /x", " /x", "Get /"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        let mut routes = Routes::default();
        let page = || -> Handler { Arc::new(|_| Response::html("")) };
        for route in ["/x", "POST /x", "HEAD /x", "PUT /x/*"] {
            routes.page(route, page()).unwrap();
        }
        for twice in ["/x", "GET /x", "POST /x", "PUT /x/*"] {
            let error = routes.page(twice, page()).unwrap_err().to_string();
            assert!(error.contains("twice") && error.contains(twice), "{error}");
        }
        for bad in ["POST x", "POST  /x", "POST"] {
            let error = routes.page(bad, page()).unwrap_err().to_string();
            assert!(error.contains("a path must start with /"), "{error}");
        }
    }

    #[test]
    fn allow_lists_what_there_is() {
        let allow = |methods: &[Method]| {
            let mut response = Response::from(not_allowed(methods));
            response.headers_mut().remove(header::ALLOW).unwrap()
        };
        assert_eq!(allow(&[Method::GET]), "GET, HEAD");
        assert_eq!(allow(&[Method::DELETE, Method::GET, Method::POST]), "DELETE, GET, HEAD, POST");
        assert_eq!(allow(&[Method::GET, Method::HEAD]), "GET, HEAD");
        assert_eq!(allow(&[Method::POST]), "POST");
    }
}
