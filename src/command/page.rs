//! The demo page: what it consists of is in the program.

use switchboard::{Response, ServerBuilder};

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Paths, types and texts. The page reconnects by the very script that the examples offer.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/reconnecting.js", JAVASCRIPT, include_str!("../../examples/web/reconnecting.js")),
];

/// It has nothing from elsewhere and nothing inline, and its sockets are its own.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// With a folder of the user's own, none of this is served.
pub(super) fn serve(builder: ServerBuilder) -> ServerBuilder {
    FILES.into_iter().fold(builder, |builder, (path, content_type, text)| {
        builder.http(path, move |_| {
            Response::new(content_type, text).with_header("content-security-policy", POLICY)
        })
    })
}
