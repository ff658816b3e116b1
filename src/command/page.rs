//! The demo page. Its files are compiled into the program.

use switchboard::{Response, ServerBuilder};

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Paths, content types and contents. The page uses the same script for reconnecting as the examples.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/reconnecting.js", JAVASCRIPT, include_str!("../../examples/web/reconnecting.js")),
];

/// The page loads nothing from other hosts, has no inline code, and opens WebSockets only to this server.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Adds the page to a server.
pub(super) fn serve(builder: ServerBuilder) -> ServerBuilder {
    FILES.into_iter().fold(builder, |builder, (path, content_type, text)| {
        builder.http(path, move |_| {
            Response::new(content_type, text).with_header("content-security-policy", POLICY)
        })
    })
}
